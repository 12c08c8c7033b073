// Promise guarded: a background loop wakes for each notification and after each reconnect, so that it never sleeps over
// work; and at most one session holds the advisory lock.
#include <gtest/gtest.h>

#include <string>

#include "async/signal.hpp"
#include "drivers/pg_listener.hpp"
#include "drivers/postgres.hpp"
#include "loop.hpp"
#include "servers.hpp"

namespace billing {
namespace {

using test::LoopTest;
using test::PostgresServer;

struct DriverPgListener : LoopTest {
    DriverPgListener() : server(PostgresServer::shared()), jobs(reactor), outbox(reactor) {
        PgConfig config;
        config.conninfo = server.conninfo();
        config.connections = 1;
        pg = std::make_unique<Postgres>(reactor, config);
        pg->start();
        scope->spawn(count(jobs, jobs_woken));
        scope->spawn(count(outbox, outbox_woken));
    }
    void close() override {
        scope->cancel();
        listener.reset();
        pg.reset();
        server.resume();
    }

    PgListenerConfig config(std::optional<std::int64_t> lock_key = std::nullopt) {
        PgListenerConfig out;
        out.conninfo = server.conninfo();
        out.channels = {PgChannel{"billing_jobs", &jobs}, PgChannel{"billing_outbox", &outbox}};
        out.lock_key = lock_key;
        out.keepalive_ms = 100;
        return out;
    }
    void listen(std::optional<std::int64_t> lock_key = std::nullopt) {
        listener = std::make_unique<PgListener>(reactor, config(lock_key));
        listener->start();
        ASSERT_TRUE(until([&] { return listener->listening() && jobs_woken > 0 && outbox_woken > 0; }));
    }
    static Task<> count(Signal& signal, int& woken) {
        for (;;) {
            const bool signalled = co_await signal.wait(-1);
            if (signalled)
                ++woken;
        }
    }
    static Task<PgResult> asked(Postgres& pool, std::string sql) {
        PgResult result = co_await pool.query(sql);
        co_return result;
    }
    void exec(const std::string& sql) {
        const PgResult result = await(asked(*pg, sql));
        ASSERT_TRUE(result.ok()) << result.message();
    }
    // Ends the session which listens.
    void terminate() {
        exec("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and "
             "application_name = "
             "'ngx_billing'");
    }

    PostgresServer& server;
    Signal jobs, outbox;
    int jobs_woken = 0, outbox_woken = 0;
    std::unique_ptr<Postgres> pg;
    std::unique_ptr<PgListener> listener;
};

TEST_F(DriverPgListener, ConnectingWakesEverybodyOnceAndANotificationItsOwnLoop) {
    listen();
    EXPECT_EQ(jobs_woken, 1);
    exec("notify billing_jobs, 'x'");
    ASSERT_TRUE(until([&] { return jobs_woken == 2; }));
    EXPECT_EQ(outbox_woken, 1);
    exec("notify billing_outbox");
    ASSERT_TRUE(until([&] { return outbox_woken == 2; }));
    EXPECT_EQ(jobs_woken, 2);
    EXPECT_EQ(listener->notifications(), 2U);
    EXPECT_FALSE(listener->holds_lock());
}

TEST_F(DriverPgListener, NotificationsOfTheGapAreMadeUpForByAWakeUpAfterTheReconnect) {
    listen();
    terminate();
    ASSERT_TRUE(until([&] { return !listener->listening(); }));
    exec("notify billing_jobs"); // nobody listens
    ASSERT_TRUE(until([&] { return jobs_woken == 2 && outbox_woken == 2; }));
    EXPECT_EQ(listener->connects(), 2U);
    exec("notify billing_jobs");
    ASSERT_TRUE(until([&] { return jobs_woken == 3; }));
}

TEST_F(DriverPgListener, KilledServerIsReportedOnceAndFoundAgain) {
    listen();
    server.kill9();
    ASSERT_TRUE(until([&] { return !listener->listening(); }));
    ASSERT_TRUE(until([&] { return logged("cannot reach PostgreSQL for LISTEN") > 0; }));
    server.start();
    ASSERT_TRUE(until([&] { return listener->listening() && jobs_woken == 2; }));
    EXPECT_EQ(logged("PostgreSQL for LISTEN is reachable again"), 1);
}

TEST_F(DriverPgListener, SilentPeerIsFoundDeadByTheKeepalive) {
    listen();
    server.pause();
    ASSERT_TRUE(until([&] { return !listener->listening(); }));
    EXPECT_EQ(logged("for LISTEN: it does not answer"), 1);
    server.resume();
    ASSERT_TRUE(until([&] { return listener->listening() && jobs_woken == 2; }));
}

TEST_F(DriverPgListener, OneSessionHoldsTheLockAndAnotherTakesItOver) {
    listen(42);
    ASSERT_TRUE(until([&] { return listener->holds_lock(); }));
    PgListener second(reactor, config(42));
    second.start();
    ASSERT_TRUE(until([&] { return second.listening(); }));
    // It has tried at least twice: at its connect and at a keepalive.
    ASSERT_FALSE(until([&] { return second.holds_lock(); }, 150));
    EXPECT_TRUE(listener->holds_lock());
    listener->stop();
    EXPECT_FALSE(listener->holds_lock());
    const int before = jobs_woken;
    ASSERT_TRUE(until([&] { return second.holds_lock(); }));
    ASSERT_TRUE(until([&] { return jobs_woken > before; })) << "getting the lock is a reason to look for work";
}

TEST_F(DriverPgListener, LostConnectionIsALostLock) {
    listen(43);
    ASSERT_TRUE(until([&] { return listener->holds_lock(); }));
    terminate();
    ASSERT_TRUE(until([&] { return !listener->holds_lock(); }));
    ASSERT_TRUE(until([&] { return listener->holds_lock(); }));
    EXPECT_EQ(listener->connects(), 2U);
}

TEST_F(DriverPgListener, ItHoldsNoGracefulShutdownAndEndsAtAHardOne) {
    listen(44);
    ASSERT_TRUE(until([&] { return listener->holds_lock() && reactor.foreground_timers() == 0; }));
    EXPECT_GT(reactor.timers(), 0U);
    reactor.shutdown();
    EXPECT_FALSE(listener->listening());
    EXPECT_EQ(reactor.sockets(), 0U);
    EXPECT_EQ(reactor.timers(), 0U);
}

} // namespace
} // namespace billing
