// Promise guarded: a problem document that was written before is sent again only where each word of it still is true.
// P10, G19.
#include "gate/recent_problems.hpp"

#include <gtest/gtest.h>

namespace billing {
namespace {

RecentProblems::Key some_key() {
    static const int place = 0;
    RecentProblems::Key key{&place, 7, 402, {}};
    key.decision.reason = Reason::limit_reached;
    key.decision.plan_no = 2;
    key.decision.meter = {true, false, 1, false, 20, 0, 1700000000, 3, 0};
    return key;
}

TEST(RecentProblems, AreWrittenOnce) {
    RecentProblems problems;
    int written = 0;
    const auto ask = [&](const RecentProblems::Key& key) {
        return problems.find(key, [&] { return "document " + std::to_string(++written); });
    };
    EXPECT_EQ(ask(some_key()), "document 1");
    EXPECT_EQ(ask(some_key()), "document 1");
    EXPECT_EQ(written, 1);
}

TEST(RecentProblems, WhateverDiffersMakesAnother) {
    static const int elsewhere = 0;
    using Change = void (*)(RecentProblems::Key&);
    const Change changes[] = {
        [](RecentProblems::Key& key) { key.location = &elsewhere; },
        [](RecentProblems::Key& key) { ++key.catalog; },
        [](RecentProblems::Key& key) { key.status = 429; },
        [](RecentProblems::Key& key) { key.decision.reason = Reason::credits_short; },
        [](RecentProblems::Key& key) { ++key.decision.plan_no; },
        [](RecentProblems::Key& key) { ++key.decision.meter.quota; },
        [](RecentProblems::Key& key) { ++key.decision.meter.limit; },
        [](RecentProblems::Key& key) { ++key.decision.meter.remaining; },
        [](RecentProblems::Key& key) { ++key.decision.meter.reset; },
        [](RecentProblems::Key& key) { ++key.decision.meter.cost; },
    };
    for (const Change& change : changes) {
        RecentProblems problems;
        RecentProblems::Key other = some_key();
        change(other);
        EXPECT_EQ(problems.find(some_key(), [] { return std::string{"one"}; }), "one");
        EXPECT_EQ(problems.find(other, [] { return std::string{"another"}; }), "another") << &change - changes;
        EXPECT_EQ(problems.find(some_key(), [] { return std::string{"one"}; }), "one");
    }
}

} // namespace
} // namespace billing
