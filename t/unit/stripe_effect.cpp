// Promise guarded: what an event means is read from it alone, the same from every layout of Stripe; a checkout acts for
// the account that it names only if it is ours; what nobody handles is told apart (W5, W6, W8-W11).
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "stripe/effect.hpp"
#include "stripe/event.hpp"

namespace billing {
namespace {

Json json(const std::string& text) {
    auto out = parse_payload(text);
    EXPECT_TRUE(out.ok()) << text;
    return out ? std::move(out).value() : Json();
}

Result<EventEffect> read(const std::string& type, const std::string& object) {
    const Json event =
        json(R"({"id":"evt_1","object":"event","type":")" + type + R"(","data":{"object":)" + object + "}}");
    return read_effect(event.get());
}

// What is to be done, in one line: "customer account look effect".
std::string done(const std::string& type, const std::string& object) {
    const auto out = read(type, object);
    if (!out)
        return "error: " + out.error();
    const EventEffect& effect = out.value();
    if (!effect.ignored.empty())
        return "ignored: " + effect.ignored;
    std::string looks = effect.subscriptions ? "look " : "";
    for (const auto& [look, text] :
         {std::pair{LookAt::customer, "at the customer "}, std::pair{LookAt::entitlements, "at its entitlements "},
          std::pair{LookAt::charge, "at the charge "}, std::pair{LookAt::dispute, "at the dispute "}})
        looks += effect.look == look ? text : "";
    for (const std::string& id : {effect.payment, effect.charge, effect.dispute})
        looks += id.empty() ? "" : id + " ";
    return effect.customer + " '" + effect.account + "' " + looks + dump_json(effect.effect.get());
}

const std::string k_metadata =
    R"("client_reference_id":"acct","metadata":{"account":"acct","price":"price_1","quantity":"3"})";

std::string session(const std::string& members) {
    return R"({"id":"cs_1","object":"checkout.session",)" + members + "}";
}

TEST(StripeEffect, TypesThatNobodyHandlesAreIgnored) {
    for (const char* type : {"checkout.session.completed",
                             "checkout.session.async_payment_succeeded",
                             "checkout.session.expired",
                             "checkout.session.async_payment_failed",
                             "customer.subscription.created",
                             "customer.subscription.updated",
                             "customer.subscription.deleted",
                             "customer.subscription.paused",
                             "customer.subscription.resumed",
                             "customer.subscription.trial_will_end",
                             "customer.subscription.pending_update_applied",
                             "customer.subscription.pending_update_expired",
                             "invoice.paid",
                             "invoice.payment_succeeded",
                             "invoice.payment_failed",
                             "customer.updated",
                             "customer.deleted",
                             "entitlements.active_entitlement_summary.updated",
                             "charge.refunded",
                             "charge.refund.updated",
                             "refund.created",
                             "refund.updated",
                             "refund.failed",
                             "charge.dispute.created",
                             "charge.dispute.updated",
                             "charge.dispute.closed"})
        EXPECT_TRUE(handles_event(type)) << type;
    for (const char* type : {"", "customer", "customer.created", "invoice.created", "invoice.paid.more",
                             "charge.succeeded", "charge.dispute.funds_withdrawn", "subscription_schedule.updated",
                             "subscription_schedule.released", "checkout.session", "v2.core.event"}) {
        EXPECT_FALSE(handles_event(type)) << type;
        EXPECT_EQ(done(type, "{}"), "ignored: a type that changes nothing") << type;
    }
    EXPECT_EQ(read_effect(json("{}").get()).value().ignored, "a type that changes nothing");
}

TEST(StripeEffect, CheckoutOfOursNamesItsAccountPriceAndQuantity) {
    const std::string bought =
        R"(cus_1 'acct' look {"kind":"checkout_completed","session":"cs_1","mode":"payment","customer":"cus_1",)"
        R"("payment_status":"paid","quantity":3,"price":"price_1","payment_intent":"pi_1"})";
    const std::string plain =
        session(R"("mode":"payment","customer":"cus_1","payment_status":"paid","payment_intent":"pi_1",)" + k_metadata);
    const std::string expanded = session(R"("mode":"payment","customer":{"id":"cus_1","object":"customer"},)"
                                         R"("payment_status":"paid","payment_intent":{"id":"pi_1"},)" +
                                         k_metadata);
    EXPECT_EQ(done("checkout.session.completed", plain), bought);
    EXPECT_EQ(done("checkout.session.async_payment_succeeded", expanded), bought);
    EXPECT_EQ(done("checkout.session.completed",
                   session(R"("mode":"subscription","customer":"cus_1","payment_status":"unpaid",)"
                           R"("payment_intent":null,"client_reference_id":"acct","metadata":{"account":"acct"})")),
              R"(cus_1 'acct' look {"kind":"checkout_completed","session":"cs_1","mode":"subscription",)"
              R"("customer":"cus_1","payment_status":"unpaid"})");
    EXPECT_EQ(done("checkout.session.completed", session(R"("mode":"payment","customer":null,)" + k_metadata)),
              R"( 'acct' look {"kind":"checkout_completed","session":"cs_1","mode":"payment","quantity":3,)"
              R"("price":"price_1"})")
        << "without a customer";
    EXPECT_EQ(done("checkout.session.expired", session(R"("mode":"payment","customer":"cus_1",)" + k_metadata)),
              R"(cus_1 'acct' {"kind":"checkout_expired","session":"cs_1","mode":"payment"})");
}

TEST(StripeEffect, PaymentOfAPackSaysHowMuch) {
    const std::string paid = R"("mode":"payment","customer":"cus_1","payment_status":"paid","payment_intent":"pi_1",)"
                             R"("amount_total":1000,"currency":"usd",)" +
                             k_metadata;
    const std::string money = R"("price":"price_1","payment_intent":"pi_1","amount":1000,"currency":"usd"})";
    EXPECT_EQ(done("checkout.session.completed", session(paid)),
              R"(cus_1 'acct' look {"kind":"checkout_completed","session":"cs_1","mode":"payment","customer":"cus_1",)"
              R"("payment_status":"paid","quantity":3,)" +
                  money);
    EXPECT_EQ(done("checkout.session.async_payment_failed", session(paid)),
              R"(cus_1 'acct' {"kind":"checkout_failed","session":"cs_1","mode":"payment",)" + money);
    EXPECT_EQ(done("checkout.session.expired",
                   session(R"("mode":"payment","amount_total":1000,"currency":"usd",)" + k_metadata)),
              R"( 'acct' {"kind":"checkout_expired","session":"cs_1","mode":"payment"})")
        << "nobody has tried";
}

TEST(StripeEffect, SenselessQuantitiesAreAbsent) {
    for (const std::string text : {R"("")", R"("0")", R"("-1")", R"("1.5")", R"("3x")", R"(" 3")", R"("1000001")",
                                   R"("99999999999999999999")", "3"}) {
        const auto out = read("checkout.session.completed",
                              session(R"("mode":"payment","client_reference_id":"acct","metadata":{"account":"acct",)"
                                      R"("quantity":)" +
                                      text + "}"));
        EXPECT_FALSE(integer_member(out.value().effect.get(), "quantity").has_value()) << text;
    }
}

TEST(StripeEffect, ForeignCheckoutsGrantNothing) {
    // client_reference_id can be set by whoever opens a payment link; metadata alone may be a copy.
    for (const std::string& whose :
         {std::string(R"("client_reference_id":"acct","metadata":{})"),
          std::string(R"("client_reference_id":"acct","metadata":{"account":"other","price":"price_1"})"),
          std::string(R"("client_reference_id":null,"metadata":{"account":"acct","price":"price_1"})"),
          std::string(R"("client_reference_id":"","metadata":{"account":""})"), std::string(R"("metadata":null)")}) {
        EXPECT_EQ(done("checkout.session.completed", session(R"("mode":"payment","customer":"cus_1",)" + whose)),
                  "ignored: not a checkout of ours")
            << whose;
        EXPECT_EQ(done("checkout.session.completed", session(R"("mode":"subscription",)" + whose)),
                  "ignored: not a checkout of ours")
            << whose;
        EXPECT_EQ(done("checkout.session.completed", session(R"("mode":"subscription","customer":"cus_1",)" + whose)),
                  R"(cus_1 '' look {"kind":"subscription"})")
            << "the customer may be ours";
        EXPECT_EQ(done("checkout.session.expired", session(R"("mode":"subscription","customer":"cus_1",)" + whose)),
                  "ignored: not a checkout of ours");
    }
    EXPECT_EQ(done("checkout.session.completed", session(R"("mode":"setup","customer":"cus_1",)" + k_metadata)),
              "ignored: a checkout that sells nothing");
    EXPECT_EQ(done("checkout.session.completed", session(k_metadata)), "ignored: a checkout that sells nothing");
}

TEST(StripeEffect, SubscriptionEventsSayOnlyWhoseTheyAre) {
    for (const char* type :
         {"customer.subscription.created", "customer.subscription.deleted", "customer.subscription.paused"}) {
        EXPECT_EQ(done(type, R"({"id":"sub_1","object":"subscription","customer":"cus_1","status":"active"})"),
                  R"(cus_1 '' look {"kind":"subscription"})");
        EXPECT_EQ(done(type, R"({"id":"sub_1","customer":{"id":"cus_1"},"metadata":{"account":"other"}})"),
                  R"(cus_1 '' look {"kind":"subscription"})")
            << "a subscription names no account";
    }
    for (const char* type : {"customer.subscription.updated", "customer.subscription.trial_will_end"})
        EXPECT_EQ(done(type, R"({"id":"sub_1","customer":null})"), "ignored: a subscription of nobody");
    EXPECT_EQ(done("customer.subscription.trial_will_end",
                   R"({"id":"sub_1","object":"subscription","customer":"cus_1","status":"trialing"})"),
              R"(cus_1 '' look {"kind":"trial_ending","subscription":"sub_1"})");
}

TEST(StripeEffect, MoneyThatGoesBackSaysOnlyWhatToLookAt) {
    // The amounts of an event may be overtaken; its charge names whose it is, refunds and disputes do not.
    EXPECT_EQ(done("charge.refunded", R"({"id":"ch_1","object":"charge","customer":"cus_1","payment_intent":"pi_1",)"
                                      R"("amount":1000,"amount_refunded":400})"),
              R"(cus_1 '' at the charge pi_1 ch_1 {"kind":"charge"})");
    EXPECT_EQ(done("charge.refunded", R"({"id":"ch_1","object":"charge","customer":null,"payment_intent":null})"),
              R"( '' at the charge ch_1 {"kind":"charge"})");
    for (const char* type : {"refund.created", "refund.updated", "refund.failed", "charge.refund.updated"}) {
        EXPECT_EQ(done(type, R"({"id":"re_1","object":"refund","charge":{"id":"ch_1"},"payment_intent":"pi_1"})"),
                  R"( '' at the charge pi_1 ch_1 {"kind":"charge"})");
        EXPECT_EQ(done(type, R"({"id":"re_1","object":"refund","charge":null})"), "ignored: a refund of no charge");
    }
    for (const char* type : {"charge.dispute.created", "charge.dispute.closed"}) {
        EXPECT_EQ(done(type, R"({"id":"du_1","object":"dispute","charge":"ch_1","payment_intent":"pi_1"})"),
                  R"( '' at the dispute pi_1 ch_1 du_1 {"kind":"dispute"})");
        EXPECT_EQ(done(type, R"({"id":"du_1","object":"dispute"})"), "ignored: a dispute about no charge");
    }
}

TEST(StripeEffect, ChargesAndDisputesAreToldAsTheyWereSeen) {
    const auto charge =
        read_charge(json(R"({"id":"ch_1","payment_intent":"pi_1","amount":1000,"amount_refunded":400,"currency":"usd",
                 "refunds":{"data":[{"id":"re_1","amount":400,"status":"succeeded"}]}})")
                        .get());
    const std::string seen = R"({"id":"ch_1","payment_intent":"pi_1","amount":1000,"currency":"usd",)"
                             R"("refunds":[{"id":"re_1","amount":400,"status":"succeeded"}]})";
    EXPECT_EQ(dump_json(charge_facts(charge.value()).get()), seen);
    const auto dispute =
        read_dispute(json(R"({"id":"du_1","amount":1000,"status":"lost","reason":"fraudulent"})").get());
    EXPECT_EQ(dump_json(dispute_facts(dispute.value(), charge.value()).get()),
              R"({"id":"du_1","amount":1000,"status":"lost","reason":"fraudulent","charge":)" + seen + "}");
}

TEST(StripeEffect, EntitlementsAreThoseOfACustomer) {
    const std::string type = "entitlements.active_entitlement_summary.updated";
    EXPECT_EQ(done(type, R"({"object":"entitlements.active_entitlement_summary","customer":"cus_1",)"
                         R"("entitlements":{"has_more":true,"data":[{"lookup_key":"a"}]}})"),
              R"(cus_1 '' at its entitlements {"kind":"entitlements"})");
    EXPECT_EQ(done(type, R"({"object":"entitlements.active_entitlement_summary"})"), "ignored: entitlements of nobody");
    EXPECT_FALSE(read(type, R"({"object":"charge","customer":"cus_1"})").ok());
}

TEST(StripeEffect, InvoicesTellTheServiceInOldAndNewLayouts) {
    const std::string paid =
        R"(cus_1 '' look {"kind":"invoice_paid","invoice":"in_1","subscription":"sub_1",)"
        R"("billing_reason":"subscription_cycle","price":"price_1","period_start":1700000000,"period_end":1702592000,)"
        R"("amount":2900,"currency":"usd","payment_intent":"pi_1","attempt":1})";
    const std::string head = R"({"id":"in_1","object":"invoice","billing_reason":"subscription_cycle",)"
                             R"("amount_paid":2900,"amount_due":5800,"currency":"usd","attempt_count":1,)"
                             R"("next_payment_attempt":1700100000,"period_start":1,"period_end":1700000000,)";
    const std::string now = head + R"("customer":{"id":"cus_1"},"status":"paid","subscription":null,
        "parent":{"type":"subscription_details","subscription_details":{"subscription":"sub_1"}},
        "payments":{"data":[{"status":"paid","payment":{"type":"payment_intent","payment_intent":"pi_1"}}]},
        "lines":{"data":[
            {"amount":-10,"period":{"start":1699000000,"end":1800000000},"pricing":{"price_details":{"price":"price_0"}},
             "parent":{"type":"subscription_item_details","subscription_item_details":{"proration":true}}},
            {"amount":2900,"period":{"start":1700000000,"end":1702592000},"pricing":{"price_details":{"price":"price_1"}},
             "parent":{"type":"subscription_item_details",
                       "subscription_item_details":{"subscription":"sub_1","proration":false}}}]}})";
    const std::string then = head + R"("customer":"cus_1","paid":true,"status":"paid","subscription":"sub_1",
        "payment_intent":"pi_1","lines":{"data":[
            {"amount":2900,"type":"subscription","period":{"start":1700000000,"end":1702592000},
             "plan":{"id":"price_1"},"proration":false}]}})";
    for (const std::string& object : {now, then}) {
        EXPECT_EQ(done("invoice.paid", object), paid);
        EXPECT_EQ(done("invoice.payment_succeeded", object), paid) << "one effect for both";
        EXPECT_EQ(done("invoice.payment_failed", object),
                  R"(cus_1 '' look {"kind":"invoice_failed","invoice":"in_1","subscription":"sub_1",)"
                  R"("billing_reason":"subscription_cycle","price":"price_1","period_start":1700000000,)"
                  R"("period_end":1702592000,"amount":5800,"currency":"usd","payment_intent":"pi_1","attempt":1,)"
                  R"("next_attempt":1700100000})");
    }
}

TEST(StripeEffect, InvoicesMayLackNearlyEverything) {
    EXPECT_EQ(done("invoice.paid", R"({"id":"in_1","customer":"cus_1","subscription":"sub_1","lines":{"data":[
        {"type":"subscription","period":{"start":100,"end":200},"plan":{"id":"price_plan"}},
        {"type":"subscription","period":{"start":100,"end":900},"plan":{"id":"price_addon"}},
        {"type":"subscription","period":{"start":150,"end":200},"plan":{"id":"price_old"},"proration":true},
        {"type":"invoiceitem","period":{"start":1,"end":2},"plan":{"id":"price_once"}}]}})"),
              R"(cus_1 '' look {"kind":"invoice_paid","invoice":"in_1","subscription":"sub_1",)"
              R"("price":"price_addon","period_start":100,"period_end":900,)"
              R"("lines":[{"price":"price_plan","period_start":100,"period_end":200},)"
              R"({"price":"price_addon","period_start":100,"period_end":900}],"amount":0,"attempt":0})")
        << "W8: which of several items is the plan's, the catalog knows";
    EXPECT_EQ(done("invoice.paid", R"({"id":"in_1","customer":"cus_1"})"),
              R"(cus_1 '' look {"kind":"invoice_paid","invoice":"in_1","amount":0,"attempt":0})");
    EXPECT_EQ(done("invoice.payment_failed",
                   R"({"id":"in_1","customer":"cus_1","lines":{"data":[]},"next_payment_attempt":null})"),
              R"(cus_1 '' look {"kind":"invoice_failed","invoice":"in_1","amount":0,"attempt":0})");
    EXPECT_EQ(done("invoice.paid", R"({"id":"in_1"})"), "ignored: an invoice of nobody");
    EXPECT_EQ(done("invoice.paid", R"({"customer":"cus_1"})"), "error: invoice: it has no id");
}

TEST(StripeEffect, CustomersAreNamedByThemselves) {
    const std::string look = R"(cus_1 '' at the customer {"kind":"customer_updated"})";
    EXPECT_EQ(done("customer.updated", R"({"id":"cus_1","object":"customer","email":"a@b.example"})"), look);
    EXPECT_EQ(
        dump_json(customer_facts(
                      read_customer(json(R"({"id":"cus_1","email":"a@b.example","name":"A\u0000 B"})").get()).value())
                      .get()),
        R"({"email":"a@b.example","name":"A B"})");
    EXPECT_EQ(dump_json(customer_facts(read_customer(json(R"({"id":"cus_1","email":null})").get()).value()).get()),
              "{}");
    const auto changed = [](const std::string& previous) {
        const auto out =
            read_effect(json(R"({"id":"evt_1","object":"event","type":"customer.updated","data":{"object":)"
                             R"({"id":"cus_1","object":"customer"},"previous_attributes":)" +
                             previous + "}}")
                            .get());
        return out.value().ignored;
    };
    EXPECT_EQ(changed(R"({"email":"old@b.example"})"), "");
    EXPECT_EQ(changed(R"({"name":null})"), "");
    EXPECT_EQ(changed("null"), "");
    EXPECT_EQ(changed(R"({"currency":null,"delinquent":false})"), "neither name nor email have changed");
    EXPECT_EQ(done("customer.deleted", R"({"id":"cus_1","object":"customer","deleted":true})"),
              R"(cus_1 '' look {"kind":"customer_deleted"})");
}

TEST(StripeEffect, ObjectsOfAnotherKindAreErrors) {
    for (const char* type : {"checkout.session.completed", "checkout.session.expired", "customer.subscription.updated",
                             "customer.subscription.trial_will_end", "invoice.paid", "customer.updated",
                             "customer.deleted", "charge.refunded", "refund.created", "charge.dispute.created"}) {
        EXPECT_FALSE(read(type, R"({"id":"p_1","object":"price","customer":"cus_1"})").ok()) << type;
        EXPECT_FALSE(read(type, "null").ok()) << type;
        EXPECT_FALSE(read(type, R"({"object":null})").ok()) << type;
        EXPECT_FALSE(read_effect(json(R"({"type":")" + std::string(type) + R"("})").get()).ok()) << type;
    }
}

std::string facts(const std::string& object) {
    const auto subscription = read_subscription(json(object).get());
    EXPECT_TRUE(subscription.ok());
    return subscription ? dump_json(subscription_facts(subscription.value()).get()) : std::string();
}

TEST(StripeEffect, SubscriptionsAreToldWithThePeriodsThatTheyHave) {
    EXPECT_EQ(facts(R"({"id":"sub_1","customer":"cus_1","status":"active","created":1690000000,"cancel_at":null,
        "items":{"data":[{"price":{"id":"price_meter"},"current_period_start":1699000000,"current_period_end":1730000000},
            {"price":{"id":"price_seat"},"quantity":5,"current_period_start":1700000000,
             "current_period_end":1702592000}]},"cancel_at_period_end":false,"trial_end":1695000000})"),
              R"({"id":"sub_1","customer":"cus_1","status":"active","items":[)"
              R"({"price":"price_meter","period_start":1699000000,"period_end":1730000000},)"
              R"({"price":"price_seat","period_start":1700000000,"period_end":1702592000}],)"
              R"("quantity":5,"trial_end":1695000000,"created":1690000000})");
    EXPECT_EQ(facts(R"({"id":"sub_2","customer":{"id":"cus_2"},"status":"canceled","ended_at":1601000000,
        "current_period_start":1600000000,"current_period_end":1602592000,"quantity":3,
        "plan":{"id":"plan_gold"},"cancel_at_period_end":true})"),
              R"({"id":"sub_2","customer":"cus_2","status":"canceled","items":[{"price":"plan_gold"}],"quantity":3,)"
              R"("period_start":1600000000,"period_end":1602592000,"cancel_at":1602592000,"ended_at":1601000000})");
    EXPECT_EQ(facts(R"({"id":"sub_4","status":"active","pause_collection":{"behavior":"void","resumes_at":null}})"),
              R"({"id":"sub_4","status":"active","items":[],"pause":"void"})");
    EXPECT_EQ(facts(R"({"id":"sub_3","livemode":false})"), R"({"id":"sub_3","items":[]})");
    EXPECT_EQ(facts(R"({"id":"sub_3","livemode":true})"), R"({"id":"sub_3","items":[],"livemode":true})");
}

} // namespace
} // namespace billing
