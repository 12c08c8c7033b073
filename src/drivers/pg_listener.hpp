// Wakes background loops when PostgreSQL notifies, and after each (re)connect, when a loop must catch up by itself
// since notifications of the gap are gone. Own connection, not in pipeline mode, not through a pooler in transaction
// mode. Optionally it tries for a session advisory lock. Owner: the worker. All its timers are background ones.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/reactor.hpp"
#include "async/signal.hpp"

namespace billing {

struct PgChannel {
    std::string name;         // [a-z_][a-z0-9_]*
    Signal* signal = nullptr; // outlives the listener; several channels may share one
};

struct PgListenerConfig {
    std::string conninfo; // from resolve_postgres()
    std::vector<PgChannel> channels;
    // Key for pg_try_advisory_lock: tried after each connect and, while another session has it, again at each
    // keepalive.
    std::optional<std::int64_t> lock_key;
    std::int64_t keepalive_ms = 5000; // a query this often; no answer until the next one: the peer is dead
};

class PgListener {
public:
    PgListener(Reactor& reactor, PgListenerConfig config);
    PgListener(const PgListener&) = delete;
    PgListener& operator=(const PgListener&) = delete;
    ~PgListener(); // stop()

    void start() noexcept;
    // Closes the connection (the lock goes with it). Signals nobody. Idempotent.
    void stop() noexcept;

    // Connected, and LISTEN is in force.
    bool listening() const noexcept;
    // This session has the advisory lock. Getting it sets every signal. A hint: the session may be dead without our
    // knowing yet.
    bool holds_lock() const noexcept;

    std::uint64_t notifications() const noexcept;
    std::uint64_t connects() const noexcept;

private:
    class Session;
    std::unique_ptr<Session> session_;
};

} // namespace billing
