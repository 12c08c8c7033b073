// PostgreSQL for a worker: a small pool of libpq connections in pipeline mode, each query awaitable. Owner: the worker
// (or the command). It outlives the scopes whose coroutines query it; a waiting coroutine may be destroyed at any time.
//
//   PgResult result = co_await postgres.query("select plan from accounts where id = $1", PgParams(id));
#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "async/scope.hpp"
#include "drivers/outage.hpp"
#include "drivers/pg_value.hpp"

namespace billing {

// A slow statement holds up those behind it on its connection: give background jobs a pool of their own.
struct PgConfig {
    std::string conninfo;          // from resolve_postgres()
    std::size_t connections = 2;   // 1..64
    std::size_t max_pending = 512; // queries without an answer, of all connections; abandoned ones count until answered
    std::int64_t timeout_ms = 2000; // for queries which do not bring their own
    bool tells_outages = true;      // false for a second pool of the same server, whose first one tells the log
};

struct PgCounters {
    std::uint64_t queries = 0;
    std::uint64_t refused = 0;
    std::uint64_t unavailable = 0;
    std::uint64_t lost = 0;
    std::uint64_t timeouts = 0; // part of lost or unavailable
    std::uint64_t late = 0;     // answered after their waiter had gone
    std::uint64_t connects = 0;
    std::uint64_t failures = 0; // tries to connect which failed, and connections lost
};

class PgPipe;
class Postgres;

// One query under way; made by Postgres::query(), lives in the waiting frame.
class PgQuery final : public Waiter {
public:
    PgQuery(Postgres& pool, std::string_view sql, PgParams params, std::int64_t timeout_ms)
        : pool_(pool), sql_(sql), params_(std::move(params)), timeout_ms_(timeout_ms) {}
    ~PgQuery() override;

    bool await_ready() const noexcept { return false; }
    template <class Promise>
    bool await_suspend(std::coroutine_handle<Promise> frame) noexcept {
        suspend(frame);
        return submit();
    }
    PgResult await_resume() noexcept { return std::move(result_); }

private:
    friend class PgPipe;
    friend class Postgres;
    enum class Place { nowhere, waiting, sent };

    bool submit() noexcept; // false: answered already
    void answer(PgResult result) noexcept;

    Postgres& pool_;
    std::string sql_;
    PgParams params_;
    std::int64_t timeout_ms_;
    std::int64_t deadline_ms_ = 0;
    Place place_ = Place::nowhere;
    bool suspended_ = false;
    PgPipe* pipe_ = nullptr; // where it was sent, as number seq_
    std::uint64_t seq_ = 0;
    PgQuery* prev_ = nullptr; // in the pool's queue while the first connect is under way
    PgQuery* next_ = nullptr;
    PgResult result_;
};

class Postgres {
public:
    Postgres(Reactor& reactor, PgConfig config);
    Postgres(const Postgres&) = delete;
    Postgres& operator=(const Postgres&) = delete;
    ~Postgres(); // stop()

    // Begins to connect; the loop does the rest, for ever. Once.
    void start() noexcept;
    // Closes everything; who waits gets `lost` or `unavailable`, as does who comes later. Does not block. Idempotent.
    void stop() noexcept;

    // One statement, its own transaction, as an unnamed statement (works behind PgBouncer in transaction mode).
    // co_await it at once. `timeout_ms` 0: the pool's; a query not answered by then is `lost` (or `unavailable` if it
    // was never sent). Not answered at once with `unavailable` while no connection exists, except during the very first
    // connect, which it waits for. No order is promised between queries of different coroutines.
    [[nodiscard]] PgQuery query(std::string_view sql, PgParams params = {}, std::int64_t timeout_ms = 0) {
        return PgQuery(*this, sql, std::move(params), timeout_ms);
    }

    // A connection is ready.
    bool available() const noexcept;
    const PgCounters& counters() const noexcept { return counters_; }
    // Queries without an answer, including abandoned ones.
    std::size_t pending() const noexcept { return pending_; }

private:
    friend class PgPipe;
    friend class PgQuery;

    // The deadlines of queries which wait for the first connect.
    class QueueTimer final : public Timer {
    public:
        explicit QueueTimer(Postgres& pool) noexcept : pool_(pool) {}

    private:
        void on_timer() noexcept override { pool_.expire_queue(); }
        Postgres& pool_;
    };

    bool submit(PgQuery& query) noexcept;
    bool connecting_first() const noexcept;
    PgPipe* best_pipe() const noexcept;
    void enqueue(PgQuery& query) noexcept;
    void unqueue(PgQuery& query) noexcept;
    void expire_queue() noexcept;
    void flush_queue() noexcept;
    void pipe_up() noexcept;
    void pipe_down(std::string_view why, bool was_up, std::int64_t retry_ms) noexcept;

    Reactor& reactor_;
    PgConfig config_;
    PgCounters counters_;
    std::vector<std::unique_ptr<PgPipe>> pipes_;
    QueueTimer queue_timer_;
    PgQuery* queue_first_ = nullptr;
    PgQuery* queue_last_ = nullptr;
    std::size_t pending_ = 0;
    bool stopped_ = false;
    Outage outage_;
};

} // namespace billing
