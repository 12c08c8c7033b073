// Promise guarded: each command gets its own reply or an honest "not sent" or "not known", whoever is cancelled,
// killed, stopped or flooded; nothing blocks the loop, and bytes come back unchanged.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "drivers/redis.hpp"
#include "loop.hpp"
#include "servers.hpp"

namespace billing {
namespace {

using test::LoopTest;
using test::RedisServer;

struct DriverRedis : LoopTest {
    void close() override {
        scope->cancel();
        redis.reset();
    }

    RedisConfig config(const RedisServer& at) {
        RedisConfig out;
        out.address.unix_path = at.socket();
        out.timeout_ms = 5000;
        return out;
    }
    void open(const RedisConfig& with) {
        redis = std::make_unique<Redis>(reactor, with);
        redis->start();
    }
    void open_and_wait(const RedisConfig& with) {
        open(with);
        ASSERT_TRUE(until([&] { return redis->available(); }));
    }

    static Task<RedisReply> asked(Redis& to, RedisArgs args) {
        RedisReply reply = co_await to.command(std::move(args));
        co_return reply;
    }
    template <class... Words>
    RedisReply ask(const Words&... words) {
        return await(asked(*redis, RedisArgs(words...)));
    }

    // Into replies[name].
    Task<> keep(std::string name, RedisArgs args, std::int64_t timeout_ms) {
        RedisReply reply = co_await redis->command(std::move(args), timeout_ms);
        replies[name] = std::move(reply);
    }
    void send(Scope& in, const std::string& name, RedisArgs args, std::int64_t timeout_ms = 0) {
        in.spawn(keep(name, std::move(args), timeout_ms));
    }
    bool have(std::size_t count) {
        return until([&] { return replies.size() == count; });
    }

    RedisServer server;
    std::unique_ptr<Redis> redis;
    std::map<std::string, RedisReply> replies;
};

TEST_F(DriverRedis, CommandDuringTheFirstConnectIsAnsweredAndEveryKindIsTold) {
    open(config(server));
    EXPECT_FALSE(redis->available());
    const RedisReply set = ask("SET", "key", std::string_view("a\0\r\nb", 5));
    EXPECT_EQ(set.kind(), RedisKind::status);
    EXPECT_EQ(set.text(), "OK");
    EXPECT_EQ(ask("GET", "key").text(), std::string("a\0\r\nb", 5));
    EXPECT_TRUE(ask("GET", "none").is_nil());
    EXPECT_TRUE(ask("GET", "none").ok());
    EXPECT_EQ(ask("INCRBY", "count", 41).integer(), 41);
    const RedisReply error = ask("INCR", "key");
    EXPECT_TRUE(error.is_error());
    EXPECT_FALSE(error.ok());
    EXPECT_EQ(error.text().substr(0, 3), "ERR");
    const RedisReply tree = ask("EVAL", "return {1, {'x', false}, 'y'}", 0);
    ASSERT_TRUE(tree.is_array());
    ASSERT_EQ(tree.size(), 3U);
    EXPECT_EQ(tree[0].integer(), 1);
    EXPECT_EQ(tree[1][0].text(), "x");
    EXPECT_TRUE(tree[1][1].is_nil());
    EXPECT_EQ(tree[2].text(), "y");
    EXPECT_TRUE(tree[9].is_nil());
    EXPECT_EQ(reactor.foreground_timers(), 0U) << "an idle connection must not hold a graceful shutdown";
}

TEST_F(DriverRedis, RepliesFindTheirAskersThoughEveryThirdIsCancelled) {
    open_and_wait(config(server));
    std::vector<std::unique_ptr<Scope>> requests;
    for (int i = 0; i < 300; ++i) {
        requests.push_back(std::make_unique<Scope>(reactor));
        send(*requests.back(), std::to_string(i), RedisArgs("ECHO", i));
        if (i % 100 == 0)
            settle(1);
        if (i % 3 == 0)
            requests[static_cast<std::size_t>(i) / 2]->cancel();
    }
    ASSERT_TRUE(until([&] { return redis->pending() == 0; }));
    settle();
    for (const auto& [name, reply] : replies)
        EXPECT_EQ(reply.text(), name);
    EXPECT_GT(replies.size(), 150U);
    EXPECT_LT(replies.size(), 300U);
    EXPECT_GT(redis->counters().late, 0U);
}

TEST_F(DriverRedis, LargeValuesFlowBothWays) {
    open_and_wait(config(server));
    const std::string large(1 << 20, 'x');
    for (int i = 0; i < 8; ++i)
        send(*scope, std::to_string(i), RedisArgs("ECHO", large + std::to_string(i)));
    ASSERT_TRUE(have(8));
    for (const auto& [name, reply] : replies)
        EXPECT_TRUE(reply.text() == large + name);
}

TEST_F(DriverRedis, CancellingWhileTheFirstConnectIsUnderWayLeavesNothing) {
    open(config(server));
    send(*scope, "x", RedisArgs("PING"));
    EXPECT_EQ(redis->pending(), 1U);
    EXPECT_EQ(reactor.foreground_timers(), 1U);
    scope->cancel();
    EXPECT_EQ(redis->pending(), 0U);
    EXPECT_EQ(reactor.foreground_timers(), 0U);
}

TEST_F(DriverRedis, ScriptIsLoadedWhenRedisDoesNotKnowIt) {
    open(config(server));
    const RedisScript script("return {KEYS[1], ARGV[1], ARGV[2]}");
    EXPECT_EQ(script.sha1().size(), 40U);
    auto call = [&]() -> Task<RedisReply> {
        std::vector<std::string> keys = {"k"};
        std::vector<std::string> args = {"one", ""};
        RedisReply reply = co_await redis->eval(script, std::move(keys), std::move(args));
        co_return reply;
    };
    for (const std::uint64_t commands : {2U, 3U}) { // EVALSHA and EVAL; then EVALSHA alone
        const RedisReply reply = await(call());
        ASSERT_EQ(reply.size(), 3U) << reply.text();
        EXPECT_EQ(reply[0].text(), "k");
        EXPECT_EQ(reply[1].text(), "one");
        EXPECT_EQ(reply[2].text(), "");
        EXPECT_EQ(redis->counters().commands, commands);
    }
    EXPECT_EQ(ask("SCRIPT", "FLUSH").text(), "OK");
    EXPECT_EQ(await(call()).size(), 3U);
}

TEST_F(DriverRedis, QueueIsBoundedAndOverflowIsAnsweredAtOnce) {
    RedisConfig with = config(server);
    with.max_pending = 4;
    open_and_wait(with);
    server.pause();
    Scope gone(reactor);
    for (int i = 0; i < 4; ++i)
        send(gone, "gone", RedisArgs("PING"));
    gone.cancel();
    send(*scope, "over", RedisArgs("PING"));
    ASSERT_EQ(replies.size(), 1U);
    EXPECT_EQ(replies["over"].kind(), RedisKind::unavailable);
    server.resume();
    EXPECT_TRUE(until([&] { return redis->pending() == 0; }));
    EXPECT_EQ(ask("PING").text(), "PONG");
    EXPECT_EQ(redis->counters().late, 4U);
}

TEST_F(DriverRedis, KilledServerMeansLostThenUnavailableAndItComesBack) {
    open_and_wait(config(server));
    send(*scope, "flying", RedisArgs("BLPOP", "nothing", 30));
    settle();
    server.kill9();
    ASSERT_TRUE(have(1));
    EXPECT_EQ(replies["flying"].kind(), RedisKind::lost);
    EXPECT_EQ(ask("PING").kind(), RedisKind::unavailable);
    ASSERT_TRUE(until([&] { return redis->counters().failures >= 3; }));
    EXPECT_LE(errors, 2) << "once for each reason, not for each try";
    server.start();
    ASSERT_TRUE(until([&] { return redis->available(); }));
    EXPECT_EQ(ask("PING").text(), "PONG");
    EXPECT_EQ(logged("is reachable again"), 1);
}

TEST_F(DriverRedis, UnreachableAtStartIsUnavailableAndComesUpLater) {
    server.kill9();
    open(config(server));
    EXPECT_EQ(ask("PING").kind(), RedisKind::unavailable);
    EXPECT_EQ(errors, 1);
    EXPECT_EQ(logged("billing: cannot reach Redis at unix:" + server.socket()), 1);
    server.start();
    ASSERT_TRUE(until([&] { return redis->available(); }));
}

TEST_F(DriverRedis, RefusedTcpConnectIsReportedAndTriedAgain) {
    RedisConfig with;
    with.address.ip = "127.0.0.1";
    with.address.port = 1;
    open(with);
    EXPECT_EQ(ask("PING").kind(), RedisKind::unavailable);
    EXPECT_EQ(logged("cannot reach Redis at 127.0.0.1:1: Connection refused; next try in"), 1);
    ASSERT_TRUE(until([&] { return redis->counters().failures >= 2; }));
    EXPECT_EQ(errors, 1);
}

TEST_F(DriverRedis, StoppedServerTimesOutAndLateRepliesReachNobody) {
    open_and_wait(config(server));
    server.pause();
    const std::int64_t begin = reactor.now_ms();
    send(*scope, "first", RedisArgs("ECHO", "first"), 300);
    send(*scope, "second", RedisArgs("ECHO", "second"));
    ASSERT_TRUE(have(1));
    EXPECT_EQ(replies["first"].kind(), RedisKind::lost);
    EXPECT_GE(reactor.now_ms() - begin, 300);
    server.resume();
    ASSERT_TRUE(have(2));
    EXPECT_EQ(replies["second"].text(), "second");
    EXPECT_EQ(ask("ECHO", "third").text(), "third");
    EXPECT_EQ(redis->counters().failures, 0U) << "the connection was kept";
    EXPECT_EQ(redis->counters().late, 1U);
}

TEST_F(DriverRedis, HeadStuckForTwiceItsTimeDropsTheConnection) {
    open_and_wait(config(server));
    server.pause();
    send(*scope, "head", RedisArgs("PING"), 50);
    send(*scope, "behind", RedisArgs("PING"), 10000);
    ASSERT_TRUE(have(2));
    EXPECT_EQ(replies["behind"].kind(), RedisKind::lost);
    EXPECT_EQ(redis->pending(), 0U);
    EXPECT_EQ(logged("it does not answer"), 1);
    server.resume();
    ASSERT_TRUE(until([&] { return redis->available(); }));
    EXPECT_EQ(ask("ECHO", "after").text(), "after");
}

TEST_F(DriverRedis, ConnectWhichHangsIsGivenUp) {
    server.pause(); // the kernel accepts, nobody answers
    RedisConfig with = config(server);
    with.timeout_ms = 50;
    with.connect_ms = 120;
    open(with);
    EXPECT_EQ(ask("PING").kind(), RedisKind::unavailable);
    EXPECT_EQ(redis->counters().timeouts, 1U);
    ASSERT_TRUE(until([&] { return logged("no answer in 120 ms") == 1; }));
    server.resume();
    ASSERT_TRUE(until([&] { return redis->available(); }));
}

TEST_F(DriverRedis, PasswordAndDatabaseAreGivenBeforeTheFirstCommand) {
    RedisServer locked({"--requirepass", "topsecret"});
    RedisConfig with = config(locked);
    with.address.password = "topsecret";
    with.address.database = 3;
    open(with);
    EXPECT_NE(ask("CLIENT", "INFO").text().find(" db=3 "), std::string::npos);
}

TEST_F(DriverRedis, WrongPasswordIsUnavailableAndNotLogged) {
    RedisServer locked({"--requirepass", "topsecret"});
    RedisConfig with = config(locked);
    with.address.user = "bob";
    with.address.password = "notsecret";
    open(with);
    EXPECT_EQ(ask("PING").kind(), RedisKind::unavailable);
    EXPECT_EQ(logged("WRONGPASS"), 1);
    EXPECT_EQ(logged("notsecret"), 0);
    with.address.password.clear();
    open(with);
    EXPECT_EQ(ask("PING").kind(), RedisKind::unavailable);
    EXPECT_EQ(logged("NOAUTH"), 1);
}

TEST_F(DriverRedis, BlockingReadOfABackgroundInstanceHoldsNoShutdownAndMayBeCancelled) {
    RedisConfig with = config(server);
    with.background = true;
    open_and_wait(with);
    ASSERT_TRUE(ask("XADD", "stream", "1-1", "a", "b").ok());
    send(*scope, "read", RedisArgs("XREAD", "BLOCK", 50, "STREAMS", "stream", "$"), 1000);
    EXPECT_EQ(reactor.foreground_timers(), 0U);
    ASSERT_TRUE(have(1));
    EXPECT_TRUE(replies["read"].is_nil());
    send(*scope, "cancelled", RedisArgs("XREAD", "BLOCK", 50, "STREAMS", "stream", "$"), 1000);
    settle();
    scope->cancel();
    EXPECT_EQ(ask("PING").text(), "PONG");
    EXPECT_EQ(replies.count("cancelled"), 0U);
}

TEST_F(DriverRedis, CommandsWhichChangeTheProtocolAreRefusedHere) {
    open_and_wait(config(server));
    for (const char* name : {"subscribe", "PSUBSCRIBE", "Monitor"})
        EXPECT_TRUE(ask(name, "x").is_error());
    EXPECT_TRUE(await(asked(*redis, RedisArgs())).is_error());
    EXPECT_EQ(ask("PING").text(), "PONG");
}

TEST_F(DriverRedis, StopAndShutdownAnswerWhoWaitsAndDoNotReconnect) {
    for (const bool hard : {false, true}) {
        open_and_wait(config(server));
        replies.clear();
        send(*scope, "flying", RedisArgs("BLPOP", "nothing", 30));
        EXPECT_EQ(reactor.foreground_timers(), 1U);
        hard ? reactor.shutdown() : redis->stop();
        ASSERT_TRUE(have(1));
        EXPECT_EQ(replies["flying"].kind(), RedisKind::lost);
        EXPECT_EQ(ask("PING").kind(), RedisKind::unavailable);
        EXPECT_EQ(reactor.sockets(), 0U);
        EXPECT_EQ(reactor.timers(), 0U);
    }
}

// A server which says what nobody asked: hiredis would end the process by assert().
TEST_F(DriverRedis, UnaskedReplyClosesTheConnectionNotTheProcess) {
    test::TempDir dir;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = dir.path() + "/fake.sock";
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    const int listening = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(::bind(listening, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    ASSERT_EQ(::listen(listening, 4), 0);
    RedisConfig with;
    with.address.unix_path = path;
    open(with);
    const int peer = ::accept(listening, nullptr, nullptr);
    ASSERT_EQ(::write(peer, "+PONG\r\n", 7), 7);
    ASSERT_TRUE(until([&] { return redis->available(); }));
    ASSERT_EQ(::write(peer, "+HELLO\r\n", 8), 8);
    ASSERT_TRUE(until([&] { return !redis->available(); }));
    EXPECT_EQ(logged("it sent something which was not asked"), 1);
    ::close(peer);
    ::close(listening);
}

} // namespace
} // namespace billing
