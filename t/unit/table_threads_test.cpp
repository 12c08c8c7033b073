// Promise: the lock-free paths are free of data races, as a thread sanitizer understands them (it does not see races
// between processes, so these are threads).
#include "table_zone.hpp"

#include <gtest/gtest.h>
#include <mutex>
#include <thread>

namespace billing {
namespace {

class MutexLock final : public ZoneLock {
public:
    void lock() noexcept override { mutex_.lock(); }
    void unlock() noexcept override { mutex_.unlock(); }

private:
    std::mutex mutex_;
};

TEST(TableThreads, ReadSpendAndWriteAtOnce) {
    constexpr std::uint64_t k_accounts = 1100; // more than there are units
    constexpr int k_rounds = 20000;
    SharedMemory memory(Table::bytes_for(k_min_units));
    MutexLock lock;
    Table table = std::move(Table::create(memory.at(), memory.bytes(), lock).value());
    const auto key = [&](std::uint64_t account) { return table.key_of("account-" + std::to_string(account)); };
    std::atomic<std::int64_t> granted = 0;
    std::atomic<std::int64_t> spent = 0;

    std::atomic<bool> requesting = true;
    std::mutex books;
    std::int64_t reported = 0;
    std::int64_t returned = 0;
    const auto flush = [&] {
        const std::lock_guard guard(books);
        std::vector<UsageRow> rows;
        std::uint64_t sequence = 0;
        if (table.freeze() && table.frozen(rows, sequence)) {
            for (const UsageRow& row : rows) {
                reported += row.spent;
                returned += row.returned;
            }
            table.acknowledge(sequence);
        }
    };

    const auto request = [&](std::uint64_t seed) {
        std::uint64_t random = seed;
        for (int i = 0; i < k_rounds; i++) {
            random = random * 6364136223846793005 + 1442695040888963407;
            const std::uint64_t account = 1 + (random >> 33) % k_accounts;
            const auto limit = static_cast<std::uint8_t>(random >> 60);
            if (i % 500 == 0) {
                flush(); // before the batch is full
            }
            AccountView view;
            SpendOutcome outcome;
            if (!table.find(key(account), view)) {
                AccountFacts facts{};
                facts.id = account;
                facts.stamp = 1;
                facts.has_overrides = account % 10 == 0;
                facts.on = {{account % 10 == 0, 0}};
                table.put(key(account), facts, 0);
                continue;
            }
            const Spend result = table.spend(view.ref, limit, 10, 1, 0, outcome);
            if (result == Spend::taken) {
                spent++;
                if (i % 5 == 0 && table.refund(view.ref, limit, 10, 1)) {
                    spent--;
                }
            } else if (result == Spend::short_of_tokens && table.fund(key(account), limit, 10, 5, 0, 0)) {
                granted += 5;
            }
        }
    };
    std::thread first(request, 1);
    std::thread second(request, 2);
    std::thread flusher([&] {
        for (int i = 0; requesting; i++) {
            flush();
            table.sweep(50);
            table.put_catalog(static_cast<std::uint64_t>(i) + 1, std::string(100, 'x'));
            table.put_position(std::to_string(i));
        }
    });
    for (int i = 0; i < 2000; i++) {
        std::string document;
        std::uint64_t stamp = 0;
        table.read_catalog(document, stamp);
        table.position();
    }
    first.join();
    second.join();
    requesting = false;
    flusher.join();
    EXPECT_EQ(table.check(), "");
    while (!table.return_all()) {
        flush();
    }
    flush();
    flush();
    EXPECT_EQ(reported, spent.load());
    EXPECT_EQ(reported + returned, granted.load());
    EXPECT_EQ(table.counted(Counter::forfeited), 0u) << "the batch was never full";
}

} // namespace
} // namespace billing
