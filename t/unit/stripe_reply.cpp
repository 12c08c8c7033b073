// Promise guarded: request bodies reach Stripe as they were meant, and each of its answers is taken for what it is:
// done, later, or refused for a reason; none of its words get through (C6, C10).
#include <gtest/gtest.h>

#include <string>

#include "stripe/form.hpp"
#include "stripe/reply.hpp"

namespace billing {
namespace {

// As a server decodes it.
std::string decoded(const std::string& text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '%') {
            out += static_cast<char>(std::stoi(text.substr(i + 1, 2), nullptr, 16));
            i += 2;
        } else {
            out += text[i] == '+' ? ' ' : text[i];
        }
    }
    return out;
}

TEST(StripeForm, NestedNamesNumbersAndFlags) {
    Form form;
    EXPECT_TRUE(form.empty());
    form.add("mode", "subscription")
        .add("line_items[0][price]", std::string("price_1"))
        .add("line_items[0][quantity]", 3);
    form.add("automatic_tax[enabled]", true).add("allow_promotion_codes", false).add("unset", "");
    form.add("amount", std::int64_t{-9000000000}).add("expand[]", "lines");
    EXPECT_EQ(form.text(),
              "mode=subscription&line_items[0][price]=price_1&line_items[0][quantity]=3&automatic_tax[enabled]=true&"
              "allow_promotion_codes=false&unset=&amount=-9000000000&expand[]=lines");
}

TEST(StripeForm, ValuesAreEscapedOnce) {
    Form form;
    form.add("success_url", "https://a.example/ok?session_id={CHECKOUT_SESSION_ID}&x=%20");
    EXPECT_EQ(form.text(),
              "success_url=https%3A%2F%2Fa.example%2Fok%3Fsession_id%3D%7BCHECKOUT_SESSION_ID%7D%26x%3D%2520");
    EXPECT_EQ(decoded(form.text()), "success_url=https://a.example/ok?session_id={CHECKOUT_SESSION_ID}&x=%20");
    std::string every;
    for (int byte = 0; byte < 256; ++byte)
        every += static_cast<char>(byte);
    const std::string escaped = escape(every);
    EXPECT_EQ(decoded(escaped), every);
    EXPECT_EQ(escaped.find_first_of("&=+?#/[]{} \"'<>\n"), escaped.npos);
    EXPECT_EQ(escape("AZaz09-_.~"), "AZaz09-_.~");
}

TEST(StripeForm, NamesFromSettingsAreNoStructure) {
    Form form;
    form.add("subscription_data[metadata]", "a[b]&c=", "v");
    EXPECT_EQ(form.text(), "subscription_data[metadata][a%5Bb%5D%26c%3D]=v");
    Form key;
    key.add("a&b", "c");
    EXPECT_EQ(key.text(), "a%26b=c");
}

StripeReply reply(int status, const std::string& body, const std::string& should_retry = {}) {
    RawReply raw;
    raw.status = status;
    raw.body = body;
    raw.should_retry = should_retry;
    raw.request_id = "req_1";
    return read_reply(raw);
}
std::string error(const std::string& members) { return "{\"error\":{" + members + "}}"; }
const std::string k_invalid = R"("type":"invalid_request_error")";

TEST(StripeReply, ObjectOfASuccessIsHandedOut) {
    StripeReply out = reply(200, R"({"id":"cs_1","name":"a\u0000b"})");
    ASSERT_TRUE(out.ok());
    EXPECT_EQ(text_member(out.json.get(), "id"), "cs_1");
    EXPECT_EQ(out.request_id, "req_1");
    EXPECT_EQ(client_status(out), 0);
    EXPECT_FALSE(out.uncertain);
    RawReply raw;
    raw.status = 200;
    raw.body = "{}";
    raw.replayed = "true";
    EXPECT_TRUE(read_reply(raw).replayed);
}

TEST(StripeReply, WhatMayBeTriedAgainIsTold) {
    const struct {
        int status;
        const char* header;
        ReplyKind kind;
        bool retry;
    } cases[] = {
        {500, "", ReplyKind::later, true},         {502, "", ReplyKind::later, true},
        {503, "false", ReplyKind::later, false},   {409, "", ReplyKind::later, true},
        {409, "false", ReplyKind::later, false},   {429, "", ReplyKind::later, false},
        {429, "true", ReplyKind::later, true},     {429, "false", ReplyKind::later, false},
        {400, "", ReplyKind::refused, false},      {400, "true", ReplyKind::later, true},
        {400, "false", ReplyKind::refused, false}, {404, "", ReplyKind::refused, false},
        {402, "", ReplyKind::refused, false},      {401, "", ReplyKind::refused, false},
        {301, "true", ReplyKind::refused, false},  {200, "true", ReplyKind::ok, false},
        {500, "maybe", ReplyKind::later, true},
    };
    for (const auto& one : cases) {
        const StripeReply out = reply(one.status, error(k_invalid), one.header);
        EXPECT_EQ(out.kind, one.kind) << one.status << one.header;
        EXPECT_EQ(out.retry, one.retry) << one.status << one.header;
        EXPECT_EQ(out.uncertain, one.status >= 500 || one.status == 301) << one.status;
    }
    EXPECT_TRUE(reply(503, "<html>busy</html>").retry);
    EXPECT_EQ(reply(400, error(R"("type":"idempotency_error","code":"idempotency_key_in_use")")).kind,
              ReplyKind::later);
}

TEST(StripeReply, RefusalsAreToldApart) {
    const struct {
        int status;
        std::string body;
        Refusal refusal;
        int client;
    } cases[] = {
        {401, error(k_invalid + R"(,"message":"Invalid API Key provided: sk_live_abc")"), Refusal::credentials, 502},
        {403, error(k_invalid), Refusal::credentials, 502},
        {401, "", Refusal::credentials, 502},
        {400, error(k_invalid + R"(,"code":"parameter_unknown","param":"payment_behavior")"), Refusal::invalid_request,
         500},
        {404, error(k_invalid + R"(,"message":"Unrecognized request URL")"), Refusal::invalid_request, 500},
        {400, error(k_invalid + R"(,"code":"resource_missing","param":"customer")"), Refusal::missing_customer, 500},
        {404, error(k_invalid + R"(,"code":"resource_missing","param":"id")"), Refusal::missing_object, 500},
        {400, error(R"("type":"idempotency_error")"), Refusal::idempotency, 500},
        {402, error(R"("type":"card_error","code":"card_declined","decline_code":"stolen_card")"), Refusal::card, 502},
        {400, error(k_invalid + R"(,"message":"An event already exists with identifier a:1.")"), Refusal::already, 500},
        {400, error(k_invalid + R"(,"message":"Only Checkout Sessions with a status in [\"open\"] can be expired.")"),
         Refusal::already, 500},
        {400, error(k_invalid + R"(,"code":"resource_already_exists")"), Refusal::already, 500},
        {400, "<html>", Refusal::unreadable, 502},
        {400, R"({"error":"text"})", Refusal::unreadable, 502},
        {200, "", Refusal::unreadable, 502},
        {200, "[]", Refusal::unreadable, 502},
        {302, "", Refusal::unreadable, 502},
    };
    for (const auto& one : cases) {
        const StripeReply out = reply(one.status, one.body);
        EXPECT_EQ(out.kind, ReplyKind::refused) << one.status << one.body;
        EXPECT_EQ(out.refusal, one.refusal) << one.status << one.body;
        EXPECT_EQ(client_status(out), one.client) << one.status << one.body;
        EXPECT_FALSE(out.retry);
        EXPECT_EQ(out.uncertain, one.status < 400);
    }
}

TEST(StripeReply, NothingOfStripesWordsGetsOut) {
    const StripeReply out =
        reply(400, error(R"("type":"invalid_request_error","code":"resource_missing","param":"customer",)"
                         R"("message":"No such customer: 'cus_9'; a@b.example sk_live_x")"));
    EXPECT_EQ(out.log_text(), "HTTP 400 invalid_request_error resource_missing (customer), request req_1");
    for (const StripeReply* one : {&out}) {
        EXPECT_EQ(std::string(client_text(*one)).find("Stripe"), std::string::npos);
        EXPECT_EQ(std::string(client_text(*one)).find("cus_9"), std::string::npos);
    }
    const StripeReply odd = reply(400, error(R"("type":"a\nb","code":"x y","param":")" + std::string(81, 'p') + "\""));
    EXPECT_EQ(odd.log_text(), "HTTP 400, request req_1");
    RawReply raw;
    raw.status = 500;
    raw.request_id = "req\r\nX";
    EXPECT_EQ(read_reply(raw).log_text(), "HTTP 500");
    EXPECT_NE(std::string(client_text(no_reply(true))), std::string(client_text(out)));
}

TEST(StripeReply, RetryAfterIsSecondsWithinReason) {
    const auto after = [](std::string_view text) {
        RawReply raw;
        raw.status = 429;
        raw.retry_after = text;
        return read_reply(raw).retry_after_ms;
    };
    EXPECT_EQ(after("2"), 2000);
    EXPECT_EQ(after("3600"), 3600000);
    EXPECT_EQ(after("999999"), 3600000);
    for (const char* text : {"", "0", "-1", "1.5", "soon", "Wed, 21 Oct 2026 07:28:00 GMT", "99999999999999999999"})
        EXPECT_EQ(after(text), 0) << text;
}

TEST(StripeReply, SilenceIsLaterAndSaysWhetherItMayHaveHappened) {
    for (const bool sent : {false, true}) {
        const StripeReply out = no_reply(sent);
        EXPECT_EQ(out.kind, ReplyKind::later);
        EXPECT_TRUE(out.retry);
        EXPECT_EQ(out.uncertain, sent);
        EXPECT_EQ(client_status(out), 503);
        EXPECT_EQ(out.log_text(), "no answer");
    }
    EXPECT_EQ(refused_reply(Refusal::credentials).refusal, Refusal::credentials);
}

} // namespace
} // namespace billing
