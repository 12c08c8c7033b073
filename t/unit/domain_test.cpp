// The rules that need no store: ids, periods, when access lapses, what a snapshot and a catalog may be.
#include "domain/account.hpp"
#include "domain/catalog.hpp"
#include "domain/json.hpp"
#include "domain/snapshot.hpp"

#include <gtest/gtest.h>

namespace billing {
namespace {

TEST(Domain, AccountIdsAreOneTo128BytesOfANarrowAlphabet) {
    EXPECT_TRUE(valid_account_id("a"));
    EXPECT_TRUE(valid_account_id("auth0|61f@x.y:Z_-"));
    EXPECT_TRUE(valid_account_id(std::string(128, 'x')));
    EXPECT_FALSE(valid_account_id(""));
    EXPECT_FALSE(valid_account_id(std::string(129, 'x')));
    for (int byte = 0; byte < 256; ++byte) {
        const char c = static_cast<char>(byte);
        const bool narrow =
            std::string_view{"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.@:|-"}.find(c) !=
            std::string_view::npos;
        EXPECT_EQ(valid_account_id(std::string(3, c)), narrow) << byte;
    }
}

Snapshot with_status(Status status) {
    Snapshot snapshot;
    snapshot.status = status;
    return snapshot;
}

TEST(Domain, EnforcementLapsesWithTheGraceUnlessTheAccountPays) { // G6
    auto snapshot = with_status(Status::canceled);
    snapshot.enforced = true;
    snapshot.grace_until = 1000;
    EXPECT_EQ(lapse_of(snapshot).rule, Lapse::Rule::enforcement);
    EXPECT_EQ(lapse_of(snapshot).at, 1000);
    snapshot.grace_until.reset();
    EXPECT_EQ(lapse_of(snapshot).at, 0) << "without a grace it has lapsed";
    snapshot.status = Status::active;
    EXPECT_EQ(lapse_of(snapshot).rule, Lapse::Rule::none);
}

TEST(Domain, PastDueIsLiveWhileItsGraceRuns) { // G7
    auto snapshot = with_status(Status::past_due);
    snapshot.grace_until = 1000;
    EXPECT_TRUE(contains(k_live_statuses, snapshot.status));
    EXPECT_EQ(lapse_of(snapshot).rule, Lapse::Rule::subscription);
    EXPECT_EQ(lapse_of(snapshot).at, 1000);
    for (const auto status :
         {Status::canceled, Status::unpaid, Status::paused, Status::incomplete, Status::incomplete_expired}) {
        EXPECT_FALSE(contains(k_live_statuses, status));
    }
}

TEST(Domain, APeriodsEndHasSlackAPendingCancellationHasNone) { // G7
    auto snapshot = with_status(Status::active);
    snapshot.period_end = 100'000;
    EXPECT_EQ(lapse_of(snapshot).at, 100'000 + k_renewal_slack_seconds);
    snapshot.cancel_at = 100'000;
    EXPECT_EQ(lapse_of(snapshot).at, 100'000);
    snapshot.cancel_at = 200'000'000;
    EXPECT_EQ(lapse_of(snapshot).at, 100'000 + k_renewal_slack_seconds) << "an end that is seen first counts";
    auto trial = with_status(Status::trialing);
    trial.trial_end = 5000;
    EXPECT_EQ(lapse_of(trial).at, 5000 + k_renewal_slack_seconds);
}

constexpr std::string_view k_body =
    R"({"id":7,"account":"demo","stamp":"0000010000000003","plan":2,"status":"past_due","write_enabled":true,)"
    R"("maintenance":"payment","enforced":true,"overage_on":false,"deleted":false,"grace_until":1000,"trial_end":null,"anchor":1706659200,)"
    R"("period_end":2000,"cancel_at":null,"zone":{"spans":[[0,3600],[1711846800,7200]],"until":1720000000},"features":{"3":{"on":true,"until":null},"127":{"on":false,"until":9}},)"
    R"("limits":{"0":{"amount":50,"until":null},"63":{"amount":null,"until":8}}})";

TEST(Domain, ASnapshotIsReadAsItWasPublished) {
    const auto read = read_snapshot(k_body);
    ASSERT_TRUE(read.ok()) << read.error();
    const auto& snapshot = read.value();
    EXPECT_EQ(snapshot.id, 7U);
    EXPECT_EQ(snapshot.account, "demo");
    EXPECT_EQ(snapshot.stamp, (std::uint64_t{1} << 40) + 3);
    EXPECT_EQ(snapshot.status, Status::past_due);
    EXPECT_EQ(snapshot.maintenance, Maintenance::payment);
    EXPECT_EQ(snapshot.anchor, 1706659200);
    ASSERT_EQ(snapshot.zone.size(), 2U);
    EXPECT_EQ(snapshot.zone[1].offset, 7200);
    EXPECT_EQ(snapshot.zone_until, 1720000000);
    ASSERT_EQ(snapshot.features.size(), 2U);
    ASSERT_EQ(snapshot.limits.size(), 2U);
    EXPECT_EQ(snapshot.limits[0].amount, 50);
    EXPECT_FALSE(snapshot.limits[1].amount.has_value()) << "null is unlimited, never 0";
}

TEST(Domain, WhatIsNoSnapshotIsRefused) { // A44: a poisoned cache looks like an empty one
    for (const auto& [from, to] : std::initializer_list<std::pair<std::string, std::string>>{
             {"\"id\":7", "\"id\":0"},
             {"\"id\":7", "\"id\":\"7\""},
             {"\"id\":7", "\"id\":7,\"id\":8"},
             {"\"id\":7", "\"id\":1099511627776"},
             {"\"anchor\":1706659200", "\"anchor\":null"},
             {"[0,3600],[1711846800,7200]", ""},
             {"[0,3600]", "[0,86400]"},
             {"[0,3600]", "[0]"},
             {"\"until\":1720000000", "\"until\":null"},
             {"demo", "a b"},
             {"0000010000000003", "10000000003"},
             {"\"plan\":2", "\"plan\":256"},
             {"past_due", "late"},
             {"\"payment\"", "\"yes\""},
             {"\"write_enabled\":true", "\"write_enabled\":1"},
             {"\"3\":{\"on\":true", "\"128\":{\"on\":true"},
             {"\"3\":{\"on\":true", "\"3\":{\"on\":1"},
             {"\"amount\":50", "\"amount\":\"50\""},
         }) {
        std::string body{k_body};
        const auto at = body.find(from);
        ASSERT_NE(at, std::string::npos) << from;
        body.replace(at, from.size(), to);
        EXPECT_FALSE(read_snapshot(body).ok()) << to;
    }
    EXPECT_FALSE(read_snapshot("").ok());
    EXPECT_FALSE(read_snapshot("[]").ok());
    EXPECT_FALSE(read_snapshot(k_body.substr(0, 100)).ok());
}

TEST(Domain, StampsSortAsTheirTextDoes) {
    const std::uint64_t stamps[] = {0, 1, 9, 10, 255, std::uint64_t{1} << 40, (std::uint64_t{1} << 63) - 1};
    for (const auto a : stamps) {
        EXPECT_EQ(from_hex16(to_hex16(a)), a);
        for (const auto b : stamps) {
            EXPECT_EQ(a < b, to_hex16(a) < to_hex16(b));
        }
    }
    EXPECT_FALSE(from_hex16("00000000000000zz").has_value());
    EXPECT_FALSE(from_hex16("12").has_value());
}

TEST(Domain, ARuntimeCatalogTellsUnlimitedFromNone) {
    const auto read = Catalog::read(
        R"({"stamp":"0000010000000001","default_plan":1,"features":{"a":0,"z":127},"limits":{"requests":{"no":5,"period":"day"}},)"
        R"("plans":[{"no":1,"key":"free","name":"Free","rank":0,"free":true,"features":[0],"limits":{"5":0}},)"
        R"({"no":2,"key":"pro","rank":3,"free":false,"features":[0,127],"limits":{"5":null}}]})");
    ASSERT_TRUE(read.ok()) << read.error();
    const auto& catalog = read.value();
    EXPECT_FALSE(catalog.plan("free")->allowance(5).unlimited);
    EXPECT_EQ(catalog.plan("free")->allowance(5).amount, 0);
    EXPECT_TRUE(catalog.plan("pro")->allowance(5).unlimited);
    EXPECT_EQ(catalog.plan("pro")->allowance(6).amount, 0) << "a limit that a plan does not name is none";
    EXPECT_EQ(catalog.plan("pro")->name, "pro");
    EXPECT_EQ(catalog.plan("gold"), nullptr);
    EXPECT_EQ(catalog.feature("z"), 127U);
    EXPECT_EQ(catalog.limit("requests")->period, PeriodKind::day);
    EXPECT_FALSE(Catalog::read(R"({"stamp":"0000010000000001","default_plan":9,"plans":[]})").ok());
}

} // namespace
} // namespace billing
