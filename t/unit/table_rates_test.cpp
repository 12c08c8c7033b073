// Promise: a rate lets through as many as the plan says, whichever process counts, without a lock; it stands beside
// tokens and is never taken for them; what is not known of an account costs it no memory. And the account's own
// calendar: when its months begin, its time zone. G25, G10, P5.
#include "table_zone.hpp"

#include <gtest/gtest.h>

namespace billing {
namespace {

constexpr std::uint8_t k_rate = 3;
constexpr std::uint64_t k_second = 1'000'000;
constexpr RateShape k_ten_a_minute{6 * k_second, 60 * k_second};

struct Rates : testing::Test {
    TestZone zone;
    std::uint64_t wait = 0;

    void SetUp() override {
        ASSERT_EQ(zone.put(1), Put::inserted);
        ASSERT_TRUE(zone.table.provide_rate(zone.key(1), k_rate));
    }
    Pass pass(std::uint64_t now_us, RateShape shape = k_ten_a_minute, std::uint8_t rate = k_rate) {
        return zone.table.pass(zone.view(1).ref, rate, shape, now_us, wait);
    }
    int passed(int count, std::uint64_t now_us, RateShape shape = k_ten_a_minute) {
        int sum = 0;
        for (int i = 0; i < count; i++) {
            sum += pass(now_us, shape) == Pass::passed;
        }
        return sum;
    }
};

TEST_F(Rates, LetThroughTheirCountAtOnceAndThenOneEachInterval) { // G25
    const std::uint64_t start = 1000 * k_second;
    EXPECT_EQ(passed(20, start), 10);
    EXPECT_EQ(pass(start), Pass::refused);
    EXPECT_EQ(wait, 6 * k_second);
    EXPECT_EQ(passed(20, start + 6 * k_second - 1), 0);
    EXPECT_EQ(wait, 1U);
    EXPECT_EQ(passed(20, start + 6 * k_second), 1);
    EXPECT_EQ(passed(20, start + 36 * k_second), 5);
    EXPECT_EQ(passed(20, start + 1000 * k_second), 10) << "never more than the count, however long it was idle";
}

TEST_F(Rates, OfNothingLetNothingThrough) {
    EXPECT_EQ(pass(5, {RateShape::k_never, 0}), Pass::refused);
    EXPECT_EQ(wait, RateShape::k_never);
}

TEST_F(Rates, FollowThePlan) {
    EXPECT_EQ(passed(20, 0), 10);
    constexpr RateShape k_thirty{2 * k_second, 60 * k_second};
    EXPECT_EQ(pass(0, k_thirty), Pass::refused);
    EXPECT_EQ(wait, 2 * k_second) << "what was let through before counts, at the new pace";
    EXPECT_EQ(passed(90, 30 * k_second, k_thirty), 15);
}

TEST_F(Rates, AreKeptApartAndOutliveASnapshot) {
    ASSERT_TRUE(zone.table.provide_rate(zone.key(1), 63));
    ASSERT_TRUE(zone.table.provide_rate(zone.key(1), 63)) << "once is enough";
    EXPECT_EQ(zone.table.use().extensions, 1U);
    EXPECT_EQ(passed(20, 0), 10);
    EXPECT_EQ(pass(0, k_ten_a_minute, 63), Pass::passed);
    EXPECT_EQ(pass(0, k_ten_a_minute, 62), Pass::no_slot);
    EXPECT_EQ(zone.put(1, 2), Put::updated);
    EXPECT_EQ(pass(0), Pass::refused);
    EXPECT_TRUE(zone.drain().empty()) << "nothing to report, nothing to give back";
    EXPECT_EQ(zone.table.use().held, 0U);
    EXPECT_EQ(zone.table.check(), "");
}

TEST_F(Rates, DoNotTouchTokens) {
    SpendOutcome outcome{};
    for (std::uint8_t limit = 0; limit < 5; limit++) {
        ASSERT_TRUE(zone.table.fund(zone.key(1), limit, 7, 10, 0, 0));
    }
    EXPECT_EQ(passed(20, 0), 10);
    for (std::uint8_t limit = 0; limit < 5; limit++) {
        EXPECT_EQ(zone.table.spend(zone.view(1).ref, limit, 7, 10, 0, outcome), Spend::taken);
        EXPECT_EQ(zone.table.spend(zone.view(1).ref, limit, 7, 1, 0, outcome), Spend::short_of_tokens);
    }
    std::int64_t spent = 0;
    for (const UsageRow& row : zone.drain()) {
        EXPECT_LT(row.limit_no, 5U);
        spent += row.spent;
    }
    EXPECT_EQ(spent, 50);
}

TEST_F(Rates, OfAnAccountThatLeftAreGone) {
    const RecordRef stale = zone.view(1).ref;
    EXPECT_FALSE(zone.table.provide_rate(zone.key(2), k_rate));
    for (std::uint64_t account = 2; zone.has(1); account++) {
        zone.put(account);
        ASSERT_LT(account, 100'000U);
    }
    EXPECT_EQ(zone.table.pass(stale, k_rate, k_ten_a_minute, 0, wait), Pass::gone);
}

TEST_F(Rates, CountExactlyOverProcesses) { // G25: over the workers of a host
    constexpr RateShape k_many{10, 5000 * std::uint64_t{10}};
    Shared<std::uint64_t> sums[3];
    pid_t children[3];
    for (unsigned c = 0; c < 3; c++) {
        children[c] = in_child([&] {
            const RecordRef ref = zone.view(1).ref;
            std::uint64_t ignored = 0;
            for (int i = 0; i < 20'000; i++) {
                *sums[c] += zone.table.pass(ref, k_rate, k_many, 77, ignored) == Pass::passed;
            }
        });
    }
    std::uint64_t sum = 0;
    for (unsigned c = 0; c < 3; c++) {
        EXPECT_TRUE(ended_well(await(children[c])));
        sum += *sums[c];
    }
    EXPECT_EQ(sum, 5000U);
}

// --- the account's own calendar

struct Calendars : testing::Test {
    TestZone zone;

    Put put(std::uint64_t stamp, std::int64_t anchor, const ZoneOffsets* offsets, std::uint32_t overrides_until = 0) {
        AccountFacts facts{};
        facts.id = k_account_number_max;
        facts.stamp = stamp;
        facts.calendar = AccountCalendar::of(CycleAnchor::of(anchor), offsets != nullptr);
        facts.overrides_until = overrides_until;
        return zone.table.put(zone.key(1), facts, zone.table.valid_gen(), {},
                              offsets == nullptr ? ZoneOffsets{} : *offsets);
    }
};

TEST_F(Calendars, OfAnAnchorCostNoMemory) { // P5
    for (const std::int64_t anchor : {std::int64_t{0}, std::int64_t{86399}, std::int64_t{1769817600 + 45296}}) {
        put(static_cast<std::uint64_t>(anchor) + 1, anchor, nullptr);
        EXPECT_EQ(zone.view(1).calendar.anchor(), CycleAnchor::of(anchor));
        EXPECT_FALSE(zone.view(1).calendar.zoned());
        EXPECT_EQ(zone.view(1).id, static_cast<std::uint64_t>(k_account_number_max));
    }
    EXPECT_EQ(zone.table.use().extensions, 0U);
    EXPECT_LE(Table::bytes_for(1'000'000) / 1'000'000, 80U);
    SpendOutcome outcome{};
    ASSERT_TRUE(zone.table.fund(zone.key(1), 0, 7, 10, 0, 3));
    EXPECT_EQ(zone.table.spend(zone.view(1).ref, 0, 7, 7, 0, outcome), Spend::taken);
    EXPECT_EQ(zone.drain().at(0).account_id, static_cast<std::uint64_t>(k_account_number_max))
        << "and no part of the id";
}

TEST_F(Calendars, OfAZoneAreReadAsWritten) { // G10
    const ZoneOffsets berlin{1774746000, 1792890000, 1800000000, 3600, 7200, 3600};
    const ZoneOffsets west{0, 0, 1900000000, -43200, -43200, -43200};
    ASSERT_EQ(put(1, 0, &berlin, 1800000000), Put::inserted);
    EXPECT_EQ(zone.table.use().extensions, 1U);
    AccountView view = zone.view(1);
    EXPECT_TRUE(view.calendar.zoned());
    EXPECT_FALSE(view.has_overrides);
    EXPECT_EQ(view.overrides_until, 1800000000U) << "then it has to be read anew";
    ZoneOffsets read;
    ASSERT_TRUE(zone.table.zone_of(view.ref, read));
    EXPECT_EQ(read, berlin);
    ASSERT_EQ(put(1, 0, &west, 1900000000), Put::revalidated) << "the same stamp, told later";
    ASSERT_TRUE(zone.table.zone_of(view.ref, read));
    EXPECT_EQ(read, west);
    ASSERT_EQ(put(2, 0, nullptr), Put::updated);
    EXPECT_FALSE(zone.view(1).calendar.zoned());
    EXPECT_EQ(zone.view(1).overrides_until, 0U);
    EXPECT_EQ(zone.table.check(), "");
    for (std::uint64_t account = 2; zone.has(1); account++) {
        zone.put(account);
    }
    EXPECT_FALSE(zone.table.zone_of(view.ref, read)) << "the account left";
}

TEST_F(Calendars, SayWhenUnitsComeBackWhileTheyAreExhausted) { // G10
    put(1, 0, nullptr);
    SpendOutcome outcome{};
    const auto spend = [&] { return zone.table.spend(zone.view(1).ref, 0, 7, 1, 500, outcome); };
    ASSERT_TRUE(zone.table.exhausted(zone.key(1), 0, 7, 1000, 1800000000));
    EXPECT_EQ(spend(), Spend::exhausted);
    EXPECT_EQ(outcome.resets, 1800000000U);
    EXPECT_TRUE(zone.table.refund(zone.view(1).ref, 0, 7, 2));
    EXPECT_EQ(spend(), Spend::taken);
    EXPECT_EQ(outcome.remaining, 1U) << "a time is never taken for units";
    ASSERT_EQ(spend(), Spend::taken);
    ASSERT_TRUE(zone.table.exhausted(zone.key(1), 0, 7, 1000, 1800000000));
    put(2, 0, nullptr);
    EXPECT_TRUE(zone.table.refund(zone.view(1).ref, 0, 7, 2));
    EXPECT_EQ(spend(), Spend::taken);
    EXPECT_EQ(outcome.remaining, 1U);
}

} // namespace
} // namespace billing
