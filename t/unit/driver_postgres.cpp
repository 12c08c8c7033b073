// Promise guarded: each query gets its own answer or an honest "not sent" or "not known", whoever is cancelled, killed,
// stopped or flooded; nothing blocks the loop, and what goes in comes out unchanged.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "drivers/postgres.hpp"
#include "loop.hpp"
#include "servers.hpp"

namespace billing {
namespace {

using test::LoopTest;
using test::PostgresServer;

struct DriverPostgres : LoopTest {
    DriverPostgres() : server(PostgresServer::shared()) {}
    void close() override {
        scope->cancel();
        pg.reset();
        server.resume();
    }

    void open(std::size_t connections = 1, std::size_t max_pending = 512, std::int64_t timeout_ms = 5000) {
        PgConfig config;
        config.conninfo = server.conninfo();
        config.connections = connections;
        config.max_pending = max_pending;
        config.timeout_ms = timeout_ms;
        pg = std::make_unique<Postgres>(reactor, config);
        pg->start();
    }
    void open_and_wait(std::size_t connections = 1, std::size_t max_pending = 512, std::int64_t timeout_ms = 5000) {
        open(connections, max_pending, timeout_ms);
        ASSERT_TRUE(until([&] { return pg->counters().connects == connections; }));
    }

    static Task<PgResult> asked(Postgres& pool, std::string sql, PgParams params, std::int64_t timeout_ms) {
        PgResult result = co_await pool.query(sql, std::move(params), timeout_ms);
        co_return result;
    }
    PgResult ask(std::string sql, PgParams params = {}) {
        return await(asked(*pg, std::move(sql), std::move(params), 0));
    }

    // Into answers[name].
    Task<> keep(std::string name, std::string sql, PgParams params, std::int64_t timeout_ms) {
        PgResult result = co_await pg->query(sql, std::move(params), timeout_ms);
        answers[name] = std::move(result);
    }
    void send(Scope& in, const std::string& name, std::string sql, PgParams params = {}, std::int64_t timeout_ms = 0) {
        in.spawn(keep(name, std::move(sql), std::move(params), timeout_ms));
    }
    bool have(std::size_t count) {
        return until([&] { return answers.size() == count; });
    }

    PostgresServer& server;
    std::unique_ptr<Postgres> pg;
    std::map<std::string, PgResult> answers;
};

TEST_F(DriverPostgres, QueryIssuedDuringTheFirstConnectIsAnswered) {
    open(2);
    EXPECT_FALSE(pg->available());
    const PgResult result = ask("select 1, null, 'x y', true, current_setting('application_name')");
    ASSERT_TRUE(result.ok()) << result.message();
    EXPECT_EQ(result.rows(), 1);
    EXPECT_EQ(result.columns(), 5);
    EXPECT_EQ(result.integer(0, 0), 1);
    EXPECT_TRUE(result.is_null(0, 1));
    EXPECT_EQ(result.text(0, 2), "x y");
    EXPECT_TRUE(result.boolean(0, 3));
    EXPECT_EQ(result.text(0, 4), "ngx_billing");
    EXPECT_TRUE(result.is_null(1, 0)) << "out of range is like NULL";
    EXPECT_EQ(result.maybe_integer(0, 2), std::nullopt);
    EXPECT_TRUE(pg->available());
    EXPECT_EQ(reactor.foreground_timers(), 0U) << "an idle pool must not hold a graceful shutdown";
}

TEST_F(DriverPostgres, ParametersComeBackUnchanged) {
    open();
    const std::vector<std::string> texts = {"",          "NULL", "a,b",      "{x}", "quote\"s", "back\\slash",
                                            "new\nline", " sp ", "\xC3\xA4'"};
    const std::vector<std::int64_t> bigs = {INT64_MIN, -1, 0, INT64_MAX};
    const std::vector<std::int32_t> ints = {INT32_MIN, 7};
    const std::vector<std::int16_t> smalls = {INT16_MIN, 7};
    const std::vector<std::int64_t> none;
    const std::vector<std::optional<std::string>> maybes = {"NULL", std::nullopt, "x"};
    PgParams params(texts, bigs, ints, smalls, none, maybes, "it's", -5, true, nullptr, std::optional<int>());
    const PgResult result =
        ask("select $1::text[] = array['', 'NULL', 'a,b', '{x}', 'quote\"s', E'back\\\\slash', E'new\\nline', ' sp ', "
            "'ä''']"
            "::text[], $2::bigint[] = array[-9223372036854775808, -1, 0, 9223372036854775807], $3::int[] = "
            "array[-2147483648, 7], $4::smallint[]::int[] = array[-32768, 7], cardinality($5::bigint[]) = 0, "
            "$6::text[] is not distinct from array['NULL', null, 'x'], $7::text = 'it''s', $8::int = -5, $9::bool, "
            "$10::text is null, $11::int is null",
            std::move(params));
    ASSERT_TRUE(result.ok()) << result.message();
    for (int column = 0; column < 11; ++column)
        EXPECT_TRUE(result.boolean(0, column)) << "parameter " << column + 1;
}

TEST_F(DriverPostgres, BytesGoAsTheyAre) {
    open();
    PgParams params("text");
    params.add_bytes(std::string_view("\0a\\\xff\0", 5)).add(nullptr).add_bytes("");
    const PgResult result =
        ask("select $1::text = 'text', $2 = '\\x00615cff00'::bytea, $3::text is null, $4 = ''::bytea", params);
    ASSERT_TRUE(result.ok()) << result.message();
    for (int i = 0; i < result.columns(); ++i)
        EXPECT_TRUE(result.boolean(0, i)) << i;
}

TEST_F(DriverPostgres, ZeroByteIsRefusedNotCutOff) {
    open();
    const PgResult result = ask("select $1::text", PgParams(std::string_view("a\0b", 3)));
    EXPECT_EQ(result.outcome(), PgOutcome::refused);
    EXPECT_EQ(result.sqlstate(), "22021");
}

TEST_F(DriverPostgres, SqlErrorsCarryTheirStateAndTouchNoNeighbour) {
    open_and_wait();
    send(*scope, "before", "select 'before'");
    send(*scope, "bad", "select 1 / $1::int", PgParams(0));
    send(*scope, "after", "select 'after'");
    send(*scope, "syntax", "selekt");
    ASSERT_TRUE(have(4));
    EXPECT_EQ(answers["before"].text(0, 0), "before");
    EXPECT_EQ(answers["after"].text(0, 0), "after");
    EXPECT_EQ(answers["bad"].outcome(), PgOutcome::refused);
    EXPECT_EQ(answers["bad"].sqlstate(), "22012");
    EXPECT_EQ(answers["bad"].message(), "division by zero");
    EXPECT_EQ(answers["syntax"].sqlstate(), "42601");
    EXPECT_EQ(pg->counters().refused, 2U);
    EXPECT_EQ(pg->counters().failures, 0U);
}

TEST_F(DriverPostgres, FailureAtTheCommitIsNoSuccess) {
    open();
    ASSERT_TRUE(ask("drop table if exists deferred").ok());
    ASSERT_TRUE(ask("create table deferred (id int unique deferrable initially deferred)").ok());
    const PgResult one = ask("insert into deferred values (1)");
    EXPECT_TRUE(one.ok()) << one.message();
    EXPECT_EQ(one.affected(), 1);
    const PgResult twice = ask("insert into deferred values (1)");
    EXPECT_EQ(twice.outcome(), PgOutcome::refused);
    EXPECT_EQ(twice.sqlstate(), "23505");
    EXPECT_EQ(ask("select count(*) from deferred").integer(0, 0), 1);
}

TEST_F(DriverPostgres, AnswersFindTheirAskersThoughEveryThirdIsCancelled) {
    open_and_wait(2);
    std::vector<std::unique_ptr<Scope>> requests;
    for (int i = 0; i < 150; ++i) {
        requests.push_back(std::make_unique<Scope>(reactor));
        send(*requests.back(), std::to_string(i), "select $1::int", PgParams(i));
        if (i % 50 == 0)
            settle(1);
        if (i % 3 == 0)
            requests[static_cast<std::size_t>(i) / 2]->cancel();
    }
    ASSERT_TRUE(until([&] { return pg->pending() == 0; }));
    settle();
    for (const auto& [name, result] : answers) {
        ASSERT_TRUE(result.ok());
        EXPECT_EQ(result.text(0, 0), name);
    }
    EXPECT_GT(answers.size(), 75U);
    EXPECT_LT(answers.size(), 150U);
    EXPECT_GT(pg->counters().late, 0U);
}

TEST_F(DriverPostgres, WriteOfACancelledRequestIsStillCarriedOut) {
    open_and_wait();
    ASSERT_TRUE(ask("drop table if exists written").ok());
    ASSERT_TRUE(ask("create table written (id int)").ok());
    send(*scope, "x", "insert into written values (1)");
    scope->cancel();
    EXPECT_EQ(ask("select count(*) from written").integer(0, 0), 1);
    EXPECT_EQ(pg->counters().late, 1U);
    EXPECT_TRUE(answers.empty());
}

TEST_F(DriverPostgres, LargeQueriesAndAnswersFlowBothWaysWithoutDeadlock) {
    open_and_wait();
    const std::string large(1 << 20, 'x');
    for (int i = 0; i < 16; ++i)
        send(*scope, std::to_string(i), "select $1::text || $2", PgParams(large, std::to_string(i)));
    ASSERT_TRUE(have(16));
    for (const auto& [name, result] : answers) {
        ASSERT_TRUE(result.ok()) << result.message();
        EXPECT_TRUE(result.text(0, 0) == large + name);
    }
}

TEST_F(DriverPostgres, CancellingWhileTheFirstConnectIsUnderWayLeavesNothing) {
    open();
    send(*scope, "x", "select 1");
    EXPECT_EQ(pg->pending(), 1U);
    EXPECT_EQ(reactor.foreground_timers(), 1U);
    scope->cancel();
    EXPECT_EQ(pg->pending(), 0U);
    EXPECT_EQ(reactor.foreground_timers(), 0U);
}

TEST_F(DriverPostgres, QueueIsBoundedAndOverflowIsAnsweredAtOnce) {
    open_and_wait(1, 4);
    Scope gone(reactor);
    for (int i = 0; i < 4; ++i)
        send(gone, "gone", "select pg_sleep(0.02)");
    gone.cancel(); // abandoned, but PostgreSQL still works on them
    EXPECT_EQ(pg->pending(), 4U);
    send(*scope, "over", "select 1");
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_EQ(answers["over"].outcome(), PgOutcome::unavailable);
    EXPECT_TRUE(until([&] { return pg->pending() == 0; }));
    EXPECT_TRUE(ask("select 1").ok());
}

TEST_F(DriverPostgres, QueueIsBoundedDuringTheFirstConnectToo) {
    open(1, 2);
    for (const char* name : {"a", "b", "over"})
        send(*scope, name, "select 1");
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_EQ(answers["over"].outcome(), PgOutcome::unavailable);
    ASSERT_TRUE(have(3));
    EXPECT_TRUE(answers["a"].ok());
    EXPECT_TRUE(answers["b"].ok());
}

TEST_F(DriverPostgres, KilledServerMeansLostThenUnavailableAndItComesBack) {
    open_and_wait(2);
    send(*scope, "flying", "select pg_sleep(30)");
    settle();
    server.kill9();
    ASSERT_TRUE(have(1));
    EXPECT_EQ(answers["flying"].outcome(), PgOutcome::lost);
    ASSERT_TRUE(until([&] { return !pg->available(); }));
    EXPECT_EQ(ask("select 1").outcome(), PgOutcome::unavailable);
    ASSERT_TRUE(until([&] { return pg->counters().failures >= 5; }));
    EXPECT_LE(errors, 2) << "once for each reason, not for each try";
    EXPECT_GE(logged("billing: cannot reach PostgreSQL: "), 1);
    server.start();
    ASSERT_TRUE(until([&] { return pg->available(); }));
    EXPECT_TRUE(ask("select 1").ok());
    EXPECT_EQ(logged("PostgreSQL is reachable again"), 1);
}

TEST_F(DriverPostgres, UnreachableAtStartIsUnavailableAndComesUpLater) {
    server.kill9();
    open(2);
    EXPECT_EQ(ask("select 1").outcome(), PgOutcome::unavailable);
    EXPECT_EQ(errors, 1);
    EXPECT_EQ(logged("next try in"), 1);
    server.start();
    ASSERT_TRUE(until([&] { return pg->available(); }));
    EXPECT_TRUE(ask("select 1").ok());
}

TEST_F(DriverPostgres, StoppedServerTimesOutAndLateAnswersReachNobody) {
    open_and_wait(1);
    server.pause();
    const std::int64_t begin = reactor.now_ms();
    send(*scope, "first", "select 'first'", PgParams(), 300);
    send(*scope, "second", "select 'second'");
    ASSERT_TRUE(have(1));
    EXPECT_EQ(answers["first"].outcome(), PgOutcome::lost);
    EXPECT_GE(reactor.now_ms() - begin, 300);
    server.resume();
    ASSERT_TRUE(have(2));
    EXPECT_EQ(answers["second"].text(0, 0), "second");
    EXPECT_EQ(ask("select 'third'").text(0, 0), "third");
    EXPECT_EQ(pg->counters().failures, 0U) << "the connection was kept";
    EXPECT_EQ(pg->counters().late, 1U);
    EXPECT_EQ(pg->counters().timeouts, 1U);
}

TEST_F(DriverPostgres, HeadStuckForTwiceItsTimeDropsTheConnection) {
    open_and_wait(1, 512, 100);
    server.pause();
    send(*scope, "head", "select 1");
    send(*scope, "behind", "select 2", PgParams(), 10000);
    ASSERT_TRUE(have(2));
    EXPECT_EQ(answers["head"].outcome(), PgOutcome::lost);
    EXPECT_EQ(answers["behind"].outcome(), PgOutcome::lost);
    EXPECT_EQ(pg->pending(), 0U);
    EXPECT_EQ(logged("PostgreSQL does not answer"), 1);
    EXPECT_EQ(ask("select 1").outcome(), PgOutcome::unavailable);
    server.resume();
    ASSERT_TRUE(until([&] { return pg->available(); }));
    EXPECT_EQ(ask("select 3").integer(0, 0), 3);
}

TEST_F(DriverPostgres, FirstConnectWhichHangsIsWaitedForNoLongerThanTheTimeout) {
    server.pause(); // the kernel accepts, nobody answers
    open(1, 512, 100);
    EXPECT_EQ(ask("select 1").outcome(), PgOutcome::unavailable);
    EXPECT_EQ(pg->counters().timeouts, 1U);
    server.resume();
    ASSERT_TRUE(until([&] { return pg->available(); }));
}

TEST_F(DriverPostgres, ServerClosingTheConnectionIsLostNotRefused) {
    open_and_wait();
    const PgResult result = ask("select pg_terminate_backend(pg_backend_pid())");
    EXPECT_EQ(result.outcome(), PgOutcome::lost);
    EXPECT_EQ(logged("terminating connection due to administrator command"), 1);
    ASSERT_TRUE(until([&] { return pg->available(); }));
    EXPECT_TRUE(ask("select 1").ok());
}

TEST_F(DriverPostgres, OneConnectionOfTwoIsEnough) {
    open_and_wait(2);
    EXPECT_EQ(ask("select pg_terminate_backend(pg_backend_pid())").outcome(), PgOutcome::lost);
    EXPECT_TRUE(ask("select 1").ok());
    EXPECT_EQ(errors, 0);
    EXPECT_EQ(logged("lost one connection"), 1);
}

TEST_F(DriverPostgres, WrongPasswordOrDatabaseIsReportedWithoutThePassword) {
    PgConfig config;
    config.conninfo = server.conninfo() + "_password_x password=password_x";
    pg = std::make_unique<Postgres>(reactor, config);
    pg->start();
    ASSERT_TRUE(until([&] { return errors > 0; }));
    EXPECT_EQ(logged("password_x"), 0) << log[0];
    EXPECT_EQ(logged("does not exist"), 1);
}

TEST_F(DriverPostgres, StopAnswersWhoWaitsAndWhoComesLater) {
    open_and_wait();
    send(*scope, "flying", "select pg_sleep(30)");
    pg->stop();
    ASSERT_TRUE(have(1));
    EXPECT_EQ(answers["flying"].outcome(), PgOutcome::lost);
    EXPECT_EQ(ask("select 1").outcome(), PgOutcome::unavailable);
    EXPECT_EQ(reactor.sockets(), 0U);
    EXPECT_EQ(reactor.timers(), 0U);
}

TEST_F(DriverPostgres, ShutdownOfTheProcessAnswersAndDoesNotReconnect) {
    open_and_wait(2);
    send(*scope, "flying", "select pg_sleep(30)");
    EXPECT_EQ(reactor.foreground_timers(), 1U) << "a query under way holds a graceful shutdown";
    reactor.shutdown();
    ASSERT_TRUE(have(1));
    EXPECT_EQ(answers["flying"].outcome(), PgOutcome::lost);
    EXPECT_EQ(reactor.sockets(), 0U);
    EXPECT_EQ(reactor.timers(), 0U);
}

TEST_F(DriverPostgres, NoticesGoToTheLog) {
    open();
    EXPECT_TRUE(ask("do $$ begin raise notice 'hear ye'; end $$").ok());
    EXPECT_EQ(logged("PostgreSQL says: hear ye"), 1);
}

} // namespace
} // namespace billing
