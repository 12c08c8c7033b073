// A zone for tests: shared memory that forked processes see, and a lock that dies with its holder as nginx's does.
#pragma once

#include "state/table.hpp"

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sched.h>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

namespace billing {

// Zeroed memory that parent and children share.
class SharedMemory {
public:
    explicit SharedMemory(std::size_t bytes) : bytes_(bytes) {
        at_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (at_ == MAP_FAILED) {
            std::perror("mmap");
            std::abort();
        }
    }
    ~SharedMemory() { munmap(at_, bytes_); }
    SharedMemory(const SharedMemory&) = delete;
    SharedMemory& operator=(const SharedMemory&) = delete;

    void* at() const { return at_; }
    std::size_t bytes() const { return bytes_; }

private:
    void* at_;
    std::size_t bytes_;
};

template <class T>
class Shared {
public:
    T* operator->() { return static_cast<T*>(memory_.at()); }
    T& operator*() { return *static_cast<T*>(memory_.at()); }

private:
    SharedMemory memory_{sizeof(T)};
};

// Of a child: it stays to be waited for.
inline bool has_ended(pid_t pid) {
    siginfo_t info{};
    return waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

// Spins on a word in shared memory that names the holder.
class TestLock final : public ZoneLock {
public:
    void lock() noexcept override {
        std::uint32_t holder = 0;
        while (!shared::swap(*word_, holder, static_cast<std::uint32_t>(getpid()))) {
            if (has_ended(static_cast<pid_t>(holder))) { // only the parent sees it
                force_unlock(static_cast<pid_t>(holder));
            }
            holder = 0;
            sched_yield();
        }
    }
    void unlock() noexcept override { shared::store(*word_, 0); }
    void stored() noexcept override {
        if (die_after != 0 && --die_after == 0) {
            kill(getpid(), SIGKILL);
        }
        stores++;
    }
    // What nginx's master does for a worker that is gone.
    void force_unlock(pid_t pid) {
        auto holder = static_cast<std::uint32_t>(pid);
        shared::swap(*word_, holder, 0);
    }

    std::uint64_t die_after = 0; // this process is killed by its n-th store from now; 0 = never
    std::uint64_t stores = 0;

private:
    Shared<std::uint32_t> word_;
};

struct TestZone {
    explicit TestZone(std::uint32_t accounts = k_min_units) : memory(Table::bytes_for(accounts)) {}

    SharedMemory memory;
    TestLock lock;
    Table table = std::move(Table::create(memory.at(), memory.bytes(), lock).value());

    AccountKey key(std::uint64_t account) const { return table.key_of("account-" + std::to_string(account)); }
    AccountView view(std::uint64_t account) const {
        AccountView view{};
        table.find(key(account), view);
        return view;
    }
    bool has(std::uint64_t account) const {
        AccountView view;
        return table.find(key(account), view);
    }
    // The account's number is its id in PostgreSQL.
    Put put(std::uint64_t account, std::uint64_t stamp = 1) {
        AccountFacts facts{};
        facts.id = account;
        facts.stamp = stamp;
        return table.put(key(account), facts, table.valid_gen());
    }
    Spend spend(std::uint64_t account, std::uint8_t limit_no, std::int64_t period, std::uint32_t cost = 1) {
        AccountView found;
        SpendOutcome outcome;
        return table.find(key(account), found) ? table.spend(found.ref, limit_no, period, cost, 0, outcome)
                                               : Spend::gone;
    }
    // Builds, takes and acknowledges a batch. Empty: nothing to report.
    std::vector<UsageRow> flush() {
        std::vector<UsageRow> rows;
        std::uint64_t sequence = 0;
        if (table.freeze() && table.frozen(rows, sequence)) {
            table.acknowledge(sequence);
        }
        return rows;
    }
    // Everything that can be reported, and all that is held as returned.
    std::vector<UsageRow> drain() {
        std::vector<UsageRow> all;
        for (bool empty = false; !empty;) {
            empty = table.return_all();
            std::vector<UsageRow> rows = flush();
            all.insert(all.end(), rows.begin(), rows.end());
            empty = empty && rows.empty();
        }
        return all;
    }
};

// Runs f in a child process, which does not outlive its parent; await() gives its wait status.
template <class F>
pid_t in_child(F&& f) {
    std::fflush(nullptr);
    const pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        f();
        _exit(0);
    }
    return pid;
}
inline int await(pid_t pid) {
    int status = -1;
    while (waitpid(pid, &status, 0) == -1 && errno == EINTR) {
    }
    return status;
}
inline bool ended_well(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }

} // namespace billing
