// Promise guarded: each fact of a subscription, a checkout, a charge is found in every layout Stripe has used since
// 2019, and null, missing or senseless fields are absent, never a date in 1970 (W5, W6, W10, W11).
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "stripe/event.hpp"
#include "stripe/objects.hpp"

namespace billing {
namespace {

Json json(const std::string& text) {
    auto out = parse_payload(text);
    EXPECT_TRUE(out.ok()) << text;
    return out ? std::move(out).value() : Json();
}

StripeSubscription subscription(const std::string& text) {
    const Json object = json(text);
    auto out = read_subscription(object.get());
    EXPECT_TRUE(out.ok()) << text;
    return out ? std::move(out).value() : StripeSubscription();
}

// As since 2025-03-31.
const std::string k_new =
    R"({"id":"sub_1","object":"subscription","customer":"cus_1","status":"active","created":1690000000,
    "items":{"object":"list","has_more":false,"data":[
        {"id":"si_seat","quantity":5,"price":{"id":"price_seat","product":"prod_seat"},
         "current_period_start":1700000000,"current_period_end":1702592000},
        {"id":"si_meter","price":{"id":"price_meter","product":{"id":"prod_meter"}},
         "current_period_start":1699000000,"current_period_end":1730000000}]},
    "cancel_at_period_end":false,"cancel_at":null,"trial_start":null,"trial_end":1695000000,"ended_at":null,
    "billing_cycle_anchor":1690000000,"pause_collection":null,"latest_invoice":{"id":"in_1"},"livemode":true,
    "metadata":{"userId":"acct-1","tier":"pro","n":1}})";
// As before.
const std::string k_old = R"({"id":"sub_2","object":"subscription","customer":{"id":"cus_2","object":"customer"},
    "status":"past_due","current_period_start":1600000000,"current_period_end":1602592000,"quantity":3,
    "items":{"data":[{"id":"si_2","quantity":3,"plan":{"id":"plan_gold","product":"prod_2"}}]},
    "cancel_at_period_end":true,"plan":{"id":"plan_gold"},"metadata":null})";

TEST(StripeSubscription, NewLayoutHasItsPeriodOnTheItems) {
    const StripeSubscription out = subscription(k_new);
    EXPECT_EQ(out.id, "sub_1");
    EXPECT_EQ(out.customer, "cus_1");
    EXPECT_EQ(out.status, "active");
    ASSERT_EQ(out.items.size(), 2U);
    EXPECT_EQ(out.items[0].price, "price_seat");
    EXPECT_EQ(out.items[0].product, "prod_seat");
    EXPECT_EQ(out.items[0].quantity, 5);
    EXPECT_EQ(out.items[1].price, "price_meter");
    EXPECT_EQ(out.items[1].product, "prod_meter");
    EXPECT_FALSE(out.items[1].quantity.has_value());
    EXPECT_EQ(out.period("price_seat").start, 1700000000);
    EXPECT_EQ(out.period("price_seat").end, 1702592000);
    EXPECT_EQ(out.period().start, 1699000000) << "over all items";
    EXPECT_EQ(out.period("price_other").end, 1730000000);
    EXPECT_FALSE(out.pending_cancel);
    EXPECT_FALSE(out.cancel_at.has_value());
    EXPECT_FALSE(out.trial_start.has_value());
    EXPECT_EQ(out.trial_end, 1695000000);
    EXPECT_EQ(out.created, 1690000000);
    EXPECT_EQ(out.billing_cycle_anchor, 1690000000);
    EXPECT_EQ(out.latest_invoice, "in_1");
    EXPECT_EQ(out.livemode, true);
    EXPECT_EQ(out.metadata.find("userId"), "acct-1");
    EXPECT_EQ(out.metadata.find("tier"), "pro");
    EXPECT_EQ(out.metadata.find("n"), "") << "not a text";
    EXPECT_EQ(out.metadata.all().size(), 2U);
}

TEST(StripeSubscription, OldLayoutHasItOnTheSubscriptionAndPlansForPrices) {
    const StripeSubscription out = subscription(k_old);
    EXPECT_EQ(out.customer, "cus_2");
    ASSERT_EQ(out.items.size(), 1U);
    EXPECT_EQ(out.items[0].price, "plan_gold");
    EXPECT_EQ(out.items[0].product, "prod_2");
    EXPECT_EQ(out.period("plan_gold").start, 1600000000);
    EXPECT_EQ(out.period().end, 1602592000);
    EXPECT_TRUE(out.pending_cancel);
    EXPECT_EQ(out.cancel_at, 1602592000) << "at the end of the period";
    EXPECT_FALSE(out.livemode.has_value());
    const StripeSubscription bare = subscription(
        R"({"id":"sub_3","plan":{"id":"gold","product":"p"},"quantity":2,"current_period_end":1602592000})");
    ASSERT_EQ(bare.items.size(), 1U);
    EXPECT_EQ(bare.items[0].price, "gold");
    EXPECT_EQ(bare.items[0].quantity, 2);
}

TEST(StripeSubscription, CancellationIsSeenInBothWordings) {
    StripeSubscription out = subscription(R"({"id":"s","cancel_at_period_end":false,"cancel_at":1800000000})");
    EXPECT_TRUE(out.pending_cancel);
    EXPECT_EQ(out.cancel_at, 1800000000);
    out = subscription(R"({"id":"s","cancel_at_period_end":true,"cancel_at":1800000000,
        "items":{"data":[{"current_period_end":1900000000}]}})");
    EXPECT_EQ(out.cancel_at, 1800000000);
    out =
        subscription(R"({"id":"s","cancel_at_period_end":true,"items":{"data":[{"current_period_end":1900000000}]}})");
    EXPECT_EQ(out.cancel_at, 1900000000);
    out = subscription(R"({"id":"s","cancel_at_period_end":true})");
    EXPECT_TRUE(out.pending_cancel);
    EXPECT_FALSE(out.cancel_at.has_value());
}

TEST(StripeSubscription, PauseAndEndAreTheirOwnFacts) {
    const StripeSubscription out = subscription(
        R"({"id":"s","status":"active","pause_collection":{"behavior":"void","resumes_at":1800000000},"ended_at":1700000001})");
    EXPECT_EQ(out.pause_behavior, "void");
    EXPECT_EQ(out.pause_until, 1800000000);
    EXPECT_EQ(out.ended_at, 1700000001);
}

TEST(StripeSubscription, SenselessFieldsAreAbsent) {
    const StripeSubscription out = subscription(
        R"({"id":"sub_4","customer":null,"status":7,"current_period_start":0,"current_period_end":-5,"trial_end":"soon",
        "cancel_at":1e9,"created":99999999999999,"items":{"data":[null,1,{"id":null,"price":null,"plan":null,
        "current_period_start":null,"current_period_end":0}],"has_more":true},"metadata":[1],"pause_collection":[]})");
    EXPECT_EQ(out.customer, "");
    EXPECT_EQ(out.status, "");
    ASSERT_EQ(out.items.size(), 1U);
    EXPECT_EQ(out.items[0].price, "");
    EXPECT_TRUE(out.more_items);
    EXPECT_FALSE(out.period().start || out.period().end);
    EXPECT_FALSE(out.trial_end || out.cancel_at || out.created || out.pause_until);
    EXPECT_FALSE(out.pending_cancel);
    EXPECT_TRUE(out.metadata.all().empty());
}

TEST(StripeSubscription, ItemWithoutPeriodDoesNotHideTheOthers) {
    const StripeSubscription out = subscription(
        R"({"id":"s","current_period_end":1500000000,"items":{"data":[{"price":"price_a","current_period_end":null},
        {"price":{"id":"price_b"},"current_period_start":1700000000,"current_period_end":1800000000}]}})");
    EXPECT_EQ(out.items[0].price, "price_a") << "a price which is not expanded";
    EXPECT_EQ(out.period("price_a").end, 1800000000);
}

TEST(StripeObjects, WithoutIdOrOfAnotherTypeIsAnError) {
    const auto fails = [](const std::string& text) { return !read_subscription(json(text).get()).ok(); };
    EXPECT_TRUE(fails("{}"));
    EXPECT_TRUE(fails(R"({"id":null})"));
    EXPECT_TRUE(fails(R"({"id":"in_1","object":"invoice"})"));
    EXPECT_FALSE(read_subscription(nullptr).ok());
    EXPECT_FALSE(read_invoice(nullptr).ok());
    EXPECT_FALSE(read_checkout(nullptr).ok());
    EXPECT_FALSE(read_customer(nullptr).ok());
    EXPECT_FALSE(read_charge(nullptr).ok());
    EXPECT_FALSE(read_refund(nullptr).ok());
    EXPECT_FALSE(read_dispute(nullptr).ok());
    EXPECT_FALSE(read_entitlements(nullptr).ok());
    EXPECT_FALSE(read_page(nullptr).ok());
    EXPECT_EQ(read_charge(json(R"({"id":"re_1","object":"refund"})").get()).error(), "charge: something else was sent");
}

TEST(StripeCheckout, SubscriptionAndPaymentAndWhatIsSettled) {
    const Json object = json(R"({"id":"cs_1","object":"checkout.session","mode":"subscription","status":"complete",
        "payment_status":"paid","customer":"cus_1","subscription":{"id":"sub_1"},"payment_intent":null,"invoice":"in_1",
        "client_reference_id":"acct-1","url":null,"amount_total":7900,"currency":"usd","expires_at":1700086400,
        "livemode":false,"metadata":{"creditQty":"10"}})");
    const auto out = read_checkout(object.get());
    ASSERT_TRUE(out.ok());
    const StripeCheckout& session = out.value();
    EXPECT_EQ(session.mode, "subscription");
    EXPECT_EQ(session.status, "complete");
    EXPECT_EQ(session.customer, "cus_1");
    EXPECT_EQ(session.subscription, "sub_1");
    EXPECT_EQ(session.payment_intent, "");
    EXPECT_EQ(session.invoice, "in_1");
    EXPECT_EQ(session.client_reference_id, "acct-1");
    EXPECT_EQ(session.amount_total, 7900);
    EXPECT_EQ(session.currency, "usd");
    EXPECT_EQ(session.expires_at, 1700086400);
    EXPECT_EQ(session.livemode, false);
    EXPECT_EQ(session.metadata.find("creditQty"), "10");
    EXPECT_TRUE(session.settled());
    for (const auto& [status, settled] :
         {std::pair{"\"paid\"", true}, std::pair{"\"no_payment_required\"", true}, std::pair{"\"unpaid\"", false},
          std::pair{"null", false}, std::pair{"\"new\"", false}}) {
        const Json one = json(std::string(R"({"id":"cs_2","payment_status":)") + status + "}");
        EXPECT_EQ(read_checkout(one.get()).value().settled(), settled) << status;
    }
}

TEST(StripeObjects, CustomersAndTheirEnd) {
    const auto out = read_customer(json(R"({"id":"cus_1","object":"customer","email":"a@b.c","name":"A\u0000B",
        "metadata":{"account":"x\u0000y"}})")
                                       .get());
    ASSERT_TRUE(out.ok());
    EXPECT_EQ(out.value().email, "a@b.c");
    EXPECT_EQ(out.value().name, "AB") << "no store takes a NUL";
    EXPECT_EQ(out.value().metadata.find("account"), "xy");
    EXPECT_FALSE(out.value().deleted);
    EXPECT_TRUE(read_customer(json(R"({"id":"cus_1","object":"customer","deleted":true})").get()).value().deleted);
}

TEST(StripeObjects, ChargesRefundsAndDisputes) {
    const auto charge = read_charge(json(R"({"id":"ch_1","object":"charge","customer":"cus_1","amount":1000,
        "amount_refunded":250,"refunded":false,"disputed":true,"payment_intent":{"id":"pi_1"},"invoice":"in_1",
        "currency":"eur","refunds":{"data":[{"id":"re_1","amount":250,"status":"succeeded"},{"x":1}]}})")
                                        .get());
    ASSERT_TRUE(charge.ok());
    EXPECT_EQ(charge.value().payment_intent, "pi_1");
    EXPECT_EQ(charge.value().invoice, "in_1");
    EXPECT_EQ(charge.value().amount, 1000);
    EXPECT_EQ(charge.value().amount_refunded, 250);
    EXPECT_FALSE(charge.value().refunded);
    EXPECT_TRUE(charge.value().disputed);
    EXPECT_EQ(charge.value().currency, "eur");
    ASSERT_EQ(charge.value().refunds.size(), 1U);
    EXPECT_EQ(charge.value().refunds[0].id, "re_1");
    EXPECT_TRUE(read_charge(json(R"({"id":"ch_2","refunded":true,"refunds":null})").get()).value().refunds.empty());
    const auto refund =
        read_refund(json(R"({"id":"re_2","object":"refund","charge":{"id":"ch_1"},"payment_intent":"pi_1",
        "amount":250,"currency":"eur","status":"failed"})")
                        .get());
    ASSERT_TRUE(refund.ok());
    EXPECT_EQ(refund.value().charge, "ch_1");
    EXPECT_EQ(refund.value().payment_intent, "pi_1");
    EXPECT_EQ(refund.value().amount, 250);
    EXPECT_EQ(refund.value().status, "failed");
    const auto dispute = read_dispute(json(R"({"id":"dp_1","object":"dispute","charge":"ch_1","payment_intent":"pi_1",
        "status":"lost","reason":"general","amount":1000,"currency":"eur"})")
                                          .get());
    ASSERT_TRUE(dispute.ok());
    EXPECT_EQ(dispute.value().charge, "ch_1");
    EXPECT_EQ(dispute.value().payment_intent, "pi_1");
    EXPECT_EQ(dispute.value().status, "lost");
    EXPECT_EQ(dispute.value().reason, "general");
    EXPECT_EQ(dispute.value().amount, 1000);
}

TEST(StripeObjects, EntitlementsAndPagesSayWhenTheyAreCut) {
    const auto out = read_entitlements(json(R"({"object":"entitlements.active_entitlement_summary","customer":"cus_1",
        "entitlements":{"object":"list","has_more":true,"data":[{"lookup_key":"a"},{"lookup_key":null},{"lookup_key":"b"}]}})")
                                           .get());
    ASSERT_TRUE(out.ok());
    EXPECT_EQ(out.value().customer, "cus_1");
    EXPECT_EQ(out.value().lookup_keys, (std::vector<std::string>{"a", "b"}));
    EXPECT_TRUE(out.value().more);
    const Json list = json(R"({"object":"list","has_more":true,"data":[{"id":"evt_1"},{"id":"evt_2"}]})");
    const auto page = read_page(list.get());
    ASSERT_TRUE(page.ok());
    EXPECT_EQ(page.value().data.size(), 2U);
    EXPECT_TRUE(page.value().more);
    EXPECT_EQ(page.value().last_id, "evt_2");
    EXPECT_FALSE(read_page(json(R"({"object":"list","has_more":true,"data":[]})").get()).value().more)
        << "no way to go on";
    EXPECT_FALSE(read_page(json(R"({"object":"list"})").get()).ok());
}

} // namespace
} // namespace billing
