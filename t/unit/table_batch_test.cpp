// Promise: what was spent or returned is in exactly one batch; a batch stays the same under its sequence until it is
// acknowledged, whoever sends it; idle accounts give their tokens back.
#include "table_zone.hpp"

#include <cstring>
#include <gtest/gtest.h>

namespace billing {
namespace {

bool same(const std::vector<UsageRow>& a, const std::vector<UsageRow>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(UsageRow)) == 0;
}

struct Batch : testing::Test {
    TestZone zone;
    std::vector<UsageRow> rows;
    std::uint64_t sequence = 0;

    void prepare(std::uint64_t accounts) {
        for (std::uint64_t account = 1; account <= accounts; account++) {
            zone.put(account);
            ASSERT_TRUE(zone.table.fund(zone.key(account), 0, 10, 100, 0, 0));
        }
    }
};

TEST_F(Batch, IsNotBuiltFromNothing) {
    prepare(3);
    EXPECT_FALSE(zone.table.freeze());
    EXPECT_FALSE(zone.table.frozen(rows, sequence));
    EXPECT_FALSE(zone.table.acknowledge(0));
}

TEST_F(Batch, StaysTheSameUntilAcknowledgedWhateverHappensMeanwhile) {
    prepare(3);
    zone.spend(1, 0, 10, 5);
    zone.spend(2, 0, 10, 6);
    ASSERT_TRUE(zone.table.freeze());
    ASSERT_TRUE(zone.table.frozen(rows, sequence));
    EXPECT_EQ(sequence, 1u);
    EXPECT_EQ(rows.size(), 2u);
    const std::vector<UsageRow> first = rows;

    zone.spend(1, 0, 10, 7);
    zone.put(2, 2);
    EXPECT_TRUE(zone.table.freeze()) << "the one that waits";
    ASSERT_TRUE(zone.table.frozen(rows, sequence));
    EXPECT_EQ(sequence, 1u);
    EXPECT_TRUE(same(rows, first));

    EXPECT_FALSE(zone.table.acknowledge(2));
    EXPECT_TRUE(zone.table.acknowledge(1));
    EXPECT_FALSE(zone.table.acknowledge(1));
    ASSERT_TRUE(zone.table.freeze());
    ASSERT_TRUE(zone.table.frozen(rows, sequence));
    EXPECT_EQ(sequence, 2u);
    ASSERT_EQ(rows.size(), 2u);
    EXPECT_EQ(rows[0].account_id, 2u);
    EXPECT_EQ(rows[0].returned, 94);
    EXPECT_EQ(rows[1].account_id, 1u);
    EXPECT_EQ(rows[1].spent, 7);
}

TEST_F(Batch, IsResentByAnotherProcessAfterItsSenderDied) {
    prepare(50);
    for (std::uint64_t account = 1; account <= 50; account++) {
        zone.spend(account, 0, 10, static_cast<std::uint32_t>(account));
    }
    struct Sent {
        std::uint64_t sequence;
        std::uint64_t size;
        UsageRow rows[50];
    };
    Shared<Sent> sent;
    const pid_t sender = in_child([&] {
        zone.table.freeze();
        zone.table.frozen(rows, sequence);
        sent->sequence = sequence;
        sent->size = rows.size();
        std::memcpy(sent->rows, rows.data(), rows.size() * sizeof(UsageRow));
        kill(getpid(), SIGKILL);
    });
    EXPECT_TRUE(WIFSIGNALED(await(sender)));
    zone.spend(1, 0, 10, 1);
    ASSERT_TRUE(zone.table.frozen(rows, sequence));
    EXPECT_EQ(sequence, sent->sequence);
    ASSERT_EQ(rows.size(), 50u);
    ASSERT_EQ(sent->size, 50u);
    EXPECT_TRUE(same(rows, {sent->rows, sent->rows + 50}));
}

TEST_F(Batch, LeavesWhatDoesNotFitToTheNext) {
    constexpr std::uint64_t k_accounts = 10000;
    TestZone large(k_accounts);
    for (std::uint64_t account = 1; account <= k_accounts; account++) {
        large.put(account);
        ASSERT_TRUE(large.table.fund(large.key(account), 0, 10, 100, 0, 1));
    }
    std::vector<int> seen(k_accounts + 1);
    for (std::uint64_t expected = 1; expected <= 3; expected++) {
        ASSERT_TRUE(large.table.freeze());
        ASSERT_TRUE(large.table.frozen(rows, sequence));
        EXPECT_EQ(sequence, expected);
        EXPECT_LE(rows.size(), k_batch_rows);
        for (const UsageRow& row : rows) {
            EXPECT_EQ(row.spent, 1);
            seen[row.account_id]++;
        }
        large.table.acknowledge(sequence);
    }
    EXPECT_FALSE(large.table.freeze());
    for (std::uint64_t account = 1; account <= k_accounts; account++) {
        ASSERT_EQ(seen[account], 1) << account;
    }
}

// A request marks an account once for each batch; the marks must not get lost while batches are built.
TEST_F(Batch, MissesNothingThatIsSpentWhileItIsBuilt) {
    prepare(8);
    Shared<std::uint64_t[2]> shared_state; // taken; stop
    const pid_t spender = in_child([&] {
        SpendOutcome outcome{};
        RecordRef refs[8];
        for (std::uint64_t account = 1; account <= 8; account++) {
            refs[account - 1] = zone.view(account).ref;
        }
        for (std::uint64_t i = 0; shared::load((*shared_state)[1]) == 0; i++) {
            (*shared_state)[0] += zone.table.spend(refs[i % 8], 0, 10, 1, 0, outcome) == Spend::taken;
        }
    });
    std::int64_t spent = 0;
    std::int64_t granted = 800;
    for (int round = 0; round < 10000; round++) {
        for (std::uint64_t account = 1; account <= 8; account++) {
            ASSERT_TRUE(zone.table.fund(zone.key(account), 0, 10, 10, 0, 0));
            granted += 10;
        }
        for (const UsageRow& row : zone.flush()) {
            spent += row.spent;
        }
    }
    shared::store((*shared_state)[1], 1);
    EXPECT_TRUE(ended_well(await(spender)));
    // Two batches, without a further request: the last marks are in the one or the other.
    for (int round = 0; round < 2; round++) {
        for (const UsageRow& row : zone.flush()) {
            spent += row.spent;
        }
    }
    EXPECT_EQ(spent, static_cast<std::int64_t>((*shared_state)[0]));
    EXPECT_EQ(granted - spent, static_cast<std::int64_t>(zone.table.use().held));
}

TEST_F(Batch, TakesTheTokensOfAccountsThatWereIdleForTwoSweeps) {
    prepare(2);
    zone.spend(1, 0, 10, 30);
    zone.table.sweep(k_min_units);
    EXPECT_EQ(zone.table.use().held, 170u) << "used since the last";
    zone.spend(2, 0, 10, 1);
    zone.table.sweep(k_min_units);
    EXPECT_EQ(zone.table.use().held, 99u);
    zone.flush();
    zone.table.sweep(k_min_units);
    EXPECT_EQ(zone.table.use().held, 0u);
    EXPECT_EQ(zone.flush().at(0).returned, 99);
}

TEST_F(Batch, ReturnsEverythingAtAnExit) {
    prepare(1000);
    zone.spend(1, 0, 10, 30);
    EXPECT_TRUE(zone.table.return_all());
    EXPECT_EQ(zone.table.use().held, 0u);
    const std::vector<UsageRow> all = zone.flush();
    ASSERT_EQ(all.size(), 1000u);
    EXPECT_EQ(all[0].spent, 30);
    EXPECT_EQ(all[0].returned, 70);
    EXPECT_EQ(zone.spend(1, 0, 10, 1), Spend::short_of_tokens);
}

// G21: what was let through while nobody could be asked.
TEST(LateCharges, AddUpByAccountQuotaAndMinuteAndStayTheSameOnceFrozen) {
    TestZone zone;
    Table& table = zone.table;
    std::vector<LateRow> rows;
    std::uint64_t sequence = 0;
    EXPECT_FALSE(table.freeze_late());
    const std::string longest(k_account_id_max, 'a');
    EXPECT_TRUE(table.charge_late({longest, "requests", 600, 2, true}));
    EXPECT_TRUE(table.charge_late({longest, "requests", 659, 3, true}));
    EXPECT_TRUE(table.charge_late({longest, "requests", 660, 4, true})) << "another minute";
    EXPECT_TRUE(table.charge_late({longest, "exports", 600, 5, true})) << "another quota";
    EXPECT_TRUE(table.charge_late({"b", "requests", 600, 6, true})) << "another account";
    ASSERT_TRUE(table.freeze_late());
    EXPECT_TRUE(table.charge_late({"b", "requests", 600, 7, true})) << "not into what is on its way";
    ASSERT_TRUE(table.freeze_late());
    ASSERT_TRUE(table.frozen_late(rows, sequence));
    EXPECT_EQ(sequence, 1u);
    ASSERT_EQ(rows.size(), 4u);
    EXPECT_EQ(rows[0].units, 5);
    EXPECT_EQ(std::string(rows[0].account, k_account_id_max), longest);
    EXPECT_EQ(rows[3].units, 6);
    EXPECT_TRUE(table.acknowledge_late(1));
    EXPECT_FALSE(table.acknowledge_late(1));
    ASSERT_TRUE(table.freeze_late());
    ASSERT_TRUE(table.frozen_late(rows, sequence));
    EXPECT_EQ(sequence, 2u);
    ASSERT_EQ(rows.size(), 1u);
    EXPECT_EQ(rows[0].units, 7);
    EXPECT_EQ(table.counted(Counter::late_noted), 27u);
}

TEST(LateCharges, AreCountedAsLostWhereThereIsNoRoom) {
    TestZone zone;
    for (std::size_t account = 0; account < k_late_rows; account++) {
        EXPECT_TRUE(zone.table.charge_late({std::to_string(account), "requests", 600, 1, false}));
    }
    EXPECT_FALSE(zone.table.charge_late({"one more", "requests", 600, 9, false}));
    EXPECT_TRUE(zone.table.charge_late({"7", "requests", 600, 1, false})) << "those that are there go on";
    EXPECT_EQ(zone.table.counted(Counter::late_lost), 9u);
    EXPECT_EQ(zone.table.counted(Counter::late_noted), k_late_rows + 1);
}

} // namespace
} // namespace billing
