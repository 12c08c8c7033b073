// Promise guarded: an invoice leads to its subscription, price and service period in every layout, and prorations,
// one-off items and metered lines are not taken for the plan's line (W8, W9, W11).
#include <gtest/gtest.h>

#include <string>

#include "stripe/event.hpp"
#include "stripe/objects.hpp"

namespace billing {
namespace {

StripeInvoice invoice(const std::string& text) {
    const auto object = parse_payload(text);
    EXPECT_TRUE(object.ok()) << text;
    auto out = read_invoice(object ? object.value().get() : nullptr);
    EXPECT_TRUE(out.ok());
    return out ? std::move(out).value() : StripeInvoice();
}

// The old places are there and null, as Stripe does it.
const std::string k_new = R"({"id":"in_1","object":"invoice","customer":"cus_1","subscription":null,"status":"paid",
    "billing_reason":"subscription_cycle","attempt_count":1,"next_payment_attempt":null,"amount_paid":7900,"amount_due":7900,
    "currency":"usd","livemode":true,"period_start":1697000000,"period_end":1700000000,
    "parent":{"type":"subscription_details","quote_details":null,
        "subscription_details":{"subscription":"sub_1","metadata":{"userId":"acct-1"}}},
    "payments":{"object":"list","data":[
        {"status":"canceled","payment":{"type":"payment_intent","payment_intent":"pi_0"}},
        {"status":"paid","payment":{"type":"payment_intent","payment_intent":{"id":"pi_1"},"charge":"ch_1"}}]},
    "lines":{"has_more":true,"data":[
        {"amount":-300,"period":{"start":1699500000,"end":1702592000},"subscription":null,
         "parent":{"type":"subscription_item_details","subscription_item_details":{"proration":true,"subscription":"sub_1"}},
         "pricing":{"type":"price_details","price_details":{"price":"price_old"}}},
        {"amount":100,"period":{"start":1697000000,"end":1700000000},
         "parent":{"type":"subscription_item_details","subscription_item_details":{"proration":false,"subscription":"sub_1"}},
         "pricing":{"price_details":{"price":"price_meter"}}},
        {"amount":7900,"quantity":1,"period":{"start":1700000000,"end":1702592000},
         "parent":{"type":"subscription_item_details","invoice_item_details":null,
             "subscription_item_details":{"proration":false,"subscription":"sub_1","subscription_item":"si_1"}},
         "pricing":{"price_details":{"price":{"id":"price_pro"}}}},
        {"amount":500,"period":{"start":1700000000,"end":1800000000},
         "parent":{"type":"invoice_item_details","invoice_item_details":{"proration":false,"subscription":null}},
         "pricing":{"price_details":{"price":"price_setup"}}}]}})";

const std::string k_old =
    R"({"id":"in_2","object":"invoice","customer":{"id":"cus_2"},"subscription":"sub_2","paid":true,
    "status":"open","billing_reason":"subscription_update","attempt_count":2,"next_payment_attempt":1601000000,
    "amount_paid":0,"amount_due":2000,"currency":"eur","payment_intent":"pi_2","charge":{"id":"ch_2"},
    "subscription_details":{"metadata":{"userId":"acct-2"}},
    "lines":{"data":[
        {"type":"invoiceitem","proration":true,"period":{"start":1600000000,"end":1602000000},"price":{"id":"price_a"}},
        {"type":"invoiceitem","proration":false,"period":{"start":1600000000,"end":1609000000},"price":{"id":"price_s"}},
        {"type":"subscription","proration":false,"subscription":"sub_2","period":{"start":1600000000,"end":1602592000},
         "plan":{"id":"plan_gold"},"price":null,"amount":2000,"quantity":4}]}})";

TEST(StripeInvoice, NewLayout) {
    const StripeInvoice out = invoice(k_new);
    EXPECT_EQ(out.id, "in_1");
    EXPECT_EQ(out.customer, "cus_1");
    EXPECT_EQ(out.subscription, "sub_1");
    EXPECT_EQ(out.billing_reason, "subscription_cycle");
    EXPECT_EQ(out.status, "paid");
    EXPECT_TRUE(out.paid);
    EXPECT_EQ(out.attempt_count, 1);
    EXPECT_FALSE(out.next_payment_attempt.has_value());
    EXPECT_EQ(out.amount_paid, 7900);
    EXPECT_EQ(out.currency, "usd");
    EXPECT_EQ(out.payment_intent, "pi_1") << "the payment which went through";
    EXPECT_EQ(out.charge, "ch_1");
    EXPECT_EQ(out.livemode, true);
    EXPECT_EQ(out.subscription_metadata.find("userId"), "acct-1");
    ASSERT_EQ(out.lines.size(), 4U);
    EXPECT_TRUE(out.more_lines);
    const StripeInvoiceLine* const line = out.service_line();
    ASSERT_NE(line, nullptr);
    EXPECT_EQ(line->price, "price_pro");
    EXPECT_EQ(line->period.start, 1700000000) << "not the invoice's own period, which is the last one";
    EXPECT_EQ(line->period.end, 1702592000);
    EXPECT_EQ(line->quantity, 1);
    EXPECT_EQ(out.service_line("price_meter")->period.end, 1700000000);
    EXPECT_EQ(out.service_line("price_old"), nullptr);
    EXPECT_EQ(out.service_line("price_setup"), nullptr);
    EXPECT_TRUE(out.lines[0].proration);
    EXPECT_EQ(out.lines[0].amount, -300);
    EXPECT_FALSE(out.lines[3].of_subscription);
}

TEST(StripeInvoice, OldLayout) {
    const StripeInvoice out = invoice(k_old);
    EXPECT_EQ(out.customer, "cus_2");
    EXPECT_EQ(out.subscription, "sub_2");
    EXPECT_FALSE(out.paid) << "status decides";
    EXPECT_EQ(out.attempt_count, 2);
    EXPECT_EQ(out.next_payment_attempt, 1601000000);
    EXPECT_EQ(out.amount_due, 2000);
    EXPECT_EQ(out.payment_intent, "pi_2");
    EXPECT_EQ(out.charge, "ch_2");
    EXPECT_EQ(out.subscription_metadata.find("userId"), "acct-2");
    const StripeInvoiceLine* const line = out.service_line();
    ASSERT_NE(line, nullptr);
    EXPECT_EQ(line->price, "plan_gold");
    EXPECT_EQ(line->period.end, 1602592000);
    EXPECT_EQ(line->subscription, "sub_2");
    EXPECT_EQ(out.lines[0].price, "price_a");
    EXPECT_TRUE(out.lines[0].proration);
    EXPECT_FALSE(out.more_lines);
    EXPECT_TRUE(invoice(R"({"id":"in_3","paid":true})").paid) << "before there was a status";
}

TEST(StripeInvoice, SubscriptionIsFoundWhereverItIs) {
    const struct {
        const char* text;
        const char* subscription;
    } cases[] = {
        {R"({"id":"i","subscription":{"id":"sub_x","object":"subscription"}})", "sub_x"},
        {R"({"id":"i","parent":{"type":"subscription_details","subscription_details":{"subscription":{"id":"sub_x"}}}})",
         "sub_x"},
        {R"({"id":"i","parent":{"subscription_details":{"subscription":"sub_x"}},"subscription":"sub_y"})", "sub_x"},
        {R"({"id":"i","parent":null,"subscription":"sub_x"})", "sub_x"},
        {R"({"id":"i","parent":{"type":"subscription_details","subscription_details":null},"subscription":"sub_x"})",
         "sub_x"},
        {R"({"id":"i","parent":{"type":"quote_details","quote_details":{"quote":"qt_1"},"subscription_details":{"subscription":"s"}}})",
         ""},
        {R"({"id":"i","lines":{"data":[{"subscription":null},{"subscription":"sub_x"}]}})", "sub_x"},
        {R"({"id":"i","lines":{"data":[{"parent":{"type":"subscription_item_details",
            "subscription_item_details":{"subscription":"sub_x"}}}]}})",
         "sub_x"},
        {R"({"id":"i","lines":{"data":[{"parent":{"type":"invoice_item_details","invoice_item_details":{"subscription":null},
            "subscription_item_details":{"subscription":"stray"}}}]}})",
         ""},
        {R"({"id":"i","billing_reason":"manual"})", ""},
    };
    for (const auto& one : cases)
        EXPECT_EQ(invoice(one.text).subscription, one.subscription) << one.text;
}

TEST(StripeInvoice, FirstPaymentStandsWhenNoneWentThrough) {
    const StripeInvoice out = invoice(R"({"id":"i","status":"open","payments":{"data":[
        {"status":"open","payment":{"type":"payment_intent","payment_intent":"pi_1"}},
        {"status":"open","payment":{"type":"payment_intent","payment_intent":"pi_2"}}]}})");
    EXPECT_EQ(out.payment_intent, "pi_1");
}

TEST(StripeInvoice, UpcomingHasNoIdAndSenselessFieldsAreAbsent) {
    const StripeInvoice out =
        invoice(R"({"object":"invoice","attempt_count":"x","next_payment_attempt":0,"amount_due":1.5,
        "lines":{"data":[7,{"period":null,"proration":"true"},{"period":{"start":0,"end":0}}]},"payments":[],"parent":[]})");
    EXPECT_EQ(out.id, "");
    EXPECT_EQ(out.attempt_count, 0);
    EXPECT_EQ(out.amount_due, 0);
    EXPECT_FALSE(out.next_payment_attempt.has_value());
    EXPECT_EQ(out.lines.size(), 2U);
    EXPECT_EQ(out.service_line(), nullptr);
}

} // namespace
} // namespace billing
