// LISTEN, the advisory lock, the keepalive. Called by the loop and by the worker.
#include "drivers/pg_listener.hpp"

#include <libpq-fe.h>

#include <algorithm>
#include <memory>
#include <string_view>
#include <utility>

#include "drivers/outage.hpp"
#include "drivers/pg_link.hpp"

namespace billing {

class PgListener::Session final : public PgLink {
public:
    Session(Reactor& reactor, PgListenerConfig config)
        : PgLink(reactor, config.conninfo), config_(std::move(config)), outage_(reactor, "PostgreSQL for LISTEN"),
          timer_(*this) {}
    ~Session() override { shut(); }

    void shut() noexcept {
        reset();
        stop();
    }

    bool listening = false;
    bool holds_lock = false;
    std::uint64_t notifications = 0;
    std::uint64_t connects = 0;

private:
    enum class Asked { nothing, listen, lock, keepalive };

    class KeepaliveTimer final : public Timer {
    public:
        explicit KeepaliveTimer(Session& session) noexcept : Timer(true), session_(session) {}

    private:
        void on_timer() noexcept override { session_.tick(); }
        Session& session_;
    };

    void on_link_up() noexcept override {
        reactor().arm(timer_, config_.keepalive_ms);
        std::string sql;
        for (const PgChannel& channel : config_.channels) {
            sql += "listen \"";
            for (const char c : channel.name)
                sql += c == '"' ? "\"\"" : std::string(1, c);
            sql += "\";";
        }
        ask(Asked::listen, sql.empty() ? "select 1" : sql);
    }

    void on_link_down(std::string_view why, bool, std::int64_t retry_ms) noexcept override {
        reset();
        if (retry_ms >= 0)
            outage_.down(why, retry_ms);
    }

    void on_link_input() noexcept override {
        bool refused = false;
        while (conn() && asked_ != Asked::nothing && PQisBusy(conn()) == 0) {
            const std::unique_ptr<PGresult, decltype(&PQclear)> result(PQgetResult(conn()), &PQclear);
            if (!result) {
                answered();
                continue;
            }
            const ExecStatusType status = PQresultStatus(result.get());
            if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
                refused = true;
                break;
            }
            if (asked_ == Asked::lock && PQntuples(result.get()) == 1)
                lock_granted_ = std::string_view(PQgetvalue(result.get(), 0, 0)) == "t";
        }
        if (refused) {
            fail(trouble());
            return;
        }
        // Parses what has come, also while nothing is asked.
        while (conn()) {
            const std::unique_ptr<PGnotify, decltype(&PQfreemem)> notify(PQnotifies(conn()), &PQfreemem);
            if (!notify)
                break;
            ++notifications;
            for (const PgChannel& channel : config_.channels)
                if (channel.name == notify->relname)
                    channel.signal->set();
        }
    }

    void ask(Asked what, const std::string& sql) noexcept {
        asked_ = what;
        if (PQsendQuery(conn(), sql.c_str()) == 1)
            flush();
        else
            fail(trouble());
    }

    void ask_lock() noexcept {
        lock_granted_ = false;
        ask(Asked::lock, "select pg_try_advisory_lock(" + std::to_string(*config_.lock_key) + ")");
    }

    void answered() noexcept {
        const Asked what = std::exchange(asked_, Asked::nothing);
        if (what == Asked::listen) {
            listening = true;
            ++connects;
            outage_.up();
            signal_all(); // what was notified before LISTEN was in force is gone: everybody looks by himself
            if (config_.lock_key)
                ask_lock();
        } else if (what == Asked::lock && lock_granted_) {
            holds_lock = true;
            signal_all();
        }
    }

    void tick() noexcept {
        reactor().arm(timer_, config_.keepalive_ms);
        poll_input();
        if (!up())
            return;
        if (asked_ != Asked::nothing)
            fail("it does not answer");
        else if (config_.lock_key && !holds_lock)
            ask_lock();
        else
            ask(Asked::keepalive, "select 1");
    }

    void signal_all() noexcept {
        for (const PgChannel& channel : config_.channels)
            channel.signal->set();
    }

    void reset() noexcept {
        reactor().disarm(timer_);
        asked_ = Asked::nothing;
        listening = holds_lock = lock_granted_ = false;
    }

    PgListenerConfig config_;
    Outage outage_;
    KeepaliveTimer timer_;
    Asked asked_ = Asked::nothing;
    bool lock_granted_ = false;
};

PgListener::PgListener(Reactor& reactor, PgListenerConfig config)
    : session_(std::make_unique<Session>(reactor, std::move(config))) {}

PgListener::~PgListener() = default;

void PgListener::start() noexcept { session_->start(); }
void PgListener::stop() noexcept { session_->shut(); }
bool PgListener::listening() const noexcept { return session_->listening; }
bool PgListener::holds_lock() const noexcept { return session_->holds_lock; }
std::uint64_t PgListener::notifications() const noexcept { return session_->notifications; }
std::uint64_t PgListener::connects() const noexcept { return session_->connects; }

} // namespace billing
