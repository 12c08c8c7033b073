// Promise guarded: a call of Stripe's API carries its key, version and idempotency key, is tried again only when that
// is allowed and always under the same key, ends in bounded time, and tells the log no secret (C10).
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "drivers/stripe_api.hpp"
#include "http_server.hpp"
#include "loop.hpp"

namespace billing {
namespace {

using test::HttpAsk;
using test::HttpPeer;
using test::HttpServer;
using test::LoopTest;
using test::SilentListener;

struct DriverStripeApi : LoopTest {
    void close() override {
        scope->cancel();
        api.reset();
    }

    // What the server says to each request in turn: the last one for ever.
    struct Answer {
        int status = 200;
        std::string body = R"({"id":"cus_1"})";
        std::string headers;
        bool cut = false;
        bool hang = false;
    };
    bool serve(HttpPeer& peer) {
        const auto turn = static_cast<std::size_t>(server.requests() - 1);
        const Answer& answer = answers[std::min(turn, answers.size() - 1)];
        if (answer.hang)
            return peer.hang(), false;
        if (answer.cut)
            return peer.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), false;
        return peer.answer(answer.status, answer.body, "Request-Id: req_7\r\n" + answer.headers);
    }

    void open(std::vector<Answer> script, StripeConfig with = {}) {
        answers = std::move(script);
        with.base_url = base.empty() ? server.url() : base;
        with.key = "sk_test_topsecret";
        with.pause_ms = with.pause_ms == 500 ? 10 : with.pause_ms;
        api = std::make_unique<StripeApi>(reactor, with);
    }
    static Form form() {
        Form out;
        out.add("email", "a@b.example").add("metadata", "userId", "acct 1");
        return out;
    }
    StripeReply post(const std::string& path = "/v1/customers", const std::string& key = "customer:acct:1") {
        return await(api->post(path, form(), key));
    }
    static Answer failing(int status, const std::string& headers = {}) {
        Answer answer;
        answer.status = status;
        answer.headers = headers;
        answer.body = R"({"error":{"type":"api_error","message":"topsecret words"}})";
        return answer;
    }
    static Answer cut() {
        Answer answer;
        answer.cut = true;
        return answer;
    }
    static Answer hang() {
        Answer answer;
        answer.hang = true;
        return answer;
    }

    std::vector<Answer> answers;
    std::string base;
    HttpServer server{[this](HttpPeer& peer, const HttpAsk&) { return serve(peer); }};
    std::unique_ptr<StripeApi> api;
};

TEST_F(DriverStripeApi, CallsCarryWhatStripeWants) {
    open({Answer()});
    const StripeReply reply = post();
    ASSERT_TRUE(reply.ok()) << reply.log_text();
    EXPECT_EQ(text_member(reply.json.get(), "id"), "cus_1");
    EXPECT_EQ(reply.request_id, "req_7");
    HttpAsk ask = server.asked().at(0);
    EXPECT_EQ(ask.method, "POST");
    EXPECT_EQ(ask.target, "/v1/customers");
    EXPECT_EQ(ask.header("Authorization"), "Bearer sk_test_topsecret");
    EXPECT_EQ(ask.header("Stripe-Version"), "2026-02-25.clover");
    EXPECT_EQ(ask.header("Idempotency-Key"), "customer:acct:1");
    EXPECT_EQ(ask.header("Content-Type"), "application/x-www-form-urlencoded");
    EXPECT_EQ(ask.body, "email=a%40b.example&metadata[userId]=acct%201");

    Form query;
    query.add("customer", "cus_1").add("status", "all");
    EXPECT_TRUE(await(api->get("/v1/subscriptions", std::move(query))).ok());
    EXPECT_TRUE(await(api->get("/v1/subscriptions/sub_1", Form())).ok());
    ask = server.asked().at(1);
    EXPECT_EQ(ask.method, "GET");
    EXPECT_EQ(ask.target, "/v1/subscriptions?customer=cus_1&status=all");
    EXPECT_FALSE(ask.has("Idempotency-Key"));
    EXPECT_EQ(server.asked().at(2).target, "/v1/subscriptions/sub_1");
    EXPECT_EQ(server.accepted(), 1);
}

TEST_F(DriverStripeApi, PassingTroubleIsTriedAgainUnderTheSameKey) {
    for (const Answer& first :
         {failing(500), failing(503), failing(409), cut(), failing(400, "Stripe-Should-Retry: true\r\n"),
          failing(429, "Stripe-Should-Retry: true\r\n")}) {
        const auto before = server.asked().size();
        answers.assign(before, Answer()); // turns which have passed
        std::vector<Answer> script = answers;
        script.insert(script.end(), {first, first, Answer()});
        open(script);
        const StripeReply reply = post();
        EXPECT_TRUE(reply.ok()) << first.status << reply.log_text();
        EXPECT_FALSE(reply.uncertain);
        const std::vector<HttpAsk> asked = server.asked();
        ASSERT_EQ(asked.size(), before + 3) << first.status;
        for (std::size_t i = before; i < asked.size(); ++i) {
            EXPECT_EQ(asked[i].header("Idempotency-Key"), "customer:acct:1");
            EXPECT_EQ(asked[i].body, asked[before].body);
        }
        EXPECT_EQ(api->counters().retries, 2U);
    }
}

TEST_F(DriverStripeApi, LastingTroubleEndsAfterTwoRetries) {
    open({failing(500)});
    StripeReply reply = post();
    EXPECT_EQ(reply.kind, ReplyKind::later);
    EXPECT_EQ(reply.status, 500);
    EXPECT_TRUE(reply.uncertain);
    EXPECT_EQ(server.requests(), 3);
    EXPECT_EQ(api->counters().later, 1U);
    open({cut()});
    reply = post();
    EXPECT_EQ(reply.kind, ReplyKind::later);
    EXPECT_EQ(reply.status, 0);
    EXPECT_TRUE(reply.uncertain);
    EXPECT_EQ(server.requests(), 6);
}

TEST_F(DriverStripeApi, RefusalsAndLimitsAreNotTriedAgain) {
    int requests = 0;
    for (const Answer& answer : {failing(400), failing(401), failing(402), failing(403), failing(404), failing(429),
                                 failing(500, "Stripe-Should-Retry: false\r\n"), failing(302)}) {
        open({answer});
        EXPECT_FALSE(post().ok());
        EXPECT_EQ(server.requests(), ++requests) << answer.status;
        EXPECT_EQ(api->counters().retries, 0U);
    }
}

TEST_F(DriverStripeApi, AllTriesTogetherAreBounded) {
    StripeConfig with;
    with.try_ms = 150;
    with.total_ms = 350;
    open({hang()}, with);
    std::int64_t begin = reactor.now_ms();
    const StripeReply reply = post();
    EXPECT_EQ(reply.kind, ReplyKind::later);
    EXPECT_TRUE(reply.uncertain);
    EXPECT_GE(server.requests(), 2);
    EXPECT_GE(reactor.now_ms() - begin, 290);
    EXPECT_LT(reactor.now_ms() - begin, 2000);

    with.try_ms = 5000;
    open({Answer(), Answer(), Answer(), failing(500), hang()}, with);
    while (server.requests() < 3)
        EXPECT_TRUE(post().ok());
    begin = reactor.now_ms();
    EXPECT_EQ(post().kind, ReplyKind::later);
    EXPECT_LT(reactor.now_ms() - begin, 2000) << "a retry gets what is left";

    with = StripeConfig();
    with.total_ms = 3000;
    open({failing(503, "Retry-After: 60\r\n")}, with);
    begin = reactor.now_ms();
    EXPECT_EQ(post().retry_after_ms, 60000);
    EXPECT_LT(reactor.now_ms() - begin, 1500) << "no use in waiting";
}

TEST_F(DriverStripeApi, PausesGrowAndAreSpread) {
    StripeConfig with;
    with.pause_ms = 100;
    open({failing(500), failing(500), Answer()}, with);
    const std::int64_t begin = reactor.now_ms();
    EXPECT_TRUE(post().ok());
    EXPECT_GE(reactor.now_ms() - begin, 50 + 100) << "half of 100 and of 200 at least";
    EXPECT_LT(reactor.now_ms() - begin, 2000);
    open({failing(500)}, with);
    scope->spawn([](StripeApi& by) -> Task<> { co_await by.get("/v1/events", Form()); }(*api));
    ASSERT_TRUE(until([&] { return server.requests() == 4; }));
    settle();
    EXPECT_GE(reactor.foreground_timers(), 1U) << "a graceful shutdown waits for a call";
}

TEST_F(DriverStripeApi, WhatCannotBeSentIsRefusedUnsent) {
    open({Answer()});
    for (const std::string& path :
         {std::string(), std::string("v1/customers"), std::string("/v1/customers/../x"),
          std::string("/v1/customers/cus_1?x=1"), std::string("/v1/a b"), std::string("//evil"),
          std::string("/v1/\r\nX: y"), std::string("@evil/v1"), std::string("/v1/%2e")})
        EXPECT_EQ(post(path).refusal, Refusal::invalid_request) << path;
    for (const std::string& key : {std::string(), std::string(256, 'k'), std::string("a b"), std::string("a\r\nX: y"),
                                   std::string("k\xc3\xa4"), std::string("k\0", 2)})
        EXPECT_EQ(post("/v1/customers", key).refusal, Refusal::invalid_request) << key;
    EXPECT_TRUE(post("/v1/customers", std::string(255, 'k')).ok());
    StripeApi bare(reactor, StripeConfig());
    EXPECT_FALSE(bare.configured());
    EXPECT_EQ(await(bare.get("/v1/events", Form())).refusal, Refusal::credentials);
    EXPECT_EQ(await(bare.post("/v1/customers", Form(), "k")).refusal, Refusal::credentials);
    EXPECT_EQ(server.requests(), 1);
}

TEST_F(DriverStripeApi, CallerWhoLeavesDoesNotTakeBackWhatIsBeingSent) {
    HttpServer slow([&slow](HttpPeer& peer, const HttpAsk&) {
        slow.gate();
        return peer.answer(200, "{}");
    });
    base = slow.url();
    open({});
    Scope leaving(reactor);
    leaving.spawn([](StripeApi& by, Form what) -> Task<> {
        co_await by.post("/v1/customers", std::move(what), "k");
        ADD_FAILURE() << "it went on";
    }(*api, form()));
    leaving.cancel();
    EXPECT_EQ(frames_live(), 0U);
    ASSERT_TRUE(until([&] { return slow.at_gate() == 1; }));
    EXPECT_EQ(slow.asked().at(0).body, form().text());
    slow.open_gate();
    ASSERT_TRUE(until([&] { return api->http().pending() == 0; }));
    EXPECT_EQ(api->http().counters().late, 1U);
}

TEST_F(DriverStripeApi, LogHasTheRequestsIdAndNoSecret) {
    open({failing(400)});
    Form query;
    query.add("email", "topsecret@b.example");
    EXPECT_FALSE(await(api->get("/v1/customers", std::move(query))).ok());
    EXPECT_EQ(logged("billing: Stripe answered GET /v1/customers with HTTP 400 api_error, request req_7"), 1);
    {
        const SilentListener gone;
        base = gone.url();
    }
    open({});
    EXPECT_EQ(post().kind, ReplyKind::later);
    EXPECT_FALSE(post().uncertain) << "nothing was sent";
    EXPECT_EQ(logged("billing: cannot reach Stripe: Couldn't connect to server: Connection refused"), 1);
    EXPECT_EQ(errors, 1);
    EXPECT_EQ(logged("topsecret"), 0);
}

TEST_F(DriverStripeApi, AnswersWhichAreTooLargeOrNoJsonAreRefusedAsUncertain) {
    StripeConfig with;
    with.max_answer = 1000;
    Answer large;
    large.body = "{\"a\":\"" + std::string(2000, 'x') + "\"}";
    open({large}, with);
    EXPECT_EQ(post().refusal, Refusal::unreadable);
    Answer html;
    html.body = "<html>";
    open({html}, with);
    const StripeReply reply = post();
    EXPECT_EQ(reply.refusal, Refusal::unreadable);
    EXPECT_TRUE(reply.uncertain);
    EXPECT_EQ(server.requests(), 2);
}

} // namespace
} // namespace billing
