// Redis for a worker: one hiredis connection with pipelining, each command awaitable. Owner: the worker (or the
// command). It outlives the scopes whose coroutines use it; a waiting coroutine may be destroyed at any time. Blocking
// commands (XREAD BLOCK) hold up everything behind them: give them an instance of their own, with `background` set. No
// SUBSCRIBE, no MONITOR.
//
//   RedisReply reply = co_await redis.command(RedisArgs("HGET", key, "body"));
#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "async/scope.hpp"
#include "async/task.hpp"
#include "drivers/address.hpp"
#include "drivers/backoff.hpp"
#include "drivers/fifo.hpp"
#include "drivers/outage.hpp"
#include "drivers/redis_value.hpp"

struct redisAsyncContext; // hiredis

namespace billing {

struct RedisConfig {
    RedisAddress address;
    std::size_t max_pending = 512;  // commands without an answer; abandoned ones count until answered
    std::int64_t timeout_ms = 1000; // for commands which do not bring their own
    std::int64_t connect_ms = 2000; // for connect and handshake
    bool background = false;        // its waiting does not keep a graceful shutdown waiting (stream reader)
};

struct RedisCounters {
    std::uint64_t commands = 0;
    std::uint64_t unavailable = 0;
    std::uint64_t lost = 0;
    std::uint64_t timeouts = 0; // part of lost or unavailable
    std::uint64_t late = 0;     // answered after their waiter had gone
    std::uint64_t connects = 0;
    std::uint64_t failures = 0; // tries to connect which failed, and connections lost
};

class Redis;

// One command under way; made by Redis::command(), lives in the waiting frame.
class RedisCommand final : public Waiter {
public:
    RedisCommand(Redis& redis, RedisArgs args, std::int64_t timeout_ms)
        : redis_(redis), args_(std::move(args)), timeout_ms_(timeout_ms) {}
    ~RedisCommand() override;

    bool await_ready() const noexcept { return false; }
    template <class Promise>
    bool await_suspend(std::coroutine_handle<Promise> frame) noexcept {
        suspend(frame);
        return submit();
    }
    RedisReply await_resume() noexcept { return std::move(reply_); }

private:
    friend class Redis;
    enum class Place { nowhere, waiting, sent };

    bool submit() noexcept; // false: answered already
    void answer(RedisReply reply) noexcept;

    Redis& redis_;
    RedisArgs args_;
    std::int64_t timeout_ms_;
    std::int64_t deadline_ms_ = 0;
    Place place_ = Place::nowhere;
    bool suspended_ = false;
    std::uint64_t seq_ = 0;        // number in the connection's fifo
    RedisCommand* prev_ = nullptr; // in the queue while the first connect is under way
    RedisCommand* next_ = nullptr;
    RedisReply reply_;
};

class Redis final : private SocketHandler, private Timer {
public:
    Redis(Reactor& reactor, RedisConfig config);
    ~Redis() override; // stop()

    // Begins to connect; the loop does the rest, for ever. Once.
    void start() noexcept;
    // Closes the connection; who waits gets `lost` or `unavailable`, as does who comes later. Does not block.
    // Idempotent.
    void stop() noexcept;

    // co_await it at once. `timeout_ms` 0: the instance's; a command not answered by then is `lost` (or `unavailable`
    // if it was never sent). Answered at once with `unavailable` while there is no connection, except during the very
    // first connect, which it waits for. Commands are carried out in the order of their co_await.
    [[nodiscard]] RedisCommand command(RedisArgs args, std::int64_t timeout_ms = 0) {
        return RedisCommand(*this, std::move(args), timeout_ms);
    }
    // EVALSHA, and EVAL if Redis does not know the script (then nothing has been executed). `script` outlives the call.
    // Name the vectors: no braces among the arguments of an awaited call.
    Task<RedisReply> eval(const RedisScript& script, std::vector<std::string> keys, std::vector<std::string> args,
                          std::int64_t timeout_ms = 0);

    // Connected, authenticated, the database selected.
    bool available() const noexcept { return state_ == State::up; }
    const RedisCounters& counters() const noexcept { return counters_; }
    // Commands without an answer, including abandoned ones.
    std::size_t pending() const noexcept { return pending_; }

private:
    friend class RedisCommand;
    friend struct RedisHooks;                              // the C callbacks
    enum class State { stopped, connecting, up, waiting }; // waiting: for the next try
    struct Entry {
        RedisCommand* command = nullptr; // nullptr: abandoned
        std::int64_t sent_ms = 0;
        std::int64_t deadline_ms = 0;
        std::int64_t timeout_ms = 0;
    };
    // Deadlines of commands, queued or sent.
    class CommandTimer final : public Timer {
    public:
        CommandTimer(Redis& redis, bool in_background) noexcept : Timer(in_background), redis_(redis) {}

    private:
        void on_timer() noexcept override { redis_.expire(); }
        Redis& redis_;
    };

    // What a turn of the loop has asked is written at its end, at once, without watching for writability.
    class Flush final : public Ready {
    public:
        explicit Flush(Redis& redis) noexcept : redis_(redis) {}

    private:
        void run() noexcept override { redis_.write(); }
        Redis& redis_;
    };

    // SocketHandler, Timer (connect limit, next try)
    void on_ready(bool readable, bool writable) noexcept override;
    void on_shutdown() noexcept override { stop(); }
    void on_timer() noexcept override;

    // Called from inside hiredis: they note and answer, they do not call hiredis.
    void handshake_reply(const redisReply* reply) noexcept;
    static void on_reply(redisAsyncContext* context, void* reply, void* self) noexcept;
    void command_reply(const redisReply* reply) noexcept;
    void want_write(bool on) noexcept;
    void watch(bool read, bool write) noexcept;
    void freed() noexcept;

    void connect() noexcept;
    bool prepare() noexcept;
    bool handshake();
    void write() noexcept;
    bool unasked() noexcept;
    void after_io() noexcept;
    void close(std::string why) noexcept;
    void down(std::string_view why) noexcept;

    bool submit(RedisCommand& command) noexcept;
    bool send(RedisCommand& command) noexcept;
    void enqueue(RedisCommand& command) noexcept;
    void unqueue(RedisCommand& command) noexcept;
    void expire() noexcept;
    void rearm() noexcept;
    void fail_queue(std::string_view why) noexcept;
    void flush_queue() noexcept;

    Reactor& reactor_;
    RedisConfig config_;
    RedisCounters counters_;
    Backoff backoff_;
    Outage outage_;
    CommandTimer command_timer_;
    Flush flush_;
    State state_ = State::stopped;
    redisAsyncContext* context_ = nullptr;
    Socket* socket_ = nullptr;
    bool want_read_ = false;
    bool want_write_ = false;
    bool writing_ = false;
    bool first_ = true;        // no try to connect has ended yet
    unsigned handshaking_ = 0; // replies of the handshake still to come
    std::int64_t up_since_ms_ = 0;
    std::int64_t progress_ms_ = 0; // when the last reply came
    std::int64_t armed_for_ = 0;   // due time of command_timer_
    std::string trouble_;          // why the connection has to be, or was, closed
    Fifo<Entry> fifo_;
    RedisCommand* queue_first_ = nullptr; // while the first connect is under way
    RedisCommand* queue_last_ = nullptr;
    std::size_t pending_ = 0;
};

} // namespace billing
