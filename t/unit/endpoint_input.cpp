// Promise guarded: what a client writes to checkout and portal is read as it was meant or refused, never guessed. C1,
// C2; security case A37.
#include "endpoints/input.hpp"

#include <gtest/gtest.h>

namespace billing {
namespace {

Request json(std::string body, std::string query = "") {
    Request request;
    request.content_type = "application/json";
    request.body = std::move(body);
    request.query = std::move(query);
    return request;
}

Request form(std::string body) {
    Request request;
    request.content_type = "application/x-www-form-urlencoded";
    request.body = std::move(body);
    return request;
}

std::string plan_of(const Request& request) {
    const auto input = Input::read(request);
    return input ? std::string{input.value().text({"plan", "tier"})} : "refused";
}

TEST(EndpointInput, BodyAndQueryCanBeToldApart) { // C17
    const auto input = Input::read(json(R"({"user": "a", "only": 7})", "user=b&other=c"));
    ASSERT_TRUE(input);
    EXPECT_EQ(input.value().body_text("user"), "a");
    EXPECT_EQ(input.value().query_text("user"), "b");
    EXPECT_EQ(input.value().body_text("only"), "7");
    EXPECT_EQ(input.value().body_text("other"), "");
    EXPECT_EQ(input.value().query_text("only"), "");
    const auto bare = Input::read(Request{});
    EXPECT_EQ(bare.value().body_text("user"), "");
    EXPECT_EQ(bare.value().query_text("user"), "");
}

TEST(EndpointInput, TheFirstNameThatIsThereCounts) { // C1
    EXPECT_EQ(plan_of(json(R"({"tier": "pro"})")), "pro");
    EXPECT_EQ(plan_of(json(R"({"tier": "pro", "plan": "starter"})")), "starter");
    EXPECT_EQ(plan_of(json(R"({"plan": "", "tier": "pro"})")), "pro");
    EXPECT_EQ(plan_of(form("tier=pro&x=%20")), "pro");
    EXPECT_EQ(plan_of(form("plan=a+b%2Bc")), "a b+c");
    EXPECT_EQ(plan_of(json("", "plan=pro_monthly")), "pro_monthly");
    EXPECT_EQ(plan_of(json(R"({"plan": "starter"})", "plan=pro")), "starter") << "the body goes before the query";
    EXPECT_EQ(plan_of(json("  \n")), "") << "nothing is named";
    EXPECT_EQ(plan_of(Request{}), "");
}

TEST(EndpointInput, WhatIsNoTextIsAsJsonHasIt) { // C1: a refusal, not a guess
    const auto input =
        Input::read(json(R"({"quantity": 3, "seats": 1e3, "plan": {"x": 1}, "tier": true, "price": null})"));
    ASSERT_TRUE(input.ok());
    EXPECT_EQ(input.value().text({"quantity"}), "3");
    EXPECT_EQ(input.value().text({"seats"}), "1000.0");
    EXPECT_EQ(input.value().text({"plan"}), R"({"x":1})");
    EXPECT_EQ(input.value().text({"tier"}), "true");
    EXPECT_EQ(input.value().text({"price"}), "");
}

TEST(EndpointInput, AFlagIsTrueOrFalse) {
    const auto input = Input::read(json(R"({"a": true, "b": false, "c": 1, "d": "on"})", "e=off&f=yes"));
    ASSERT_TRUE(input.ok());
    EXPECT_EQ(input.value().flag("a"), true);
    EXPECT_EQ(input.value().flag("b"), false);
    EXPECT_EQ(input.value().flag("c"), std::nullopt);
    EXPECT_EQ(input.value().flag("d"), true);
    EXPECT_EQ(input.value().flag("e"), false);
    EXPECT_EQ(input.value().flag("f"), std::nullopt);
    EXPECT_EQ(input.value().flag("g"), std::nullopt);
}

TEST(EndpointInput, WhatIsNotWellFormedIsRefused) { // A37
    for (const char* body : {"[1]", "{", R"({"plan": "a", "plan": "b"})", "\"plan\"", R"({"plan": "a"} x)", "null"}) {
        EXPECT_EQ(plan_of(json(body)), "refused") << body;
    }
    for (const char* body :
         {"plan=%", "plan=%1", "plan=%zz", "plan=a&plan=b", "plan=%00", "plan=%ff", "plan=%ed%a0%80"}) {
        EXPECT_EQ(plan_of(form(body)), "refused") << body;
    }
    Request text = json(R"({"plan": "pro"})");
    text.content_type = "text/plain"; // a browser sends that across sites without asking
    EXPECT_EQ(plan_of(text), "refused");
    text.content_type = "";
    EXPECT_EQ(plan_of(text), "refused");
    EXPECT_EQ(plan_of(json("{}", "plan=%")), "refused");
}

TEST(EndpointInput, AFormOfManyNamesIsRefused) { // A37: no client keeps a worker busy
    const auto of = [](int count) {
        std::string text = "plan=pro";
        for (int index = 1; index < count; ++index) {
            text += "&x" + std::to_string(index);
        }
        return plan_of(form(text));
    };
    EXPECT_EQ(of(100), "pro");
    EXPECT_EQ(of(101), "refused");
}

} // namespace
} // namespace billing
