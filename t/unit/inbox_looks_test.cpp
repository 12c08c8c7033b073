// Promise guarded: what an event is about counts as Stripe has it when the event is worked off: refunds, disputes,
// customers and entitlements, all pages of them, under a ticket; whose they are is found where the event does not say
// it; and the log tells of it without a word of what Stripe has sent (W3, W4, W10, O7).
#include "inbox_world.hpp"

namespace billing {
namespace {

struct InboxLooksTest : test::InboxWorld {
    static std::string refund_event(const std::string& id) {
        return payload(id, "refund.created",
                       R"({"id":"re_1","object":"refund","charge":"ch_1","payment_intent":"pi_1","amount":500})");
    }
    void charge_is(const std::string& customer) {
        stripe_says("/v1/charges/ch_1", R"({"id":"ch_1","object":"charge","customer":)" + customer +
                                            R"(,"payment_intent":"pi_1","amount":1000,"currency":"usd"})");
    }
    void pack(const std::string& name, const std::string& customer) {
        account(name, customer);
        stripe_says(list_of(customer), page(""));
        const std::string type = "checkout.session.completed";
        put("evt_pack", type, customer,
            payload("evt_pack", type,
                    R"({"id":"cs_1","mode":"payment","payment_status":"paid","payment_intent":"pi_1","customer":")" +
                        customer + R"(","client_reference_id":")" + name + R"(","metadata":{"account":")" + name +
                        R"(","price":"price_pack"}})"));
        ASSERT_TRUE(becomes("evt_pack", "processed/0/0/1"));
        ASSERT_EQ(credits_of(name), "14");
    }
    const std::string refunds = "/v1/refunds?charge=ch_1&limit=100";
    static std::string refund(const std::string& id, int amount, const std::string& status = "succeeded") {
        return R"({"id":")" + id + R"(","object":"refund","charge":"ch_1","amount":)" + std::to_string(amount) +
               R"(,"status":")" + status + R"("})";
    }
};

TEST_F(InboxLooksTest, ARefundIsFoundByItsPaymentAndCountsAsStripeHasIt) {
    work();
    pack("acct", "cus_1");
    charge_is(R"("cus_1")");
    stripe_says(refunds, page(refund("re_1", 500), true));
    stripe_says(refunds + "&starting_after=re_1", page(refund("re_2", 200)));
    put("evt_1", "refund.created", "", refund_event("evt_1"));
    ASSERT_TRUE(becomes("evt_1", "processed/0/0/1"));
    EXPECT_EQ(credits_of("acct"), "7") << "all pages: 7 of 10, though the event tells of 5";
    put("evt_2", "charge.refunded", "cus_1",
        payload("evt_2", "charge.refunded",
                R"({"id":"ch_1","object":"charge","customer":"cus_1","payment_intent":"pi_1","amount_refunded":500})"));
    ASSERT_TRUE(becomes("evt_2", "processed/0/0/1"));
    EXPECT_EQ(credits_of("acct"), "7") << "the other event about it";
    EXPECT_EQ(logged("billing: event evt_1 refund.created of account acct: free (active)"), 1);
    EXPECT_EQ(logged("ch_1") + logged("re_1") + logged("pi_1"), 0);
}

TEST_F(InboxLooksTest, WhoseItIsIsAskedForWhereNobodyKnowsThePayment) {
    account("acct", "cus_1");
    charge_is(R"({"id":"cus_1","object":"customer"})");
    stripe_says(refunds, page(refund("re_1", 500)));
    work();
    put("evt_1", "refund.created", "", refund_event("evt_1"));
    ASSERT_TRUE(becomes("evt_1", "processed/0/0/1"));
    EXPECT_EQ(
        sql.ask("SELECT string_agg(charge_id || ' ' || r.amount, ' ') FROM billing.refunds r JOIN billing.charges "
                "USING (charge_id)"),
        "ch_1 500");
    stripe_says("/v1/invoice_payments?payment[type]=payment_intent&payment[payment_intent]=pi_1&limit=100",
                page(R"({"id":"inpay_1","object":"invoice_payment","invoice":"in_1"})"));
    stripe_says(refunds, page(refund("re_1", 500) + "," + refund("re_2", 100)));
    put("evt_1b", "refund.created", "", refund_event("evt_1b"));
    ASSERT_TRUE(becomes("evt_1b", "processed/0/0/1"));
    EXPECT_EQ(sql.ask("SELECT string_agg(coalesce(invoice_id, '-') || ' ' || amount, ', ' ORDER BY id) FROM "
                      "billing.audit_log WHERE action = 'payment.refunded'"),
              "- 500, in_1 100")
        << "the invoice is told where the key may know it";
    charge_is(R"("cus_2")");
    put("evt_2", "refund.created", "",
        payload("evt_2", "refund.created", R"({"id":"re_1","charge":"ch_1","payment_intent":"pi_other"})"));
    ASSERT_TRUE(becomes("evt_2", "parked/0/0/1"));
    account("late");
    link("late", "cus_2");
    wake.set();
    ASSERT_TRUE(becomes("evt_2", "parked/0/0/2")) << "released by the link, yet the charge is another account's";
    charge_is("null");
    put("evt_3", "refund.created", "",
        payload("evt_3", "refund.created", R"({"id":"re_1","charge":"ch_1","payment_intent":"pi_other"})"));
    ASSERT_TRUE(becomes("evt_3", "ignored/0/0/1"));
    EXPECT_EQ(error_of("evt_3"), "a payment of nobody");
}

TEST_F(InboxLooksTest, ADisputeHoldsAsConfigured) {
    InboxSettings settings;
    settings.dispute_policy = "maintenance";
    work(settings);
    pack("acct", "cus_1");
    charge_is(R"("cus_1")");
    const std::string dispute =
        R"({"id":"du_1","object":"dispute","charge":"ch_1","payment_intent":"pi_1","amount":1000,)";
    for (const std::string status : {"needs_response", "lost"}) {
        const std::string type = status == "lost" ? "charge.dispute.closed" : "charge.dispute.created";
        stripe_says("/v1/disputes/du_1", dispute + R"("status":")" + status + R"("})");
        put("evt_" + status, type, "", payload("evt_" + status, type, dispute + R"("status":"unread"})"));
        ASSERT_TRUE(becomes("evt_" + status, "processed/0/0/1"));
        EXPECT_EQ(plan_of("acct"), "free active payment");
        EXPECT_EQ(credits_of("acct"), status == "lost" ? "4" : "14");
    }
}

TEST_F(InboxLooksTest, AllPagesOfEntitlementsAreRead) {
    account("acct", "cus_1");
    sql.ask("INSERT INTO billing.features SELECT n, 'f' || n FROM generate_series(0, 12) n");
    std::string first;
    for (int n = 0; n < 12; ++n)
        first += (n == 0 ? "" : ",") + std::string(R"({"id":"ent_)") + std::to_string(n) + R"(","lookup_key":"f)" +
                 std::to_string(n) + R"("})";
    const std::string list = "/v1/entitlements/active_entitlements?customer=cus_1&limit=100";
    stripe_says(list, page(first, true));
    stripe_says(list + "&starting_after=ent_11", page(R"({"id":"ent_x","lookup_key":"f12"},{"id":"ent_y"})"));
    work();
    const std::string type = "entitlements.active_entitlement_summary.updated";
    const std::string event =
        R"({"object":"entitlements.active_entitlement_summary","customer":"cus_1","entitlements":{"data":[],"has_more":true}})";
    put("evt_1", type, "cus_1", payload("evt_1", type, event));
    ASSERT_TRUE(becomes("evt_1", "processed/0/0/1"));
    EXPECT_EQ(sql.ask("SELECT count(*) FROM billing.account_features WHERE enabled AND source = 'stripe'"), "13");
    stripe_says(list, R"({"error":{"type":"invalid_request_error","code":"resource_missing","param":"customer"}})",
                400);
    put("evt_2", type, "cus_1", payload("evt_2", type, event));
    ASSERT_TRUE(becomes("evt_2", "processed/0/0/1"));
    EXPECT_EQ(sql.ask("SELECT count(*) FROM billing.account_features"), "0") << "a customer that is no more has none";
}

TEST_F(InboxLooksTest, AllLinesOfAnInvoiceAreRead) {
    account("acct", "cus_1");
    stripe_says(list_of("cus_1"), page(subscription("sub_1")));
    const std::string lines = "/v1/invoices/in_1/lines?limit=100";
    const std::string other =
        R"({"id":"il_1","period":{"start":1800000000,"end":1831536000},"pricing":{"price_details":{"price":"price_other"}},)"
        R"("parent":{"type":"subscription_item_details","subscription_item_details":{"subscription":"sub_1"}}})";
    const std::string plan =
        R"({"id":"il_2","period":{"start":1800000000,"end":1802592000},"pricing":{"price_details":{"price":"price_starter"}},)"
        R"("parent":{"type":"subscription_item_details","subscription_item_details":{"subscription":"sub_1"}}})";
    stripe_says(lines, "{}", 503);
    work();
    const std::string type = "invoice.paid";
    put("evt_1", type, "cus_1",
        payload(
            "evt_1", type,
            R"({"id":"in_1","object":"invoice","customer":"cus_1","billing_reason":"subscription_cycle","status":"paid",)"
            R"("parent":{"type":"subscription_details","subscription_details":{"subscription":"sub_1"}},)"
            R"("lines":{"has_more":true,"data":[)" +
                other + "]}}"));
    ASSERT_TRUE(becomes("evt_1", "received/0/1/1")) << "Stripe could not be reached: no try is used up";
    stripe_says(lines, page(other, true));
    stripe_says(lines + "&starting_after=il_1", page(plan));
    due("evt_1");
    ASSERT_TRUE(becomes("evt_1", "processed/0/1/2"));
    EXPECT_EQ(sql.ask("SELECT billing.unix(period_end) FROM billing.invoices WHERE invoice_id = 'in_1'"), "1802592000")
        << "of the plan's line";
}

TEST_F(InboxLooksTest, ACustomerIsTakenAsItIsNow) {
    account("acct", "cus_1");
    stripe_says("/v1/customers/cus_1", R"({"id":"cus_1","object":"customer","email":"now@b.example","name":"Now"})");
    work();
    const std::string type = "customer.updated";
    put("evt_1", type, "cus_1",
        payload("evt_1", type, R"({"id":"cus_1","object":"customer","email":"then@b.example","name":"Then"})"));
    ASSERT_TRUE(becomes("evt_1", "processed/0/0/1"));
    EXPECT_EQ(sql.ask("SELECT email || ' ' || name FROM billing.accounts"), "now@b.example Now");
    EXPECT_EQ(logged("example"), 0) << "the log names no person";
}

TEST_F(InboxLooksTest, WhatCannotBeLookedAtIsTriedAgain) {
    work();
    pack("acct", "cus_1");
    stripe_says("/v1/charges/ch_1", R"({"error":{"type":"api_error"}})", 500);
    put("evt_1", "refund.created", "", refund_event("evt_1"));
    ASSERT_TRUE(becomes("evt_1", "received/0/1/1"));
    stripe_says("/v1/charges/ch_1", R"({"error":{"type":"invalid_request_error"}})", 403);
    due("evt_1");
    ASSERT_TRUE(becomes("evt_1", "received/0/2/2"));
    EXPECT_EQ(logged("to read customers, subscriptions, invoices, charges, disputes and entitlements"), 1);
    charge_is(R"("cus_1")");
    stripe_says(refunds, page("{}"));
    due("evt_1");
    ASSERT_TRUE(becomes("evt_1", "received/1/0/3"));
    EXPECT_EQ(error_of("evt_1"), "Stripe's answer cannot be read: refund: it has no id");
    stripe_says(refunds, page(refund("re_1", 1000)));
    due("evt_1");
    ASSERT_TRUE(becomes("evt_1", "processed/1/0/4"));
    EXPECT_EQ(credits_of("acct"), "4");
    put("evt_2", "refund.created", "",
        payload("evt_2", "refund.created", R"({"id":"re_1","charge":"../events","payment_intent":"pi_1"})"));
    ASSERT_TRUE(becomes("evt_2", "received/1/0/1")) << "an id that is none is not asked for";
}

TEST_F(InboxLooksTest, NothingIsAskedAboutACustomerThatIsGone) {
    account("acct", "cus_1");
    sql.ask("SELECT billing.customer_unlink('acct', 'cus_1'); SELECT billing.customer_link('acct', 'cus_2')");
    work();
    changed("evt_1", "cus_1");
    ASSERT_TRUE(becomes("evt_1", "processed/0/0/1"));
    const std::string type = "customer.updated";
    put("evt_2", type, "cus_1", payload("evt_2", type, R"({"id":"cus_1","object":"customer","email":"a@b.example"})"));
    ASSERT_TRUE(becomes("evt_2", "processed/0/0/1"));
    EXPECT_EQ(stripe.requests(), 0);
    EXPECT_EQ(sql.ask("SELECT coalesce(email, 'none') || ' ' || applied_seq FROM billing.accounts"), "none 0");
}

} // namespace
} // namespace billing
