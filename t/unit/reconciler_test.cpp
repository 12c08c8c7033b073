// Promise guarded: a pass over Stripe's lists looks at those accounts, and only those, that are not as Stripe has them,
// over any number of pages; it ends when it is told to, and before it does harm with the key of another account (W12).
#include "inbox_world.hpp"
#include "jobs/importer.hpp"
#include "jobs/reconciler.hpp"

namespace billing {
namespace {

using test::HttpAsk;

struct ReconcilerTest : test::InboxWorld {
    static std::string sub(const std::string& id, const std::string& customer, int created,
                           const std::string& status = "active") {
        return R"({"id":")" + id + R"(","object":"subscription","customer":")" + customer + R"(","status":")" + status +
               R"(","created":)" + std::to_string(created) +
               R"(,"items":{"data":[{"id":"si_1","quantity":1,"price":{"id":"price_starter"},)"
               R"("current_period_start":1800000000,"current_period_end":1802592000}]}})";
    }

    Reconciler make(bool dry = false) {
        LookSettings settings;
        settings.actor = "test";
        settings.dry = dry;
        Reconciler::Listener listener;
        listener.drifted = [this](const json_t* answer) {
            drifted.emplace_back(text_member(answer, "account").value_or(""));
        };
        listener.failed = [this](const LinkedCustomer& whose, const std::string& problem) {
            failed.push_back(whose.account);
            problems += problem + "; ";
        };
        listener.go_on = [this] { return allowed(); };
        return Reconciler{reactor, *postgres, *api, false, std::move(settings), std::move(listener)};
    }
    Task<bool> allowed() { co_return pages-- > 0; }

    // An account that has this subscription, here and at Stripe.
    void subscriber(const std::string& name, int created) {
        account(name, "cus_" + name);
        stripe_says(list_of("cus_" + name), page(sub("sub_" + name, "cus_" + name, created)));
        Reconciler reconciler = make();
        LinkedCustomer whose{name, "cus_" + name};
        EXPECT_FALSE(await(reconciler.one_account(whose)));
        EXPECT_EQ(plan_of(name), "starter active none") << problems;
        drifted.clear();
    }
    // The customers that were looked at.
    std::string looked() {
        std::string all;
        for (const HttpAsk& ask : stripe.asked()) {
            const auto at = ask.target.find("customer=cus_");
            if (at != ask.target.npos)
                all += ask.target.substr(at + 13, ask.target.find('&') - at - 13) + " ";
        }
        return all;
    }
    std::string compare(const std::string& before) {
        Reconciler reconciler = make();
        const Trouble trouble = await(reconciler.all_subscriptions());
        EXPECT_FALSE(trouble) << trouble.text;
        return looked().substr(before.size());
    }

    std::vector<std::string> drifted;
    std::vector<std::string> failed;
    std::string problems;
    int pages = 100;
};

TEST_F(ReconcilerTest, LooksOnlyWhereSomethingDiffersOverAllPages) {
    subscriber("a", 1000);
    subscriber("b", 2000);
    subscriber("c", 3000);
    const std::string list = "/v1/subscriptions?status=all&limit=100";
    stripe_says(list, page(sub("sub_c", "cus_c", 3000) + "," + sub("sub_b", "cus_b", 2000), true));
    stripe_says(list + "&starting_after=sub_b", page(sub("sub_a", "cus_a", 1000), true));
    stripe_says(list + "&starting_after=sub_a", page(""));
    const std::string before = looked();
    EXPECT_EQ(compare(before), "") << "all is as it should be";

    sql.ask("UPDATE billing.subscriptions SET cancel_at = now() WHERE subscription_id = 'sub_a'");
    EXPECT_EQ(compare(before), "a ");
    EXPECT_EQ(drifted, std::vector<std::string>{"a"});
    const std::string invented = "INSERT INTO billing.subscriptions (subscription_id, account_id, customer_id, status, "
                                 "started_at) SELECT $$sub_x$$, id, stripe_customer_id, $$unpaid$$, to_timestamp(";
    for (const char* created : {"3500", "2500", "1500", "500", "NULL"}) {
        sql.ask("DELETE FROM billing.subscriptions WHERE subscription_id = 'sub_x'; " + invented + created +
                ") FROM billing.accounts WHERE external_id = 'b'");
        const std::string already = looked();
        drifted.clear();
        EXPECT_EQ(compare(already), "b ") << "one that Stripe does not list, of " << created;
        EXPECT_EQ(drifted, std::vector<std::string>{"b"});
    }
    EXPECT_EQ(compare(looked()), "") << "mended";
}

TEST_F(ReconcilerTest, WhatIsOverAndUnknownHereIsLeftAlone) {
    subscriber("a", 1000);
    account("idle", "cus_idle");
    stripe_says("/v1/subscriptions?status=all&limit=100",
                page(sub("sub_a", "cus_a", 1000) + "," + sub("sub_old", "cus_idle", 900, "canceled") + "," +
                     sub("sub_foreign", "cus_foreign", 800)));
    const std::string before = looked();
    Reconciler reconciler = make();
    EXPECT_FALSE(await(reconciler.all_subscriptions()));
    EXPECT_EQ(looked().substr(before.size()), "");
    EXPECT_EQ(reconciler.counts().unlinked, 1);
}

TEST_F(ReconcilerTest, StoresWhatNobodyHasStoredAndNothingElse) {
    account("a", "cus_a");
    const std::string type = "customer.subscription.updated";
    const auto event = [&](const std::string& id) {
        std::string text = payload(id, type, sub("sub_a", "cus_a", 1000));
        text.insert(text.size() - 1, R"(,"created":1800000000,"livemode":false)");
        return text;
    };
    put("evt_known", type, "cus_a", event("evt_known"));
    const std::string first = "/v1/events?";
    stripe_says(first, page(event("evt_new") + "," + event("evt_known"), true));
    Reconciler dry = make(true);
    pages = 1;
    EXPECT_TRUE(await(dry.missed_events(1799990000))) << "told to stop";
    EXPECT_EQ(dry.counts().missed, 1);
    EXPECT_EQ(sql.ask("SELECT count(*) FROM billing.webhook_events"), "1");
    pages = 2; // a page and an event
    Reconciler reconciler = make();
    EXPECT_TRUE(await(reconciler.missed_events(1799990000)));
    EXPECT_EQ(reconciler.counts().missed, 1);
    EXPECT_EQ(sql.ask("SELECT string_agg(concat_ws(' ', event_id, status, customer_id, livemode), ', ' ORDER BY 1) "
                      "FROM billing.webhook_events"),
              "evt_known received cus_a f, evt_new received cus_a f");
    const std::vector<HttpAsk> asked = stripe.asked();
    EXPECT_EQ(asked.size(), 2U);
    EXPECT_NE(asked[0].target.find("created[gte]=1799990000"), std::string::npos) << asked[0].target;
    EXPECT_NE(asked[0].target.find("types[0]="), std::string::npos);
    EXPECT_EQ(asked[0].target.find("types[20]="), std::string::npos) << "Stripe takes twenty";
}

TEST_F(ReconcilerTest, TheKeyOfAnotherAccountDoesNoHarm) {
    for (int index = 0; index < 12; ++index) {
        const std::string name = "acct" + std::to_string(index);
        account(name, "cus_" + name);
        sql.ask("INSERT INTO billing.subscriptions (subscription_id, account_id, status, started_at) SELECT 'sub_" +
                name + "', id, 'active', now() FROM billing.accounts WHERE external_id = '" + name + "'");
    }
    stripe_says("/v1/subscriptions?status=all", page(""));
    stripe_says("/v1/subscriptions?customer=",
                R"({"error":{"type":"invalid_request_error","code":"resource_missing","param":"customer"}})", 400);
    Reconciler reconciler = make();
    const Trouble trouble = await(reconciler.all_subscriptions());
    EXPECT_EQ(trouble.kind, Trouble::Kind::refused);
    EXPECT_EQ(failed.size(), 10U);
    EXPECT_EQ(sql.ask("SELECT count(*) FROM billing.subscriptions WHERE status = 'active'"), "12");
}

TEST_F(ReconcilerTest, APassIsHeldForEachAccountAnew) {
    subscriber("a", 1000);
    subscriber("b", 2000);
    stripe_says("/v1/subscriptions?status=all&limit=100",
                page(sub("sub_b", "cus_b", 2000) + "," + sub("sub_a", "cus_a", 1000)));
    sql.ask("UPDATE billing.subscriptions SET cancel_at = now()");
    const std::string before = looked();
    Reconciler reconciler = make();
    pages = 2; // one for the page, one for the first account: then another host has it
    EXPECT_EQ(await(reconciler.all_subscriptions()).kind, Trouble::Kind::later);
    EXPECT_EQ(looked().substr(before.size()), drifted.at(0) + " ");
    EXPECT_EQ(drifted.size(), 1U);
}

TEST_F(ReconcilerTest, WhatIsImportedOfLiveModeIsNoted) {
    PgConfig config;
    config.conninfo = server.conninfo() + " dbname=" + database; // the operator's
    Postgres owner(reactor, config);
    owner.start();
    const auto import = [&](const std::string& id, const std::string& livemode) {
        stripe_says("/v1/subscriptions?", page(""));
        stripe_says("/v1/customers?", page(R"({"id":"cus_)" + id + R"(","object":"customer","livemode":)" + livemode +
                                           R"(,"metadata":{"account":")" + id + R"("}})"));
        Importer importer{reactor, owner, *api, {}, {}, [](const ImportedCustomer&) {}};
        EXPECT_FALSE(await(importer.run()));
        EXPECT_EQ(importer.counts().linked, 1);
        return sql.ask("SELECT count(*) FROM billing.live_mode");
    };
    EXPECT_EQ(import("a", "false"), "0");
    EXPECT_EQ(import("b", "true"), "1");
}

TEST_F(ReconcilerTest, SomebodyWhoHoldsAnAccountHoldsUpNobodyElse) {
    subscriber("a", 1000);
    subscriber("b", 2000);
    stripe_says("/v1/subscriptions?status=all&limit=100",
                page(sub("sub_b", "cus_b", 2000) + "," + sub("sub_a", "cus_a", 1000)));
    sql.ask("UPDATE billing.subscriptions SET cancel_at = now()");
    test::Sql holder(server.conninfo() + " dbname=" + database);
    holder.ask("BEGIN; SELECT 1 FROM billing.accounts WHERE external_id = 'a' FOR UPDATE");
    Reconciler reconciler = make();
    EXPECT_FALSE(await(reconciler.all_subscriptions()));
    EXPECT_EQ(failed, std::vector<std::string>{"a"});
    EXPECT_EQ(drifted, std::vector<std::string>{"b"});
}

} // namespace
} // namespace billing
