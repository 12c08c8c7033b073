// Promise: each token that PostgreSQL granted is spent once at most, whoever spends at the same time; a reference to an
// account that left the table can neither spend nor give back into what took its place (R1, Q1).
#include "table_zone.hpp"

#include <algorithm>
#include <gtest/gtest.h>

namespace billing {
namespace {

constexpr std::uint8_t k_limit = 5;
constexpr std::int64_t k_month = 24323;

struct Tokens : testing::Test {
    TestZone zone;
    SpendOutcome outcome{};

    void SetUp() override { ASSERT_EQ(zone.put(1), Put::inserted); }
    bool fund(std::uint32_t granted, std::uint64_t outside = 0, std::int64_t period = k_month,
              std::uint8_t limit = k_limit) {
        return zone.table.fund(zone.key(1), limit, period, granted, outside, 0);
    }
    Spend spend(std::uint32_t cost, std::int64_t period = k_month, std::uint8_t limit = k_limit,
                std::uint64_t now = 0) {
        return zone.table.spend(zone.view(1).ref, limit, period, cost, now, outcome);
    }
};

TEST_F(Tokens, AreSpentDownToNone) {
    EXPECT_EQ(spend(1), Spend::short_of_tokens);
    ASSERT_TRUE(fund(10, 100));
    EXPECT_EQ(spend(4), Spend::taken);
    EXPECT_EQ(outcome.held, 6u);
    EXPECT_EQ(outcome.remaining, 106u);
    EXPECT_EQ(spend(7), Spend::short_of_tokens);
    EXPECT_EQ(outcome.held, 6u);
    EXPECT_EQ(spend(6), Spend::taken);
    EXPECT_EQ(spend(1), Spend::short_of_tokens);
    EXPECT_EQ(spend(0xffffffff), Spend::short_of_tokens);
}

TEST_F(Tokens, OfAnUnlimitedQuotaHaveNoBound) {
    ASSERT_TRUE(fund(10, k_unlimited));
    EXPECT_EQ(spend(1), Spend::taken);
    EXPECT_EQ(outcome.remaining, k_unlimited);
    ASSERT_TRUE(fund(10, std::uint64_t{1} << 40));
    EXPECT_EQ(spend(1), Spend::taken);
    EXPECT_EQ(outcome.remaining, std::uint64_t{k_most_outside} + 18) << "saturated, not unlimited";
}

TEST_F(Tokens, SpentByTheFunderAreReportedAndNotHeld) {
    ASSERT_TRUE(zone.table.fund(zone.key(1), k_limit, k_month, 10, 0, 3));
    EXPECT_EQ(spend(8), Spend::short_of_tokens);
    const std::vector<UsageRow> rows = zone.flush();
    ASSERT_EQ(rows.size(), 1u);
    EXPECT_EQ(rows[0].spent, 3);
    EXPECT_EQ(rows[0].returned, 0);
    EXPECT_EQ(spend(7), Spend::taken);
}

TEST_F(Tokens, ForAnAccountThatIsNotHereGoIntoTheBatch) {
    EXPECT_FALSE(zone.table.fund(zone.key(2), k_limit, k_month, 10, 0, 3));
    EXPECT_TRUE(zone.table.add_usage(2, k_limit, k_month, 3, 7));
    const std::vector<UsageRow> rows = zone.flush();
    ASSERT_EQ(rows.size(), 1u);
    EXPECT_EQ(rows[0].account_id, 2u);
    EXPECT_EQ(rows[0].returned, 7);
}

TEST_F(Tokens, GivenBackAreSpentAgainAndReportedOnce) {
    ASSERT_TRUE(fund(5));
    ASSERT_EQ(spend(5), Spend::taken);
    EXPECT_EQ(zone.flush().at(0).spent, 5);
    EXPECT_TRUE(zone.table.refund(zone.view(1).ref, k_limit, k_month, 2));
    EXPECT_EQ(zone.flush().at(0).spent, -2);
    EXPECT_EQ(spend(2), Spend::taken);
    EXPECT_EQ(spend(1), Spend::short_of_tokens);
    EXPECT_EQ(zone.flush().at(0).spent, 2);
    EXPECT_TRUE(zone.flush().empty());
}

TEST_F(Tokens, OfAPeriodThatEndedAreNotSpentInTheNext) {
    ASSERT_TRUE(fund(10));
    ASSERT_EQ(spend(3), Spend::taken);
    EXPECT_EQ(spend(1, k_month + 1), Spend::short_of_tokens);
    EXPECT_FALSE(zone.table.refund(zone.view(1).ref, k_limit, k_month + 1, 1));
    ASSERT_TRUE(fund(20, 0, k_month + 1));
    EXPECT_EQ(spend(1, k_month), Spend::short_of_tokens);
    EXPECT_FALSE(zone.table.refund(zone.view(1).ref, k_limit, k_month, 1)) << "its period is closed here";
    EXPECT_EQ(spend(20, k_month + 1), Spend::taken);
    const std::vector<UsageRow> rows = zone.flush();
    ASSERT_EQ(rows.size(), 2u);
    EXPECT_EQ(rows[0].period, k_month);
    EXPECT_EQ(rows[0].spent, 3);
    EXPECT_EQ(rows[0].returned, 7);
    EXPECT_EQ(rows[1].period, k_month + 1);
    EXPECT_EQ(rows[1].spent, 20);
}

TEST_F(Tokens, ThatComeLateForAnEarlierPeriodAreRefused) {
    ASSERT_TRUE(fund(10, 0, k_month + 1));
    EXPECT_FALSE(fund(10, 0, k_month));
    EXPECT_EQ(spend(10, k_month + 1), Spend::taken);
}

TEST_F(Tokens, KeepTheWholePeriodNumber) {
    const std::int64_t minute = 29896000; // more than the word's 20 bits
    ASSERT_TRUE(fund(1, 0, minute));
    ASSERT_TRUE(fund(1, 0, minute + 5));
    ASSERT_TRUE(fund(1, 0, 0, 6)) << "a lifetime";
    const std::vector<UsageRow> rows = zone.drain();
    ASSERT_EQ(rows.size(), 3u);
    EXPECT_EQ(rows[0].period, minute);
    EXPECT_EQ(rows[1].period, minute + 5);
    EXPECT_EQ(rows[2].period, 0);
}

TEST_F(Tokens, OfManyLimitsAreKeptApart) {
    for (std::uint8_t limit = 0; limit < 64; limit++) {
        ASSERT_TRUE(fund(limit + 1u, 0, k_month, limit));
    }
    for (std::uint8_t limit = 0; limit < 64; limit++) {
        EXPECT_EQ(spend(limit + 1u, k_month, limit), Spend::taken) << int{limit};
        EXPECT_EQ(spend(1, k_month, limit), Spend::short_of_tokens);
        EXPECT_TRUE(zone.table.refund(zone.view(1).ref, limit, k_month, 1));
    }
    EXPECT_EQ(zone.table.use().extensions, 21u);
    EXPECT_EQ(zone.table.check(), "");
    std::int64_t spent = 0;
    std::int64_t returned = 0;
    for (const UsageRow& row : zone.drain()) {
        spent += row.spent;
        returned += row.returned;
        EXPECT_EQ(row.spent + row.returned, static_cast<std::int64_t>(row.limit_no) + 1);
    }
    EXPECT_EQ(spent, 64 * 65 / 2 - 64);
    EXPECT_EQ(returned, 64);
}

TEST_F(Tokens, OnceExhaustedAreNotAskedForUntilTheMoment) {
    ASSERT_TRUE(zone.table.exhausted(zone.key(1), k_limit, k_month, 10000));
    EXPECT_EQ(spend(1, k_month, k_limit, 9000), Spend::exhausted);
    EXPECT_EQ(outcome.retry_after_eighths, 8u);
    EXPECT_EQ(outcome.remaining, 0u);
    EXPECT_EQ(spend(1, k_month, k_limit, 10000), Spend::short_of_tokens);
    EXPECT_EQ(spend(1, k_month + 1, k_limit, 9000), Spend::short_of_tokens) << "another period";
    zone.put(1, 2);
    EXPECT_EQ(spend(1, k_month, k_limit, 9000), Spend::short_of_tokens) << "a new snapshot";
}

TEST_F(Tokens, EndExhaustionWhenTheyComeBack) {
    ASSERT_TRUE(fund(2));
    EXPECT_FALSE(zone.table.exhausted(zone.key(1), k_limit, k_month, 10000)) << "it holds some";
    ASSERT_EQ(spend(2), Spend::taken);
    ASSERT_TRUE(zone.table.exhausted(zone.key(1), k_limit, k_month, 10000));
    EXPECT_TRUE(zone.table.refund(zone.view(1).ref, k_limit, k_month, 1));
    EXPECT_EQ(spend(1), Spend::taken);
    ASSERT_TRUE(zone.table.exhausted(zone.key(1), k_limit, k_month, 10000));
    ASSERT_TRUE(fund(1));
    EXPECT_EQ(spend(1), Spend::taken);
    EXPECT_EQ(zone.flush().at(0).spent, 3);
}

TEST_F(Tokens, AreReturnedWhenTheSnapshotChanges) {
    ASSERT_TRUE(fund(10));
    ASSERT_EQ(spend(4), Spend::taken);
    const RecordRef ref = zone.view(1).ref;
    EXPECT_EQ(zone.put(1, 2), Put::updated);
    EXPECT_EQ(spend(1), Spend::short_of_tokens);
    EXPECT_TRUE(zone.table.refund(ref, k_limit, k_month, 1)) << "the account is still here";
    const std::vector<UsageRow> rows = zone.drain();
    ASSERT_EQ(rows.size(), 2u);
    EXPECT_EQ(rows[0].spent, 4);
    EXPECT_EQ(rows[0].returned, 6);
    EXPECT_EQ(rows[1].spent, -1);
    EXPECT_EQ(rows[1].returned, 1);
}

TEST_F(Tokens, BeyondWhatASlotHoldsAreRefusedWhole) {
    ASSERT_TRUE(fund(token::k_most));
    EXPECT_FALSE(fund(1));
    ASSERT_EQ(spend(token::k_most), Spend::taken);
    EXPECT_TRUE(fund(token::k_most));
    ASSERT_EQ(spend(token::k_most), Spend::taken);
    EXPECT_TRUE(fund(token::k_most)) << "more than 32 bits unreported: reported on the way";
    std::int64_t spent = 0;
    for (const UsageRow& row : zone.drain()) {
        spent += row.spent;
    }
    EXPECT_EQ(spent, 2 * std::int64_t{token::k_most});
}

// The unit goes from one account to the next, more often than the generation has values: also where the token word's
// owner bits come round, the key tells them apart.
TEST_F(Tokens, OfANewOwnerAreOutOfReachForStaleReferences) {
    ASSERT_TRUE(fund(5));
    ASSERT_TRUE(fund(5, 0, k_month, 9)) << "in an extension";
    const RecordRef stale = zone.view(1).ref;
    int owners = 0;
    for (std::uint64_t account = 2; owners < 600; account++) {
        zone.put(account);
        const RecordRef fresh = zone.view(account).ref;
        if (fresh.record != stale.record) {
            continue;
        }
        owners++;
        for (const std::uint8_t limit : {k_limit, std::uint8_t{9}}) {
            ASSERT_TRUE(zone.table.fund(zone.key(account), limit, k_month, 5, 0, 0));
            ASSERT_EQ(zone.table.spend(stale, limit, k_month, 1, 0, outcome), Spend::gone);
            ASSERT_FALSE(zone.table.refund(stale, limit, k_month, 1));
            ASSERT_EQ(zone.table.spend(fresh, limit, k_month, 5, 0, outcome), Spend::taken);
        }
    }
    EXPECT_EQ(zone.table.check(), "");
}

TEST_F(Tokens, SpentByManyProcessesSumExactly) {
    constexpr std::uint64_t k_enough = 100000; // by each
    struct Board {
        alignas(64) std::uint64_t taken[3];
        alignas(64) std::uint64_t stop;
    };
    Shared<Board> board;
    pid_t children[3];
    for (unsigned c = 0; c < 3; c++) {
        children[c] = in_child([&] {
            SpendOutcome mine{};
            const RecordRef ref = zone.view(1).ref;
            std::uint64_t taken = 0;
            for (std::uint64_t tries = 0; shared::load(board->stop) == 0; tries++) {
                const std::uint32_t cost = 1 + static_cast<std::uint32_t>(tries % 3);
                if (zone.table.spend(ref, k_limit, k_month, cost, 0, mine) == Spend::taken) {
                    taken += cost;
                    if (tries % 7 == 0 && zone.table.refund(ref, k_limit, k_month, cost)) {
                        taken -= cost;
                    }
                } else {
                    sched_yield();
                }
                shared::store(board->taken[c], taken);
            }
        });
    }
    std::int64_t granted = 0;
    const auto have_enough = [&] {
        return std::ranges::all_of(board->taken,
                                   [](const std::uint64_t& taken) { return shared::load(taken) > k_enough; });
    };
    while (!have_enough()) {
        if (zone.table.use().held < 1000) {
            ASSERT_TRUE(fund(20000));
            granted += 20000;
        }
    }
    shared::store(board->stop, 1);
    for (const pid_t child : children) {
        EXPECT_TRUE(ended_well(await(child)));
    }
    std::int64_t reported = 0;
    std::int64_t returned = 0;
    for (const UsageRow& row : zone.drain()) {
        reported += row.spent;
        returned += row.returned;
    }
    EXPECT_EQ(static_cast<std::uint64_t>(reported), board->taken[0] + board->taken[1] + board->taken[2]);
    EXPECT_EQ(reported + returned, granted);
}

} // namespace
} // namespace billing
