// Promise: what the table says of an account is what was put under the greatest stamp; nobody sees half of it, and a
// version never goes back (R2). Accounts that do not exist are remembered apart.
#include "table_zone.hpp"

#include <gtest/gtest.h>
#include <random>

namespace billing {
namespace {

AccountFacts full_facts() {
    AccountFacts facts{};
    facts.id = 77;
    facts.stamp = std::uint64_t{3} << 40 | 12;
    facts.on = {{0x8000000000000001, 0x4000000000000002}};
    facts.off = {{0xf000000000000000, 0xc000000000000004}};
    facts.overrides_until = 1900000000;
    facts.until = 4000000000;
    facts.until_kind = UntilKind::subscription;
    facts.plan = 255;
    facts.status = Status::incomplete_expired;
    facts.flags = AccountFlags::k_maintenance_operator | AccountFlags::k_write_disabled | AccountFlags::k_deleted;
    facts.has_overrides = true;
    return facts;
}

TEST(TableFacts, AreFoundAsTheyWerePut) {
    TestZone zone;
    const AccountFacts facts = full_facts();
    const LimitAmount amounts[] = {{0, 50}, {63, k_unlimited}, {7, 0}, {9, 12345678901}, {10, 1}};
    EXPECT_EQ(zone.table.put(zone.key(1), facts, zone.table.valid_gen(), amounts), Put::inserted);
    AccountView view{};
    ASSERT_TRUE(zone.table.find(zone.key(1), view));
    EXPECT_EQ(view.id, facts.id);
    EXPECT_EQ(view.stamp, facts.stamp);
    for (std::size_t i : {0, 1}) {
        EXPECT_EQ(view.on.word[i], facts.on.word[i]);
        EXPECT_EQ(view.off.word[i], facts.off.word[i]);
    }
    EXPECT_EQ(view.overrides_until, facts.overrides_until);
    EXPECT_EQ(view.until, facts.until);
    EXPECT_EQ(view.until_kind, facts.until_kind);
    EXPECT_EQ(view.plan, facts.plan);
    EXPECT_EQ(view.status, facts.status);
    EXPECT_EQ(view.flags, facts.flags);
    EXPECT_TRUE(view.has_overrides);
    EXPECT_TRUE(view.current);
    for (const LimitAmount& expected : amounts) {
        std::uint64_t amount = 999;
        EXPECT_TRUE(zone.table.limit_amount(view.ref, expected.limit_no, amount));
        EXPECT_EQ(amount, expected.amount);
    }
    std::uint64_t amount = 0;
    EXPECT_FALSE(zone.table.limit_amount(view.ref, 8, amount));
    EXPECT_FALSE(zone.has(2));
    EXPECT_EQ(zone.table.check(), "");
}

TEST(TableFacts, OverridesEndWithTheSnapshotThatHasNone) {
    TestZone zone;
    const LimitAmount amounts[] = {{0, 50}, {1, 60}, {2, 70}};
    AccountFacts facts = full_facts();
    zone.table.put(zone.key(1), facts, 0, amounts);
    facts.stamp++;
    facts.has_overrides = false;
    EXPECT_EQ(zone.table.put(zone.key(1), facts, 0), Put::updated);
    const AccountView view = zone.view(1);
    EXPECT_EQ(view.stamp, facts.stamp);
    EXPECT_FALSE(view.has_overrides);
    EXPECT_EQ(view.on.word[0] | view.on.word[1] | view.off.word[0] | view.off.word[1], 0u);
    std::uint64_t amount = 0;
    for (const LimitAmount& gone : amounts) {
        EXPECT_FALSE(zone.table.limit_amount(view.ref, gone.limit_no, amount));
    }
}

TEST(TableFacts, OnlyAGreaterStampReplaces) {
    TestZone zone;
    EXPECT_EQ(zone.put(1, 10), Put::inserted);
    EXPECT_EQ(zone.put(1, 9), Put::kept);
    EXPECT_EQ(zone.put(1, 10), Put::kept);
    EXPECT_EQ(zone.view(1).stamp, 10u);
    EXPECT_EQ(zone.put(1, 11), Put::updated);
    EXPECT_EQ(zone.view(1).stamp, 11u);
    EXPECT_EQ(zone.table.use().records, 1u);
}

TEST(TableFacts, AfterALossInTheStreamEachAccountIsReadAnew) {
    TestZone zone;
    zone.put(1, 10);
    const std::uint32_t before = zone.table.valid_gen();
    zone.table.invalidate_all();
    EXPECT_FALSE(zone.view(1).current);
    AccountFacts facts{};
    facts.id = 1;
    facts.stamp = 10;
    EXPECT_EQ(zone.table.put(zone.key(1), facts, before), Put::kept) << "it was read before the loss";
    EXPECT_FALSE(zone.view(1).current);
    EXPECT_EQ(zone.table.put(zone.key(1), facts, zone.table.valid_gen()), Put::revalidated);
    EXPECT_TRUE(zone.view(1).current);
    // A newer stamp that was read before the next loss does not count as current, but does not go back either.
    zone.table.invalidate_all();
    facts.stamp = 11;
    EXPECT_EQ(zone.table.put(zone.key(1), facts, zone.table.valid_gen() - 1), Put::updated);
    EXPECT_FALSE(zone.view(1).current);
    EXPECT_EQ(zone.view(1).stamp, 11u);
}

// A higher limit may have ended with the override: what was taken under it must not be spent under the plan's.
TEST(TableFacts, TokensHeldUnderAnOverrideGoBackWhenItEnds) {
    TestZone zone;
    AccountFacts facts = full_facts();
    EXPECT_EQ(zone.table.put(zone.key(1), facts, zone.table.valid_gen()), Put::inserted);
    ASSERT_TRUE(zone.table.fund(zone.key(1), 0, 5, 40, 0, 0));
    EXPECT_EQ(zone.spend(1, 0, 5), Spend::taken);
    facts.overrides_until = 0;
    facts.has_overrides = false;
    facts.on = {};
    facts.off = {};
    EXPECT_EQ(zone.table.put(zone.key(1), facts, zone.table.valid_gen()), Put::revalidated);
    EXPECT_EQ(zone.spend(1, 0, 5), Spend::short_of_tokens);
    std::int64_t spent = 0;
    std::int64_t returned = 0;
    for (const UsageRow& row : zone.flush()) {
        spent += row.spent;
        returned += row.returned;
    }
    EXPECT_EQ(spent, 1);
    EXPECT_EQ(returned, 39);
}

TEST(TableFacts, OverridesThatEndedAreEvaluatedAnewUnderTheSameStamp) {
    TestZone zone;
    AccountFacts facts = full_facts();
    zone.table.put(zone.key(1), facts, 0);
    facts.overrides_until = 0;
    facts.on = {};
    EXPECT_EQ(zone.table.put(zone.key(1), facts, 0), Put::revalidated);
    EXPECT_EQ(zone.view(1).on.word[0], 0u);
    EXPECT_EQ(zone.table.put(zone.key(1), facts, 0), Put::kept);
}

// Each stamp is written into every field, so that a mixture of two would show.
AccountFacts striped(std::uint64_t stamp) {
    AccountFacts facts{};
    facts.id = stamp;
    facts.stamp = stamp;
    facts.until = static_cast<std::uint32_t>(stamp);
    facts.plan = static_cast<std::uint8_t>(stamp);
    facts.flags = static_cast<std::uint8_t>(stamp & 63);
    facts.has_overrides = true;
    facts.on = {{stamp, ~stamp}};
    facts.off = {{~stamp, stamp}};
    facts.overrides_until = static_cast<std::uint32_t>(stamp);
    return facts;
}

bool is_striped(const AccountView& view) {
    const std::uint64_t stamp = view.stamp;
    return view.id == stamp && view.until == static_cast<std::uint32_t>(stamp) &&
           view.plan == static_cast<std::uint8_t>(stamp) && view.flags == (stamp & 63) && view.on.word[0] == stamp &&
           view.on.word[1] == ~stamp && view.off.word[0] == ~stamp && view.off.word[1] == stamp &&
           view.overrides_until == static_cast<std::uint32_t>(stamp);
}

TEST(TableFacts, NeverGoBackAndAreNeverTornWhileManyWrite) {
    constexpr std::uint64_t k_puts = 400000;
    TestZone zone;
    const AccountKey key = zone.key(1);
    struct Board {
        std::uint64_t stamp;
        std::uint64_t stop;
    };
    Shared<Board> board;
    pid_t writers[2];
    for (unsigned w = 0; w < 2; w++) {
        writers[w] = in_child([&] {
            std::mt19937_64 random(w + 1);
            while (shared::load(board->stop) == 0) {
                const std::uint64_t stamp = shared::add(board->stamp, 1) + 1;
                const std::uint64_t late = random() % 4 == 0 ? random() % 20 : 0;
                zone.table.put(key, striped(stamp > late ? stamp - late : 1), 0);
            }
        });
    }
    std::uint64_t last = 0;
    std::uint64_t seen = 0;
    while (shared::load(board->stamp) < k_puts || seen < 100) {
        AccountView view{};
        if (!zone.table.find(key, view)) {
            continue; // being written
        }
        ASSERT_TRUE(is_striped(view)) << "stamp " << view.stamp;
        ASSERT_GE(view.stamp, last);
        seen += view.stamp != last;
        last = view.stamp;
    }
    shared::store(board->stop, 1);
    for (const pid_t writer : writers) {
        EXPECT_TRUE(ended_well(await(writer)));
    }
    EXPECT_EQ(zone.table.check(), "");
}

TEST(TableFacts, UnknownAccountsAreRememberedUntilTheyAreCreated) {
    TestZone zone;
    zone.table.remember_unknown(zone.key(5), 1000);
    EXPECT_TRUE(zone.table.is_unknown(zone.key(5), 999));
    EXPECT_FALSE(zone.table.is_unknown(zone.key(5), 1000));
    EXPECT_FALSE(zone.table.is_unknown(zone.key(6), 999));
    zone.put(5);
    EXPECT_FALSE(zone.table.is_unknown(zone.key(5), 999));
}

TEST(TableFacts, AFloodOfUnknownAccountsEvictsNobody) {
    TestZone zone;
    for (std::uint64_t account = 0; account < k_min_units; account++) {
        zone.put(account);
    }
    for (std::uint64_t account = 0; account < 100000; account++) {
        zone.table.remember_unknown(zone.key(1000000 + account), 1000);
    }
    EXPECT_EQ(zone.table.use().records, k_min_units);
    EXPECT_EQ(zone.table.counted(Counter::evictions), 0u);
}

} // namespace
} // namespace billing
