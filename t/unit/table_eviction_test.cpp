// Promise: the zone is bounded, every account finds a place in it up to its capacity, and what makes room is what
// nobody asks for; its usage and tokens are reported (P5).
#include "table_zone.hpp"

#include <gtest/gtest.h>
#include <map>

namespace billing {
namespace {

TEST(TableCapacity, EveryAccountHasAPlaceUntilTheLastUnitIsTaken) {
    constexpr std::uint32_t k_accounts = 200000;
    TestZone zone(k_accounts);
    for (std::uint64_t account = 0; account < k_accounts; account++) {
        ASSERT_EQ(zone.put(account), Put::inserted);
    }
    EXPECT_EQ(zone.table.counted(Counter::evictions), 0u);
    for (std::uint64_t account = 0; account < k_accounts; account++) {
        ASSERT_TRUE(zone.has(account)) << account;
    }
    EXPECT_EQ(zone.table.check(), "");
}

TEST(TableCapacity, AMillionAccountsTakeAtMost80BytesEach) {
    constexpr std::uint32_t k_million = 1000000;
    EXPECT_LE(static_cast<double>(Table::bytes_for(k_million)) / k_million, 80.0);
    EXPECT_GE(Geometry::within(Table::bytes_for(k_million)).units, k_million);
    EXPECT_LT(Geometry::within(Table::bytes_for(k_million) - 64).units, k_million);
}

TEST(TableCapacity, OverridesAndFourQuotasTakeAtMost256Bytes) {
    TestZone zone;
    AccountFacts facts{};
    facts.id = 1;
    facts.stamp = 1;
    facts.has_overrides = true;
    facts.on = {{1, 2}};
    const LimitAmount amounts[] = {{0, 5}, {1, 6}};
    zone.table.put(zone.key(1), facts, 0, amounts);
    for (std::uint8_t limit = 0; limit < 4; limit++) {
        ASSERT_TRUE(zone.table.fund(zone.key(1), limit, 0, 10, 0, 0));
    }
    const ZoneUse use = zone.table.use();
    EXPECT_EQ(use.records, 1u);
    EXPECT_EQ(use.extensions, 2u);
    EXPECT_LE((use.records + use.extensions) * 64 + 13, 256u); // 13: index and dirty bits
}

// A key whose two index lines are these.
AccountKey key_in(std::uint64_t first, std::uint64_t second, std::uint64_t number) {
    const std::uint64_t lines = Geometry::of(k_min_units).lines;
    const auto part = [lines](std::uint64_t line) { return (line << 32) / lines + 1; };
    return {part(second) << 32 | part(first), number << 32 | (number + 1)};
}

// The 16 places of two lines are taken, one of them by an account that has another line to go to.
struct FullLines : TestZone {
    static constexpr std::uint64_t k_places = 16;

    explicit FullLines(std::uint64_t line_of_mover) {
        insert(key_in(0, line_of_mover, 1));
        for (std::uint64_t number = 2; number <= k_places; number++) {
            insert(key_in(0, 1, number));
        }
        mover = key_in(0, line_of_mover, 1);
    }
    Put insert(AccountKey at) {
        AccountFacts facts{};
        facts.id = 1;
        facts.stamp = 1;
        return table.put(at, facts, 0);
    }
    bool holds(AccountKey at) {
        AccountView view;
        return table.find(at, view);
    }
    AccountKey mover{};
};

TEST(TableCapacity, AnAccountMovesToItsOtherLineWhereTwoAreFull) {
    FullLines zone(5);
    EXPECT_EQ(zone.insert(key_in(0, 1, 100)), Put::inserted);
    EXPECT_TRUE(zone.holds(zone.mover));
    EXPECT_TRUE(zone.holds(key_in(0, 1, 100)));
    EXPECT_EQ(zone.table.counted(Counter::evictions), 0u);
    EXPECT_EQ(zone.table.check(), "");
    EXPECT_EQ(zone.insert(key_in(0, 1, 101)), Put::inserted) << "nobody can move: one goes";
    EXPECT_EQ(zone.table.counted(Counter::evictions), 1u);
    EXPECT_EQ(zone.table.use().records, FullLines::k_places + 1);
    EXPECT_EQ(zone.table.check(), "");
}

TEST(TableCapacity, AMoveThatIsCutShortLosesTheMovedAccountAtWorst) {
    FullLines whole(5);
    const std::uint64_t before = whole.lock.stores;
    whole.insert(key_in(0, 1, 100));
    const std::uint64_t stores = whole.lock.stores - before;
    for (std::uint64_t at = 1; at <= stores; at++) {
        FullLines zone(5);
        const pid_t pid = in_child([&] {
            zone.lock.die_after = at;
            zone.insert(key_in(0, 1, 100));
        });
        ASSERT_TRUE(WIFSIGNALED(await(pid)));
        zone.lock.force_unlock(pid);
        ASSERT_EQ(zone.table.check(), "") << "store " << at;
        ASSERT_GE(zone.table.use().records, FullLines::k_places - 1) << "store " << at;
        const Put expected = zone.holds(zone.mover) ? Put::kept : Put::inserted;
        ASSERT_EQ(zone.insert(zone.mover), expected);
    }
}

TEST(TableEviction, KeepsTheZoneBoundedAndWhatIsInUse) {
    constexpr std::uint64_t k_busy = 200;
    TestZone zone;
    for (std::uint64_t account = 0; account < k_busy; account++) {
        zone.put(account);
    }
    std::uint64_t others = 0;
    for (int round = 0; round < 50; round++) {
        for (std::uint64_t account = 0; account < k_busy; account++) {
            AccountView view;
            ASSERT_TRUE(zone.table.find(zone.key(account), view)) << "busy account " << account << " was evicted";
            zone.table.touch(view.ref);
        }
        for (int i = 0; i < 200; i++) {
            zone.put(1000000 + others++);
        }
    }
    EXPECT_EQ(zone.table.use().records, k_min_units);
    EXPECT_EQ(zone.table.counted(Counter::evictions), k_busy + others - k_min_units);
    EXPECT_EQ(zone.table.check(), "");
}

TEST(TableEviction, TakesOneWhenAllAreInUse) {
    constexpr std::uint32_t k_accounts = 20000;
    TestZone zone(k_accounts);
    for (std::uint64_t account = 0; account < k_accounts; account++) {
        zone.put(account);
        zone.table.touch(zone.view(account).ref);
    }
    EXPECT_EQ(zone.put(1000000), Put::inserted);
    EXPECT_TRUE(zone.has(1000000));
    std::uint64_t left = 0;
    for (std::uint64_t account = 0; account < k_accounts; account++) {
        left += zone.has(account);
    }
    EXPECT_EQ(left, k_accounts - 1);
}

TEST(TableEviction, ReportsTheUsageAndReturnsTheTokensOfWhoGoes) {
    TestZone zone;
    std::map<std::uint64_t, std::pair<std::int64_t, std::int64_t>> seen;
    const auto collect = [&](const std::vector<UsageRow>& rows) {
        for (const UsageRow& row : rows) {
            seen[row.account_id].first += row.spent;
            seen[row.account_id].second += row.returned;
        }
    };
    for (std::uint64_t account = 1; account <= 5000; account++) {
        zone.put(account);
        ASSERT_TRUE(zone.table.fund(zone.key(account), 3, 10, 100, 0, 0));
        ASSERT_TRUE(zone.table.fund(zone.key(account), 4, 10, 100, 0, 0)) << "this one in an extension";
        ASSERT_EQ(zone.spend(account, 3, 10, static_cast<std::uint32_t>(account % 50)), Spend::taken);
        ASSERT_EQ(zone.spend(account, 4, 10, 1), Spend::taken);
        if (account % 1000 == 0) {
            collect(zone.flush());
        }
    }
    collect(zone.drain());
    ASSERT_EQ(seen.size(), 5000u);
    for (const auto& [account, sums] : seen) {
        ASSERT_EQ(sums.first, static_cast<std::int64_t>(account % 50) + 1);
        ASSERT_EQ(sums.second, 200 - sums.first);
    }
    EXPECT_EQ(zone.table.counted(Counter::forfeited), 0u);
    EXPECT_EQ(zone.table.check(), "");
}

TEST(TableEviction, CountsWhatIsLostWhileTheBatchIsFull) {
    TestZone zone;
    for (std::uint64_t i = 0; i < k_batch_rows; i++) {
        ASSERT_TRUE(zone.table.add_usage(1, 0, 10, 1, 0));
    }
    EXPECT_FALSE(zone.table.add_usage(1, 0, 10, 2, 3));
    EXPECT_EQ(zone.table.counted(Counter::forfeited), 5u);
    for (std::uint64_t account = 1; account <= k_min_units + 1; account++) {
        zone.put(account);
        ASSERT_TRUE(zone.table.fund(zone.key(account), 3, 10, 7, 0, 0));
    }
    EXPECT_EQ(zone.table.counted(Counter::forfeited), 12u);
    EXPECT_EQ(zone.flush().size(), k_batch_rows);
    std::int64_t returned = 0;
    for (const UsageRow& row : zone.drain()) {
        returned += row.returned;
    }
    EXPECT_EQ(returned, 7 * std::int64_t{k_min_units});
}

TEST(TableEviction, MakesRoomForOverridesToo) {
    TestZone zone;
    AccountFacts facts{};
    facts.stamp = 1;
    facts.has_overrides = true;
    facts.on = {{42, 0}};
    const LimitAmount amounts[] = {{0, 5}, {1, 6}, {2, 7}};
    for (std::uint64_t account = 1; account <= 3000; account++) {
        facts.id = account;
        ASSERT_EQ(zone.table.put(zone.key(account), facts, 0, amounts), Put::inserted);
        ASSERT_EQ(zone.view(account).on.word[0], 42u);
    }
    EXPECT_EQ(zone.table.check(), "");
    const ZoneUse use = zone.table.use();
    EXPECT_EQ(use.extensions, use.records * 2);
    EXPECT_GT(use.records, k_min_units / 4);
}

} // namespace
} // namespace billing
