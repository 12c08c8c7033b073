// The event loop as the drivers see it: sockets, timers, and a list of things to run next. Two implementations exist,
// one on nginx's loop (in a worker) and one on poll(2) (the command and the tests). One thread: nothing here is thread
// safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace billing {

class Reactor;

enum class LogLevel { debug, info, notice, warn, error };

// Something to run once from the loop. Intrusive: the object lives where its owner put it (a coroutine frame, a member)
// and unlinks itself when destroyed, so a posted Ready may be destroyed before it ran.
class Ready {
public:
    Ready(const Ready&) = delete;
    Ready& operator=(const Ready&) = delete;

    bool posted() const noexcept { return next_ != nullptr; }
    // Forget the posting; nothing happens if there is none.
    void unpost() noexcept;

protected:
    Ready() noexcept = default;
    virtual ~Ready() { unpost(); }

private:
    friend class ReadyList;
    // Called from the loop, already unlinked: it may post itself again, or destroy itself.
    virtual void run() noexcept = 0;

    Ready* prev_ = nullptr;
    Ready* next_ = nullptr;
};

// Circular list of posted Ready, run in the order of posting. Used by Reactor only.
class ReadyList {
public:
    ReadyList() noexcept;
    ReadyList(const ReadyList&) = delete;
    ReadyList& operator=(const ReadyList&) = delete;
    ~ReadyList();

    bool empty() const noexcept { return head_.next_ == &head_; }
    // False if it was posted already.
    bool push(Ready& ready) noexcept;
    // Run what is posted now; what is posted meanwhile waits for the next call.
    void run_batch() noexcept;

private:
    struct Head final : Ready {
        void run() noexcept override {}
    };
    static void init(Head& head) noexcept;
    static void close(Head& head) noexcept;

    Head head_;
};

// One-shot timer. Embedded in its user; disarms itself when destroyed. `storage` belongs to the Reactor which armed it.
class Timer {
public:
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

    bool armed() const noexcept { return reactor_ != nullptr; }

    // Does not keep a graceful shutdown of the process waiting. Read by the Reactor at each arm().
    bool background = false;

    // For the Reactor's implementation: raw memory, zero at construction, trivially destroyed.
    static constexpr std::size_t k_storage_bytes = 128;
    alignas(16) unsigned char storage[k_storage_bytes] = {};

protected:
    explicit Timer(bool in_background = false) noexcept : background(in_background) {}
    virtual ~Timer();

private:
    friend class Reactor;
    // Called from the loop, already disarmed: it may arm itself again, or destroy itself.
    virtual void on_timer() noexcept = 0;

    Reactor* reactor_ = nullptr; // who armed it
};

// A registration of a descriptor. Implementations derive from it; drivers hold the pointer from attach() to release().
class Socket {
public:
    Socket(const Socket&) = delete;
    Socket& operator=(const Socket&) = delete;

protected:
    Socket() noexcept = default;
    ~Socket() = default;
};

// The driver's side of a registration.
class SocketHandler {
public:
    // Level-triggered: called again while the condition lasts. The two facts may come in one call or in two. An error
    // or hang-up of the descriptor is reported as readiness for whatever is wanted, so keep at least `read` wanted. The
    // handler may release this or any other socket, or attach new ones, before it returns.
    virtual void on_ready(bool readable, bool writable) noexcept = 0;
    // The process will not wait any longer (nginx: worker_shutdown_timeout). Release the socket, answer every waiter,
    // do not reconnect.
    virtual void on_shutdown() noexcept = 0;

protected:
    ~SocketHandler() = default;
};

// Lifetime rules.
// - The Reactor outlives everything which uses it: drivers, scopes, signals, armed timers, posted Ready.
// - attach() registers a duplicate (F_DUPFD_CLOEXEC) of the descriptor: the library keeps and closes its own, whenever
// it likes.
//   Who attached holds the Socket* and gives it back by release() exactly once, at the latest in its destructor; the
//   Reactor then closes the duplicate and never calls the handler again, not even for an event of the same turn. After
//   release() the pointer is dead. A library which may have changed its descriptor needs release() and attach(), even
//   for the same number.
// - Timers and Ready belong to who embeds them; their destructors unregister. All may be destroyed inside any callback.
// - on_ready, on_shutdown, on_timer and run are called by the loop only, never from inside a call of these functions.
class Reactor {
public:
    Reactor() noexcept = default;
    Reactor(const Reactor&) = delete;
    Reactor& operator=(const Reactor&) = delete;
    virtual ~Reactor() = default;

    // Nothing is wanted at first. nullptr when no registration is to be had (descriptors, worker_connections); it is
    // logged.
    virtual Socket* attach(int fd, SocketHandler& handler) noexcept = 0;
    // What to report from now on. Idempotent and cheap when nothing changes.
    virtual void want(Socket& socket, bool read, bool write) noexcept = 0;
    virtual void release(Socket& socket) noexcept = 0;

    // Fire once in `ms` milliseconds (below 0 counts as 0), from the loop, never from inside arm(). Arming again moves
    // it.
    void arm(Timer& timer, std::int64_t ms) noexcept;
    // Nothing happens if it is not armed.
    void disarm(Timer& timer) noexcept;

    // Run it from the loop, soon, after the callback at hand has returned. Posting twice is posting once.
    void post(Ready& ready) noexcept;

    // Monotonic clock, milliseconds since some start.
    virtual std::int64_t now_ms() const noexcept = 0;
    // Wall clock, milliseconds since 1970 UTC.
    virtual std::int64_t unix_ms() const noexcept = 0;

    // The process is ending or being replaced: begin nothing that it would have to wait for.
    virtual bool leaving() const noexcept = 0;

    // One line, without the newline, never with a secret.
    virtual void log(LogLevel level, std::string_view text) noexcept = 0;

protected:
    // For implementations
    // --------------------------------------------------------------------------------------------------- Set the timer
    // of `timer` to `ms`, or move it there; then call fire() when it is due.
    virtual void start_timer(Timer& timer, std::int64_t ms) noexcept = 0;
    // Called for armed timers only.
    virtual void stop_timer(Timer& timer) noexcept = 0;
    // The list of posted Ready has just become non-empty: arrange that run_posted() is called soon.
    virtual void wake() noexcept = 0;

    // A due timer, already removed from the implementation's structures: marks it disarmed, calls on_timer().
    static void fire(Timer& timer) noexcept;
    // Runs what was posted so far; what is posted meanwhile calls wake() again.
    void run_posted() noexcept { ready_.run_batch(); }
    bool any_posted() const noexcept { return !ready_.empty(); }

private:
    ReadyList ready_;
};

} // namespace billing
