// Promise guarded: every stored event of Stripe takes effect exactly once and at last, whatever fails meanwhile:
// Stripe, PostgreSQL, this process; what cannot take effect is kept and said; nobody waits for another's trouble (W3,
// W4, W11).
#include "inbox_world.hpp"

namespace billing {
namespace {

using test::HttpAsk;
using test::Sql;

struct InboxTest : test::InboxWorld {};

TEST_F(InboxTest, StoresTheBytesThatCameOnce) {
    std::string bytes = "{\"a\":\"\\u0000 \xc3\xa4\\\\\"}\r\n";
    for (int byte = 0; byte < 256; ++byte)
        bytes += static_cast<char>(byte);
    EXPECT_EQ(put("evt_1", "customer.updated", "cus_1", bytes), Stored::stored);
    EXPECT_EQ(put("evt_1", "customer.updated", "cus_1", "other"), Stored::duplicate);
    NewEvent foreign;
    foreign.stripe_account = "acct_1";
    foreign.id = "evt_1";
    foreign.type = "customer.updated";
    foreign.ignored = "of a connected account";
    EXPECT_EQ(await(events->store(foreign, "{}")), Stored::stored) << "an event of its own";
    const auto claimed = await(queue->claim(8, 60));
    ASSERT_EQ(claimed.size(), 1U) << "what is to be ignored is not claimed";
    EXPECT_EQ(claimed[0].id, "evt_1");
    EXPECT_EQ(claimed[0].stripe_account, "");
    EXPECT_EQ(claimed[0].type, "customer.updated");
    EXPECT_EQ(claimed[0].livemode, false);
    EXPECT_EQ(claimed[0].attempt, 1);
    EXPECT_TRUE(claimed[0].payload == bytes);
    EXPECT_EQ(sql.ask("SELECT concat_ws(' ', stripe_account, status, last_error, api_version, livemode, customer_id, "
                      "stripe_created) FROM billing.webhook_events WHERE stripe_account <> ''"),
              "acct_1 ignored of a connected account");
    postgres->stop();
    EXPECT_EQ(await(events->store(foreign, "{}")), Stored::failed);
}

TEST_F(InboxTest, AnEventChangesItsAccountAndIsMarkedAsDone) {
    account("acct", "cus_1");
    stripe_says(list_of("cus_1"), page(subscription("sub_1")));
    work();
    changed("evt_1", "cus_1");
    ASSERT_TRUE(becomes("evt_1", "processed/0/0/1"));
    EXPECT_EQ(plan_of("acct"), "starter active none");
    EXPECT_EQ(credits_of("acct"), "20");
    EXPECT_EQ(logged("billing: event evt_1 customer.subscription.updated of account acct: free -> starter (active)"),
              1);
    const std::vector<HttpAsk> asked = stripe.asked();
    ASSERT_EQ(asked.size(), 1U);
    EXPECT_EQ(asked[0].method + " " + asked[0].target, "GET /v1/subscriptions?customer=cus_1&status=all&limit=100");
    changed("evt_2", "cus_1");
    ASSERT_TRUE(becomes("evt_2", "processed/0/0/1"));
    EXPECT_EQ(logged("billing: event evt_2 customer.subscription.updated of account acct: starter (active)"), 1);
    EXPECT_EQ(credits_of("acct"), "20");
    EXPECT_EQ(logged("cus_1"), 0);
}

TEST_F(InboxTest, ACheckoutOfOursLinksAndFillsItsAccount) {
    account("acct");
    stripe_says(list_of("cus_9"), page(subscription("sub_1", "price_pro")));
    work();
    const std::string type = "checkout.session.completed";
    const std::string whose = R"("client_reference_id":"acct","metadata":{"account":"acct"})";
    put("evt_1", type, "cus_9",
        payload("evt_1", type,
                R"({"id":"cs_1","object":"checkout.session","mode":"subscription","customer":"cus_9",)"
                R"("payment_status":"paid",)" +
                    whose + "}"));
    ASSERT_TRUE(becomes("evt_1", "processed/0/0/1"));
    EXPECT_EQ(plan_of("acct"), "pro active none");
    EXPECT_EQ(sql.ask("SELECT stripe_customer_id FROM billing.accounts"), "cus_9");
    const std::string pack =
        R"("client_reference_id":"acct","metadata":{"account":"acct","price":"price_pack","quantity":"2"})";
    for (const std::string id : {"evt_2", "evt_3"}) {
        put(id, type, "cus_9",
            payload(id, type,
                    R"({"id":"cs_2","mode":"payment","customer":"cus_9","payment_status":"paid",)" + pack + "}"));
        ASSERT_TRUE(becomes(id, "processed/0/0/1"));
    }
    EXPECT_EQ(credits_of("acct"), "70") << "50 of the plan, two packs of 10, once";
}

TEST_F(InboxTest, ThePaymentPolicyGoesWithEachEvent) {
    account("acct", "cus_1");
    stripe_says(list_of("cus_1"), page(subscription("sub_1", "price_starter", "past_due")));
    InboxSettings settings;
    settings.payment_policy = "maintenance";
    settings.grace_seconds = 86400;
    work(settings);
    const std::string type = "invoice.payment_failed";
    put("evt_1", type, "cus_1",
        payload("evt_1", type, R"({"id":"in_1","customer":"cus_1","subscription":"sub_1","attempt_count":1})"));
    ASSERT_TRUE(becomes("evt_1", "processed/0/0/1"));
    EXPECT_EQ(plan_of("acct"), "starter past_due payment");
    EXPECT_EQ(sql.ask("SELECT billing.unix(grace_until) FROM billing.accounts"), "1800086400");
}

TEST_F(InboxTest, AllPagesAndAllItemsAreRead) {
    account("acct", "cus_1");
    std::string cut = subscription("sub_2", "price_other");
    cut.replace(cut.find(R"("items":{)"), 9, R"("items":{"has_more":true,)");
    stripe_says(list_of("cus_1"), page(subscription("sub_1", "price_other", "canceled"), true));
    stripe_says(list_of("cus_1") + "status=all&limit=100&starting_after=sub_1", page(cut));
    stripe_says("/v1/subscription_items?subscription=sub_2&limit=100",
                page(R"({"id":"si_1","price":{"id":"price_other"}})", true));
    stripe_says("/v1/subscription_items?subscription=sub_2&limit=100&starting_after=si_1",
                page(R"({"id":"si_2","price":{"id":"price_pro"},"current_period_end":1802592000})"));
    work();
    changed("evt_1", "cus_1");
    ASSERT_TRUE(becomes("evt_1", "processed/0/0/1"));
    EXPECT_EQ(plan_of("acct"), "pro active none");
    EXPECT_EQ(sql.ask("SELECT string_agg(subscription_id || array_to_string(prices, '+'), ' ' ORDER BY 1) "
                      "FROM billing.subscriptions"),
              "sub_1price_other sub_2price_other+price_pro");
    EXPECT_EQ(stripe.requests(), 4);
}

TEST_F(InboxTest, AListWithoutAnEndIsAFailureThatCounts) {
    account("acct", "cus_1");
    stripe_says(list_of("cus_1"), page(subscription("sub_1"), true));
    work();
    changed("evt_1", "cus_1");
    ASSERT_TRUE(becomes("evt_1", "received/1/0/1"));
    EXPECT_EQ(stripe.requests(), 50);
    EXPECT_EQ(error_of("evt_1"), "/v1/subscriptions has more than 50 pages");
    EXPECT_EQ(plan_of("acct"), "free active none");
}

TEST_F(InboxTest, StripesOutagesUseNoTryUp) {
    account("acct", "cus_1");
    stripe_says(list_of("cus_1"), R"({"error":{"type":"api_error"}})", 500);
    work();
    changed("evt_1", "cus_1");
    ASSERT_TRUE(becomes("evt_1", "received/0/1/1"));
    EXPECT_EQ(error_of("evt_1"), "Stripe: HTTP 500 api_error, request req_7");
    EXPECT_EQ(sql.ask("SELECT next_attempt_at BETWEEN now() + interval '2 s' AND now() + interval '7 s' "
                      "FROM billing.webhook_events"),
              "t");
    due("evt_1");
    ASSERT_TRUE(becomes("evt_1", "received/0/2/2"));
    stripe_says(list_of("cus_1"), page(subscription("sub_1")));
    due("evt_1");
    ASSERT_TRUE(becomes("evt_1", "processed/0/2/3"));
    EXPECT_EQ(plan_of("acct"), "starter active none");
}

TEST_F(InboxTest, AKeyThatIsRefusedUsesNoTryUpAndIsSaidOnce) {
    account("acct", "cus_1");
    stripe_says(list_of("cus_1"), R"({"error":{"type":"invalid_request_error"}})", 401);
    work();
    changed("evt_1", "cus_1");
    ASSERT_TRUE(becomes("evt_1", "received/0/1/1"));
    due("evt_1");
    ASSERT_TRUE(becomes("evt_1", "received/0/2/2"));
    EXPECT_EQ(logged("Stripe does not let the secret key read what events are about"), 1);
    EXPECT_EQ(logged("topsecret"), 0);
}

TEST_F(InboxTest, WhatStripeRefusesAndWhatCannotBeReadCountsAndDies) {
    account("acct", "cus_1");
    stripe_says(list_of("cus_1"), R"({"error":{"type":"invalid_request_error","code":"parameter_unknown"}})", 400);
    work();
    changed("evt_1", "cus_1");
    ASSERT_TRUE(becomes("evt_1", "received/1/0/1"));
    stripe_says(list_of("cus_1"), page("{}"));
    due("evt_1");
    ASSERT_TRUE(becomes("evt_1", "received/2/0/2"));
    EXPECT_EQ(error_of("evt_1"), "Stripe's answer cannot be read: subscription: it has no id");
    put("evt_2", "customer.updated", "cus_2", R"({"type":"customer.updated","data":{}})");
    ASSERT_TRUE(becomes("evt_2", "received/1/0/1"));
    EXPECT_EQ(error_of("evt_2"), "customer: not an object");
    put("evt_3", "customer.updated", "cus_3", R"({"a":1,"a":2})");
    ASSERT_TRUE(becomes("evt_3", "received/1/0/1"));
    for (int attempt = 2; attempt < 5; ++attempt) {
        due("evt_3");
        ASSERT_TRUE(becomes("evt_3", "received/" + std::to_string(attempt) + "/0/" + std::to_string(attempt)));
    }
    due("evt_3");
    ASSERT_TRUE(becomes("evt_3", "dead/5/0/5"));
    EXPECT_EQ(logged("billing: event evt_3 customer.updated: given up after its last try: line 1, column"), 1);
}

TEST_F(InboxTest, ACustomerThatStripeDoesNotKnowHasNoSubscriptions) {
    account("acct", "cus_1");
    stripe_says(list_of("cus_1"),
                R"({"error":{"type":"invalid_request_error","code":"resource_missing","param":"customer"}})", 400);
    work();
    const std::string type = "customer.deleted";
    put("evt_1", type, "cus_1", payload("evt_1", type, R"({"id":"cus_1","object":"customer","deleted":true})"));
    ASSERT_TRUE(becomes("evt_1", "processed/0/0/1"));
    EXPECT_EQ(sql.ask("SELECT stripe_customer_id FROM billing.accounts"), "");
}

TEST_F(InboxTest, EventsOfUnknownCustomersWaitForTheLink) {
    account("acct");
    stripe_says(list_of("cus_1"), page(subscription("sub_1")));
    work();
    changed("evt_1", "cus_1");
    ASSERT_TRUE(becomes("evt_1", "parked/0/0/1"));
    EXPECT_EQ(stripe.requests(), 0);
    EXPECT_EQ(logged("billing: event evt_1 customer.subscription.updated: parked, unknown customer"), 1);
    link("acct", "cus_1");
    wake.set();
    ASSERT_TRUE(becomes("evt_1", "processed/0/0/2"));
    EXPECT_EQ(plan_of("acct"), "starter active none");
}

TEST_F(InboxTest, WhatBelongsToAnotherAccountIsParkedAndSaid) {
    account("acct", "cus_1");
    account("other", "cus_2");
    stripe_says(list_of("cus_1"), page(subscription("sub_1")));
    stripe_says(list_of("cus_2"), page(subscription("sub_1")));
    work();
    changed("evt_1", "cus_1");
    ASSERT_TRUE(becomes("evt_1", "processed/0/0/1"));
    changed("evt_2", "cus_2");
    ASSERT_TRUE(becomes("evt_2", "parked/0/0/1"));
    EXPECT_EQ(error_of("evt_2"), "subscription sub_1 belongs to another account");
    const std::string type = "checkout.session.completed";
    put("evt_3", type, "cus_2",
        payload("evt_3", type,
                R"({"id":"cs_1","mode":"payment","customer":"cus_2","payment_status":"paid",)"
                R"("client_reference_id":"acct","metadata":{"account":"acct","price":"price_pack"}})"));
    ASSERT_TRUE(becomes("evt_3", "parked/0/0/1"));
    EXPECT_EQ(logged("evt_3 checkout.session.completed: parked, its checkout names account acct"), 1);
    EXPECT_EQ(plan_of("other"), "free active none");
    EXPECT_EQ(credits_of("acct"), "20");
    EXPECT_EQ(sql.ask("SELECT count(*) FROM billing.outbox WHERE topic = 'alarm' AND payload ->> 'alarm' = "
                      "'event_parked'"),
              "2");
}

TEST_F(InboxTest, WhatIsNotOursIsIgnored) {
    work();
    put("evt_1", "charge.captured", "cus_1", payload("evt_1", "charge.captured", "{}"));
    ASSERT_TRUE(becomes("evt_1", "ignored/0/0/1"));
    sql.ask("SELECT billing.stripe_event_store('', 'evt_2', 'customer.updated', '', true, 1, 'cus_1', '{}', NULL)");
    sql.ask(
        "SELECT billing.stripe_event_store('acct_1', 'evt_3', 'customer.updated', '', false, 1, 'cus_1', '{}', NULL)");
    ASSERT_TRUE(becomes("evt_2", "ignored/0/0/1"));
    ASSERT_TRUE(becomes("evt_3", "ignored/0/0/1"));
    EXPECT_EQ(error_of("evt_2"), "a live event, and the key is a test one");
    EXPECT_EQ(logged("billing: event evt_3 customer.updated: ignored, it belongs to a connected account"), 1);
}

TEST_F(InboxTest, TwoEventsOfOneCustomerFollowEachOtherAtOnce) {
    account("acct", "cus_1");
    stripe_says(list_of("cus_1"), page(subscription("sub_1")));
    changed("evt_1", "cus_1");
    changed("evt_2", "cus_1");
    work();
    const std::int64_t begin = reactor.now_ms();
    ASSERT_TRUE(becomes("evt_1", "processed/0/0/1"));
    ASSERT_TRUE(becomes("evt_2", "processed/0/0/1"));
    EXPECT_LT(reactor.now_ms() - begin, 900) << "not only with the next round";
    EXPECT_EQ(stripe.most_at_once(), 1);
    EXPECT_EQ(sql.ask("SELECT fetch_seq || ' ' || applied_seq FROM billing.accounts"), "2 2");
}

TEST_F(InboxTest, ASlowAnswerHoldsUpNobodyElse) {
    work();
    for (int n = 0; n < 8; ++n) {
        const std::string number = std::to_string(n);
        account("acct" + number, "cus_" + number);
        stripe_says(list_of("cus_" + number), page(subscription("sub_" + number)), 200, n < 7);
        changed("evt_" + number, "cus_" + number);
    }
    ASSERT_TRUE(until([&] { return stripe.at_gate() == 7; }));
    ASSERT_TRUE(until([&] { return state_of("evt_7") == "processed/0/0/1"; })) << "the slot that is left";
    EXPECT_FALSE(inbox->idle());
    for (const std::string more : {"evt_8", "evt_9"})
        changed(more, "cus_7");
    ASSERT_TRUE(until([&] { return state_of("evt_9") == "processed/0/0/1"; }));
    stripe.open_gate();
    for (int n = 0; n < 7; ++n)
        ASSERT_TRUE(becomes("evt_" + std::to_string(n), "processed/0/0/1"));
    EXPECT_TRUE(inbox->idle());
}

TEST_F(InboxTest, AnAccountThatSomebodyHoldsHoldsUpNobodyElse) {
    account("held", "cus_1");
    account("free", "cus_2");
    for (const std::string customer : {"cus_1", "cus_2"})
        stripe_says(list_of(customer), page(subscription("sub_of_" + customer)));
    Sql holder(server.conninfo() + " dbname=" + database);
    holder.ask("BEGIN; UPDATE billing.accounts SET name = 'x' WHERE external_id = 'held'");
    work();
    changed("evt_1", "cus_1");
    changed("evt_2", "cus_2");
    ASSERT_TRUE(until([&] { return state_of("evt_2") == "processed/0/0/1"; }, 5000));
    ASSERT_TRUE(becomes("evt_1", "received/0/1/1"));
    holder.ask("COMMIT");
    due("evt_1");
    ASSERT_TRUE(becomes("evt_1", "processed/0/1/2"));
}

TEST_F(InboxTest, WhoLostItsLeaseChangesNothing) {
    account("acct", "cus_1");
    stripe_says(list_of("cus_1"), page(subscription("sub_1")), 200, true);
    work();
    changed("evt_1", "cus_1");
    ASSERT_TRUE(until([&] { return stripe.at_gate() == 1; }));
    reactor.leave(); // so that this one does not claim it again
    due("evt_1");
    EXPECT_EQ(sql.ask("SELECT attempt FROM billing.stripe_event_claim(8, '1 min')"), "2");
    stripe.open_gate();
    ASSERT_TRUE(until([&] { return inbox->idle(); }));
    EXPECT_EQ(state_of("evt_1"), "processing/0/0/2") << "it belongs to the other";
    EXPECT_EQ(plan_of("acct"), "free active none");
    EXPECT_EQ(sql.ask("SELECT count(*) FROM billing.subscriptions"), "0");
    EXPECT_EQ(logged("billing: event evt_1 customer.subscription.updated: the lease was over, it is in other hands"),
              1);
}

TEST_F(InboxTest, WhatADeadProcessHadInWorkIsDoneOnceByTheNext) {
    account("acct", "cus_1");
    stripe_says(list_of("cus_1"), page(subscription("sub_1")), 200, true);
    work();
    changed("evt_1", "cus_1");
    ASSERT_TRUE(until([&] { return stripe.at_gate() == 1; }));
    scope->cancel();
    inbox.reset();
    EXPECT_EQ(state_of("evt_1"), "processing/0/0/1");
    scope = std::make_unique<Scope>(reactor);
    stripe.open_gate();
    due("evt_1"); // the lease is over
    work();
    ASSERT_TRUE(becomes("evt_1", "processed/0/0/2"));
    EXPECT_EQ(credits_of("acct"), "20");
}

TEST_F(InboxTest, WhoIsLeavingFinishesAndBeginsNothing) {
    account("acct", "cus_1");
    stripe_says(list_of("cus_1"), page(subscription("sub_1")), 200, true);
    work();
    changed("evt_1", "cus_1");
    ASSERT_TRUE(until([&] { return stripe.at_gate() == 1; }));
    EXPECT_GE(reactor.foreground_timers(), 1U) << "what is in work is waited for";
    reactor.leave();
    changed("evt_2", "cus_2");
    stripe.open_gate();
    ASSERT_TRUE(becomes("evt_1", "processed/0/0/1"));
    until([] { return false; }, 1200); // longer than a round
    EXPECT_EQ(state_of("evt_2"), "received/0/0/0");
    EXPECT_EQ(reactor.foreground_timers(), 0U);
}

TEST_F(InboxTest, PostgresThatDiesBeforeTheEndUsesNoTryUp) {
    account("acct", "cus_1");
    stripe_says(list_of("cus_1"), page(subscription("sub_1")), 200, true);
    work();
    changed("evt_1", "cus_1");
    ASSERT_TRUE(until([&] { return stripe.at_gate() == 1; }));
    sql.close();
    server.kill9();
    stripe.open_gate();
    settle();
    server.start();
    ASSERT_TRUE(becomes("evt_1", "received/0/1/1"));
    due("evt_1");
    ASSERT_TRUE(becomes("evt_1", "processed/0/1/2"));
    EXPECT_EQ(plan_of("acct"), "starter active none");
}

} // namespace
} // namespace billing
