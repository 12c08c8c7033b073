// One libpq connection on a Reactor: connects without blocking, connects again with back-off, for ever; moves bytes.
// What is asked and answered is for who derives from it (PgPipe, PgListener). Owner: that driver.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "async/reactor.hpp"
#include "drivers/backoff.hpp"

struct pg_conn; // libpq

namespace billing {

class PgLink : private SocketHandler {
public:
    PgLink(Reactor& reactor, std::string conninfo);
    PgLink(const PgLink&) = delete;
    PgLink& operator=(const PgLink&) = delete;

    // Begins to connect. on_link_down() tells of each failure, from the loop or from inside start().
    void start() noexcept;
    // Closes, without on_link_down(), and does not connect again. Does not block.
    void stop() noexcept;

    bool up() const noexcept { return state_ == State::up; }
    // No try to connect has ended yet.
    bool first_try() const noexcept { return state_ == State::connecting && first_; }

protected:
    // stop() must have been called by the derived destructor: closing calls virtual functions.
    virtual ~PgLink();

    // Connected: conn() is non-blocking, reading is on. May send.
    virtual void on_link_up() noexcept = 0;
    // Bytes have been taken in: PQisBusy(), PQgetResult(), PQnotifies(). May call fail(), then conn() is nullptr.
    virtual void on_link_input() noexcept = 0;
    // The connection, or a try to make one, has come to an end; already closed. The next try is in `retry_ms`; -1:
    // none.
    virtual void on_link_down(std::string_view why, bool was_up, std::int64_t retry_ms) noexcept = 0;

    // nullptr unless up.
    pg_conn* conn() const noexcept { return state_ == State::up ? conn_ : nullptr; }
    // After each PQsend*: pushes bytes out as far as they go, the loop does the rest.
    void flush() noexcept;
    // Close now, tell on_link_down(), try again later. Not from inside a libpq callback.
    void fail(std::string_view why) noexcept;
    // Take in what may wait inside the TLS layer, where no loop can see it.
    void poll_input() noexcept { read_input(); }
    bool uses_tls() const noexcept;
    // What libpq says is wrong, one line, without the password.
    std::string trouble() const;
    std::string without_password(std::string text) const;

    Reactor& reactor() const noexcept { return reactor_; }

private:
    enum class State { stopped, connecting, up, waiting };

    // Limit of a try to connect, and the pause before the next.
    class LinkTimer final : public Timer {
    public:
        explicit LinkTimer(PgLink& link) noexcept : Timer(true), link_(link) {}

    private:
        void on_timer() noexcept override { link_.on_link_timer(); }
        PgLink& link_;
    };

    void on_ready(bool readable, bool writable) noexcept final;
    void on_shutdown() noexcept final;
    void on_link_timer() noexcept;
    void read_conninfo();
    void connect() noexcept;
    void step() noexcept;
    void established() noexcept;
    bool watch(bool read, bool write) noexcept;
    void read_input() noexcept;
    void close() noexcept;
    void ended(std::string_view why, bool retry) noexcept;

    Reactor& reactor_;
    std::string conninfo_;
    std::string password_;
    std::int64_t connect_ms_ = 5000;
    Backoff backoff_;
    LinkTimer timer_;
    State state_ = State::stopped;
    bool first_ = true;
    std::int64_t up_since_ms_ = 0;
    pg_conn* conn_ = nullptr;
    Socket* socket_ = nullptr;
};

// libpq's messages have several lines and tabs: one line.
std::string one_line(std::string_view text);

} // namespace billing
