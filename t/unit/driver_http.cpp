// Promise guarded: each request gets its own whole answer or an honest "not sent", "not known" or "too large"; nothing
// that was begun is cut because its waiter left; what may not be sent is not; no secret is logged (C10).
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "http_loop.hpp"

namespace billing {
namespace {

using test::HttpAsk;
using test::HttpPeer;
using test::HttpServer;
using test::serve;
using test::SilentListener;

struct DriverHttp : test::HttpTest {};

TEST_F(DriverHttp, RequestsInARowShareAConnectionAndAnIdleOneHoldsNoShutdown) {
    open();
    for (int i = 0; i < 5; ++i) {
        const HttpResponse response = get(server.url() + "/" + std::to_string(i));
        ASSERT_TRUE(response.ok()) << response.reason;
        EXPECT_EQ(response.status, 200);
        EXPECT_EQ(response.body, "GET /" + std::to_string(i) + " ");
    }
    EXPECT_EQ(server.accepted(), 1);
    settle();
    EXPECT_EQ(reactor.foreground_timers(), 0U);
    EXPECT_EQ(client->counters().requests, 5U);
}

TEST_F(DriverHttp, RequestArrivesAsItWasWritten) {
    open();
    HttpRequest what = post(server.url() + "/a/../b?c=%7Bd%7D", std::string("x\0y", 3));
    what.headers.add("Authorization", "Bearer k");
    what.headers.add("X-Empty", "");
    ASSERT_TRUE(await(asked(*client, what)).ok());
    const HttpAsk ask = server.asked().at(0);
    EXPECT_EQ(ask.target, "/a/../b?c=%7Bd%7D");
    EXPECT_EQ(ask.body, std::string("x\0y", 3));
    EXPECT_EQ(ask.header("Authorization"), "Bearer k");
    EXPECT_TRUE(ask.has("X-Empty"));
    EXPECT_FALSE(ask.has("Expect"));
    EXPECT_FALSE(ask.has("Accept-Encoding")) << "nothing that has to be unpacked";
    for (const char* method : {"PUT", "PATCH", "DELETE"}) {
        what = post(server.url() + "/m", method == std::string("DELETE") ? "" : "body");
        what.method = method;
        EXPECT_TRUE(await(asked(*client, what)).body.starts_with(std::string(method) + " /m"));
    }
    what = post(server.url() + "/empty", "");
    EXPECT_EQ(await(asked(*client, what)).body, "POST /empty ");
    EXPECT_EQ(server.asked().back().header("Content-Length"), "0");
}

TEST_F(DriverHttp, ChunksAreJoinedAndHeadersAreThoseOfTheFinalAnswer) {
    open();
    const HttpResponse response = get(server.url() + "/chunked");
    ASSERT_TRUE(response.ok()) << response.reason;
    EXPECT_EQ(response.status, 201);
    EXPECT_EQ(response.body, "abcde");
    EXPECT_EQ(response.headers.find("X-SOME"), "a");
    EXPECT_FALSE(response.headers.has("Early"));
    EXPECT_FALSE(response.headers.has("Trailer"));
    EXPECT_EQ(response.headers.find("none"), "");
}

// A46: no answer leads us elsewhere.
TEST_F(DriverHttp, RedirectIsAnAnswerAndTheEnvironmentsProxyIsNotUsed) {
    ::setenv("http_proxy", "http://127.0.0.1:1", 1);
    open();
    const HttpResponse response = get(server.url() + "/redirect");
    ::unsetenv("http_proxy");
    EXPECT_EQ(response.status, 302) << response.reason;
    EXPECT_EQ(response.headers.find("location"), "/echo");
    EXPECT_EQ(server.requests(), 1);
}

TEST_F(DriverHttp, RequestsWhichMayNotBeSentAreAnsweredAtOnce) {
    HttpConfig safe;
    HttpClient strict(reactor, safe);
    EXPECT_EQ(await(asked(strict, request(server.url() + "/x"))).outcome, HttpOutcome::unreachable)
        << "http by default";
    open();
    for (const std::string& url :
         {std::string("ftp://127.0.0.1/"), std::string("file:///etc/passwd"), std::string("http://"), std::string(),
          server.url() + "/a\r\nX: y", server.url() + std::string("/\0a", 3)})
        EXPECT_EQ(get(url).outcome, HttpOutcome::unreachable) << url;
    for (const auto& [name, value] :
         {std::pair{"X", "a\r\nY: b"}, std::pair{"X", "a\n"}, std::pair{"X: a\r\nY", "b"}, std::pair{"", "b"}}) {
        HttpRequest what = request(server.url() + "/header");
        what.headers.add(name, value);
        EXPECT_EQ(await(asked(*client, what)).outcome, HttpOutcome::unreachable);
    }
    HttpRequest what = request(server.url());
    what.method = "CONNECT";
    EXPECT_EQ(await(asked(*client, what)).outcome, HttpOutcome::unreachable);
    EXPECT_EQ(server.accepted(), 0);
    EXPECT_EQ(client->pending(), 0U);
}

TEST_F(DriverHttp, RefusedConnectionIsUnreachableAndToldOnceThenItsReturn) {
    open();
    int port = 0;
    {
        const SilentListener gone;
        port = gone.port();
    }
    const std::string url = "http://user:topsecret@127.0.0.1:" + std::to_string(port) + "/?key=topsecret";
    for (int i = 0; i < 3; ++i) {
        const HttpResponse response = get(url);
        EXPECT_EQ(response.outcome, HttpOutcome::unreachable);
        EXPECT_EQ(response.status, 0);
    }
    EXPECT_EQ(errors, 1);
    EXPECT_EQ(logged("billing: cannot reach the test server: Couldn't connect to server: Connection refused"), 1);
    HttpServer back(serve, port);
    EXPECT_TRUE(get(url).ok());
    EXPECT_TRUE(get(url).ok());
    EXPECT_EQ(logged("billing: the test server answers again"), 1);
    EXPECT_EQ(logged("topsecret"), 0);
    EXPECT_EQ(client->counters().unreachable, 3U);
}

TEST_F(DriverHttp, AnswerCutInTheMiddleIsLost) {
    open();
    for (const char* path : {"/cut-length", "/cut-chunk", "/cut-head", "/cut-early"}) {
        const HttpResponse response = get(server.url() + path);
        EXPECT_EQ(response.outcome, HttpOutcome::lost) << path;
        EXPECT_FALSE(response.reason.empty());
    }
    EXPECT_EQ(client->counters().lost, 4U);
    EXPECT_TRUE(get(server.url() + "/after").ok());
}

TEST_F(DriverHttp, TooLargeAnswersAreCutAndTheNextIsFine) {
    HttpConfig with;
    with.max_body = 4000;
    open(with);
    for (const auto& [path, status] : {std::pair{"/big-length", 200}, std::pair{"/big-chunks", 503}}) {
        const HttpResponse response = get(server.url() + path);
        EXPECT_EQ(response.outcome, HttpOutcome::too_large) << path;
        EXPECT_EQ(response.status, status);
        EXPECT_EQ(response.headers.find("x"), "y");
        EXPECT_TRUE(response.body.empty());
        EXPECT_EQ(get(server.url() + "/").status, 200);
    }
    HttpRequest what = post(server.url() + "/", std::string(3000, 'x'));
    what.max_body = 100;
    EXPECT_EQ(await(asked(*client, what)).outcome, HttpOutcome::too_large);
    what.max_body = 3007; // "POST / " and the body
    EXPECT_TRUE(await(asked(*client, what)).ok());
    EXPECT_EQ(errors, 0);
}

TEST_F(DriverHttp, WaiterWhoLeavesDoesNotCutWhatIsBeingSent) {
    HttpServer slow([&slow](HttpPeer& peer, const HttpAsk& ask) {
        slow.gate();
        return serve(peer, ask);
    });
    open();
    Scope leaving(reactor);
    send(leaving, "gone", post(slow.url() + "/pay", std::string(200000, 'x')));
    settle(1);
    leaving.cancel(); // before the connection is there
    EXPECT_EQ(frames_live(), 0U);
    EXPECT_EQ(client->pending(), 1U);
    EXPECT_GE(reactor.foreground_timers(), 1U) << "a graceful shutdown waits for it";
    ASSERT_TRUE(until([&] { return slow.at_gate() == 1; }));
    EXPECT_EQ(slow.asked().at(0).body.size(), 200000U);
    slow.open_gate();
    ASSERT_TRUE(idle());
    EXPECT_EQ(client->counters().late, 1U);
    EXPECT_EQ(reactor.foreground_timers(), 0U);
    EXPECT_TRUE(get(slow.url() + "/next").ok());
    EXPECT_EQ(slow.accepted(), 1) << "the connection is as good as before";
    EXPECT_TRUE(responses.empty());
}

TEST_F(DriverHttp, HundredInParallelEachGetTheirOwnOverAtMostEightConnections) {
    HttpServer slow([&slow](HttpPeer& peer, const HttpAsk& ask) {
        slow.gate();
        return serve(peer, ask);
    });
    open();
    for (int i = 0; i < 100; ++i)
        send(*scope, "/" + std::to_string(i), request(slow.url() + "/" + std::to_string(i)));
    EXPECT_EQ(client->active(), 8U);
    EXPECT_EQ(client->pending(), 100U);
    ASSERT_TRUE(until([&] { return slow.at_gate() == 8; }));
    slow.open_gate();
    ASSERT_TRUE(have(100));
    for (const auto& [path, response] : responses)
        EXPECT_EQ(response.body, "GET " + path + " ");
    EXPECT_EQ(slow.most_at_once(), 8);
    EXPECT_EQ(slow.accepted(), 8);
}

TEST_F(DriverHttp, ConnectionClosedWhileItIdledIsReplacedUnnoticed) {
    open();
    for (int i = 0; i < 3; ++i)
        EXPECT_EQ(get(server.url() + "/bye").body, "bye");
    EXPECT_EQ(server.requests(), 3);
    EXPECT_EQ(errors, 0);
}

TEST_F(DriverHttp, HangUpInPlaceOfAnAnswerIsTriedOnceMoreOnANewConnectionOnly) {
    HttpServer rude([&rude](HttpPeer& peer, const HttpAsk& ask) {
        if (rude.requests() == 1)
            return peer.answer(200, "first");
        return rude.accepted() == 1 ? false : serve(peer, ask);
    });
    open();
    EXPECT_TRUE(get(rude.url()).ok());
    EXPECT_EQ(await(asked(*client, post(rude.url() + "/p", "1"))).body, "POST /p 1");
    EXPECT_EQ(rude.requests(), 3) << "why what changes something needs an idempotency key";
    HttpServer worse([](HttpPeer&, const HttpAsk&) { return false; });
    EXPECT_EQ(get(worse.url()).outcome, HttpOutcome::lost);
    EXPECT_EQ(worse.requests(), 1);
}

} // namespace
} // namespace billing
