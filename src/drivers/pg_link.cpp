// Connecting, reading and writing with libpq without ever waiting. Called by the loop and by the derived drivers.
#include "drivers/pg_link.hpp"

#include <libpq-fe.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

namespace billing {

namespace {

// libpq would write notices to stderr. Called from inside libpq: only logs.
void log_notice(void* reactor, const PGresult* result) noexcept {
    try {
        const char* text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
        const std::string line = std::string("billing: PostgreSQL says: ") + (text ? one_line(text) : "?");
        static_cast<Reactor*>(reactor)->log(LogLevel::info, line);
    } catch (...) {
        // No memory for a notice: it is lost.
    }
}

} // namespace

std::string one_line(std::string_view text) {
    std::string out;
    for (const char c : text) {
        const bool space = c == '\n' || c == '\t' || c == '\r' || c == ' ';
        if (!space)
            out += c;
        else if (!out.empty() && out.back() != ' ')
            out += ' ';
    }
    while (!out.empty() && out.back() == ' ')
        out.pop_back();
    return out;
}

PgLink::PgLink(Reactor& reactor, std::string conninfo)
    : reactor_(reactor), conninfo_(std::move(conninfo)),
      backoff_(static_cast<std::uint64_t>(::getpid()) * 7919U + reinterpret_cast<std::uintptr_t>(this)), timer_(*this) {
    read_conninfo();
}

PgLink::~PgLink() { close(); }

void PgLink::read_conninfo() {
    const std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> options(
        PQconninfoParse(conninfo_.c_str(), nullptr), &PQconninfoFree);
    if (!options)
        return; // PQconnectStart will say so
    for (const PQconninfoOption* one = options.get(); one->keyword; ++one) {
        if (!one->val)
            continue;
        if (std::strcmp(one->keyword, "password") == 0)
            password_ = one->val;
        // Not heeded by libpq when connecting asynchronously.
        if (std::strcmp(one->keyword, "connect_timeout") == 0) {
            const long seconds = std::strtol(one->val, nullptr, 10);
            if (seconds >= 1 && seconds <= 300)
                connect_ms_ = seconds * 1000;
        }
    }
}

void PgLink::start() noexcept {
    if (state_ == State::stopped)
        connect();
}

void PgLink::stop() noexcept {
    state_ = State::stopped;
    reactor_.disarm(timer_);
    close();
}

void PgLink::connect() noexcept {
    state_ = State::connecting;
    // Later ones override earlier ones. The fallback name gives way to one in the connection string.
    const char* keys[] = {"dbname", "gssencmode", "client_encoding", "fallback_application_name", nullptr};
    const char* values[] = {conninfo_.c_str(), "disable", "UTF8", "ngx_billing", nullptr};
    conn_ = PQconnectStartParams(keys, values, 1);
    if (!conn_) {
        ended("out of memory", true);
        return;
    }
    PQsetNoticeReceiver(conn_, &log_notice, &reactor_);
    if (PQstatus(conn_) == CONNECTION_BAD) {
        ended(trouble(), true);
        return;
    }
    reactor_.arm(timer_, connect_ms_);
    if (!watch(false, true))
        ended("the loop has no room for a connection", true);
}

// The library may have closed its descriptor and opened another, even with the same number: register anew.
bool PgLink::watch(bool read, bool write) noexcept {
    if (socket_) {
        reactor_.release(*socket_);
        socket_ = nullptr;
    }
    socket_ = reactor_.attach(PQsocket(conn_), *this);
    if (!socket_)
        return false;
    reactor_.want(*socket_, read, write);
    return true;
}

void PgLink::step() noexcept {
    bool watching = true;
    switch (PQconnectPoll(conn_)) {
    case PGRES_POLLING_READING:
        watching = watch(true, false);
        break;
    case PGRES_POLLING_WRITING:
        watching = watch(false, true);
        break;
    case PGRES_POLLING_OK:
        established();
        return;
    default:
        ended(trouble(), true);
        return;
    }
    if (!watching)
        ended("the loop has no room for a connection", true);
}

void PgLink::established() noexcept {
    if (PQsetnonblocking(conn_, 1) != 0) {
        ended(trouble(), true);
        return;
    }
    if (!watch(true, false)) {
        ended("the loop has no room for a connection", true);
        return;
    }
    reactor_.disarm(timer_);
    first_ = false;
    state_ = State::up;
    up_since_ms_ = reactor_.now_ms();
    on_link_up();
}

void PgLink::on_ready(bool readable, bool) noexcept {
    if (state_ == State::connecting) {
        step();
        return;
    }
    if (state_ != State::up)
        return;
    // Also for writing: what the server says must be read while we write, or both wait for each other.
    if (readable)
        read_input();
    if (state_ == State::up)
        flush();
}

void PgLink::read_input() noexcept {
    if (state_ != State::up)
        return;
    if (PQconsumeInput(conn_) != 0) {
        on_link_input();
        return;
    }
    // What had come before the end is still in the buffer: answers, or why the server closes.
    const std::string why = trouble();
    on_link_input();
    if (state_ == State::up)
        fail(why);
}

void PgLink::flush() noexcept {
    if (state_ != State::up)
        return;
    const int left = PQflush(conn_);
    if (left < 0) {
        fail(trouble());
        return;
    }
    reactor_.want(*socket_, true, left > 0);
}

void PgLink::on_link_timer() noexcept {
    if (state_ == State::waiting)
        connect();
    else if (state_ == State::connecting)
        ended("no answer in " + std::to_string(connect_ms_) + " ms", true);
}

void PgLink::on_shutdown() noexcept { ended("the process is shutting down", false); }

void PgLink::fail(std::string_view why) noexcept {
    if (state_ == State::up)
        ended(why, true);
}

void PgLink::close() noexcept {
    if (socket_) {
        reactor_.release(*socket_);
        socket_ = nullptr;
    }
    if (conn_)
        PQfinish(std::exchange(conn_, nullptr));
}

void PgLink::ended(std::string_view why, bool retry) noexcept {
    const std::string reason(why); // it may point into what is closed now
    const bool was_up = state_ == State::up;
    close();
    first_ = false;
    // One which is closed soon after it was made (refused LISTEN, a proxy without a server) is no success.
    if (was_up && reactor_.now_ms() - up_since_ms_ >= Backoff::k_limit_ms)
        backoff_.reset();
    reactor_.disarm(timer_);
    std::int64_t pause = -1;
    if (retry) {
        state_ = State::waiting;
        pause = backoff_.next_ms();
        reactor_.arm(timer_, pause);
    } else {
        state_ = State::stopped;
    }
    on_link_down(reason, was_up, pause);
}

bool PgLink::uses_tls() const noexcept { return conn_ && PQsslInUse(conn_) != 0; }

std::string PgLink::trouble() const { return without_password(one_line(PQerrorMessage(conn_))); }

std::string PgLink::without_password(std::string text) const {
    if (password_.empty())
        return text;
    for (std::size_t at = text.find(password_); at != std::string::npos; at = text.find(password_, at + 3))
        text.replace(at, password_.size(), "***");
    return text;
}

} // namespace billing
