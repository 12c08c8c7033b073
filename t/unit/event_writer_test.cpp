// Promise guarded: events that come at the same time are stored together, and each of them as if it had come alone:
// once, byte for byte, with an answer of its own; what PostgreSQL does not take is nothing to the others (W2).
#include "inbox_world.hpp"
#include "state/event_writer.hpp"

#include <limits>
#include <optional>

namespace billing {
namespace {

struct EventWriterTest : test::InboxWorld {
    static NewEvent event(const std::string& id) {
        NewEvent event;
        event.id = id;
        event.type = "customer.updated";
        event.api_version = "2026-02-25.clover";
        event.customer = "cus_\"{,}\\1";
        event.livemode = true;
        event.created = 1800000000;
        return event;
    }
    static std::string bytes_of(const std::string& id) {
        std::string bytes = id + std::string(id.size() * 7, 'x');
        for (int byte = 0; byte < 256; ++byte)
            bytes += static_cast<char>(byte);
        return bytes;
    }
    // Comes at the same time as those before it; its answer goes to its place.
    void come(NewEvent event) {
        said.emplace_back();
        scope->spawn(keep(std::move(event), said.size() - 1));
    }
    Task<void> keep(NewEvent event, std::size_t place) {
        const std::string bytes = bytes_of(event.id);
        const Stored stored = co_await events->store(std::move(event), bytes);
        said[place] = stored;
        ++answered;
    }
    bool all_answered() {
        return until([&] { return answered == said.size(); });
    }
    std::string hex_stored(const std::string& id) {
        return sql.ask("SELECT encode(payload, 'hex') FROM billing.webhook_events WHERE event_id = '" + id + "'");
    }
    static std::string hex(const std::string& bytes) {
        std::string text;
        for (const char byte : bytes) {
            text += "0123456789abcdef"[static_cast<unsigned char>(byte) >> 4];
            text += "0123456789abcdef"[static_cast<unsigned char>(byte) & 15];
        }
        return text;
    }

    std::vector<std::optional<Stored>> said;
    std::size_t answered = 0;
};

TEST_F(EventWriterTest, ManyAtOnceAreStoredTogetherAndEachOnce) {
    EXPECT_EQ(await(events->store(event("evt_7"), bytes_of("evt_7"))), Stored::stored);
    const auto before = postgres->counters().queries;
    for (int number = 0; number < 200; ++number)
        come(event("evt_" + std::to_string(number)));
    come(event("evt_3"));
    NewEvent foreign = event("evt_3");
    foreign.stripe_account = "acct_1";
    foreign.ignored = "of a connected account";
    come(foreign);
    ASSERT_TRUE(all_answered());
    for (std::size_t place = 0; place < said.size(); ++place)
        EXPECT_EQ(said[place], place == 7 || place == 200 ? Stored::duplicate : Stored::stored) << place;
    EXPECT_LE(postgres->counters().queries - before, 4U) << "64 in one statement";
    EXPECT_EQ(sql.ask("SELECT count(*) FROM billing.webhook_events"), "201");
    for (const std::string id : {"evt_7", "evt_99", "evt_199"})
        EXPECT_EQ(hex_stored(id), hex(bytes_of(id))) << id;
    EXPECT_EQ(sql.ask("SELECT concat_ws(' ', type, api_version, livemode, extract(epoch FROM stripe_created)::bigint, "
                      "customer_id, status) FROM billing.webhook_events WHERE event_id = 'evt_99'"),
              "customer.updated 2026-02-25.clover t 1800000000 cus_\"{,}\\1 received");
    EXPECT_EQ(sql.ask("SELECT concat_ws(' ', event_id, status, last_error) FROM billing.webhook_events WHERE "
                      "stripe_account = 'acct_1'"),
              "evt_3 ignored of a connected account");
}

TEST_F(EventWriterTest, WhatComesMeanwhileGoesTogetherNext) {
    sql.ask("BEGIN; INSERT INTO billing.webhook_events (event_id, type, payload) VALUES ('evt_0', 'x', '')");
    const auto before = postgres->counters().queries;
    for (int number = 0; number < 40; ++number) {
        come(event("evt_" + std::to_string(number)));
        settle(2); // a turn of its own for each
    }
    EXPECT_LE(postgres->counters().queries - before, 1U) << "the first waits for the row of somebody else";
    sql.ask("ROLLBACK");
    ASSERT_TRUE(all_answered());
    EXPECT_LE(postgres->counters().queries - before, 2U);
    EXPECT_EQ(sql.ask("SELECT count(*) FROM billing.webhook_events"), "40");
}

TEST_F(EventWriterTest, OneThatCannotBeStoredIsNothingToTheOthers) {
    for (int number = 0; number < 5; ++number) {
        NewEvent one = event("evt_" + std::to_string(number));
        if (number == 2)
            one.created = std::numeric_limits<std::int64_t>::max();
        come(one);
    }
    ASSERT_TRUE(all_answered());
    for (std::size_t place = 0; place < said.size(); ++place)
        EXPECT_EQ(said[place], place == 2 ? Stored::failed : Stored::stored) << place;
    EXPECT_EQ(logged("PostgreSQL refuses to store Stripe's events"), 1);
    EXPECT_EQ(sql.ask("SELECT count(*) FROM billing.webhook_events"), "4");
}

TEST_F(EventWriterTest, NobodyIsToldOfAnEventThatPostgresDidNotTake) {
    sql.ask("ALTER FUNCTION billing.stripe_events_store RENAME TO gone");
    come(event("evt_1"));
    come(event("evt_2"));
    ASSERT_TRUE(all_answered());
    sql.ask("ALTER FUNCTION billing.gone RENAME TO stripe_events_store");
    come(event("evt_3"));
    ASSERT_TRUE(all_answered());
    postgres->stop();
    come(event("evt_4"));
    ASSERT_TRUE(all_answered());
    EXPECT_EQ(said,
              (std::vector<std::optional<Stored>>{Stored::failed, Stored::failed, Stored::stored, Stored::failed}));
}

} // namespace
} // namespace billing
