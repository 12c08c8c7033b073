// Promise guarded: whatever is counted is shown, once and under its own name; each reason has a counter of its own; and
// what is not known is left out, not shown as 0. O2.
#include "endpoints/metrics_text.hpp"

#include "gate/tally.hpp"
#include "table_zone.hpp"

#include <gtest/gtest.h>

#include <set>

namespace billing {
namespace {

bool has_line(const std::string& page, const std::string& line) {
    return ("\n" + page).find("\n" + line + "\n") != std::string::npos;
}

std::size_t times(const std::string& page, const std::string& text) {
    std::size_t count = 0;
    for (std::size_t at = page.find(text); at != std::string::npos; at = page.find(text, at + 1)) {
        ++count;
    }
    return count;
}

HostMetrics counted() {
    HostMetrics host;
    for (std::size_t number = 0; number < host.counters.size(); ++number) {
        host.counters[number] = 1'000'000 + number;
    }
    host.nginx = "1.22.1";
    return host;
}

TEST(MetricsText, EachCounterIsShownOnce) {
    const HostMetrics host = counted();
    const std::string page = metrics_text(host);
    for (std::size_t number = 0; number < host.counters.size(); ++number) {
        const auto counter = static_cast<Counter>(number);
        if (counter != Counter::allowed_warm && counter != Counter::allowed && counter != Counter::from_shm) {
            EXPECT_EQ(times(page, " " + std::to_string(host.counters[number]) + "\n"), 1u) << "counter " << number;
        }
    }
    const std::uint64_t warm = host.count(Counter::allowed_warm);
    EXPECT_TRUE(has_line(page, "billing_decisions_total{decision=\"allow\",reason=\"none\"} " +
                                   std::to_string(warm + host.count(Counter::allowed))));
    EXPECT_TRUE(has_line(page, "billing_cache_lookups_total{source=\"shm\"} " +
                                   std::to_string(warm + host.count(Counter::from_shm))));
}

TEST(MetricsText, WhatIsNotKnownIsLeftOut) {
    HostMetrics host;
    host.nginx = "1.22.1";
    std::string page = metrics_text(host);
    for (const char* name : {"watermark", "backlog", "oldest", "dirty", "outbox", "redis\"} 0"}) {
        EXPECT_EQ(times(page, std::string{"billing_"} + name), 0u) << name;
    }
    EXPECT_TRUE(has_line(page, "billing_backend_up{backend=\"postgres\"} 0")) << "of no worker nobody knows that it is";
    EXPECT_TRUE(has_line(page, "billing_build_info{version=\"0.1.0\",nginx=\"1.22.1\"} 1"));

    host.watermark_age_ms = 12'034;
    host.queues = QueueDepths{1, 2, 3, 4, 5, 6, 7};
    page = metrics_text(host);
    for (const char* line :
         {"billing_watermark_age_seconds 12.034", "billing_webhook_backlog{status=\"received\"} 1",
          "billing_webhook_backlog{status=\"processing\"} 2", "billing_webhook_backlog{status=\"parked\"} 3",
          "billing_webhook_backlog{status=\"dead\"} 4", "billing_webhook_oldest_unprocessed_seconds 5",
          "billing_dirty_accounts 6", "billing_outbox_pending 7"}) {
        EXPECT_TRUE(has_line(page, line)) << line;
    }
}

TEST(MetricsText, WorkersAreSummed) {
    HostMetrics host;
    host.workers = {WorkerState{true, true, true, false, 3, 4}, WorkerState{true, true, true, true, 5, 6}};
    host.zone = ZoneUse{1000, 10, 5, 77};
    const std::string page = metrics_text(host);
    for (const char* line :
         {"billing_workers 2", "billing_backend_up{backend=\"postgres\"} 1", "billing_backend_up{backend=\"redis\"} 0",
          "billing_backend_connected_workers{backend=\"redis\"} 1",
          "billing_backend_pending_requests{backend=\"postgres\"} 8",
          "billing_backend_pending_requests{backend=\"redis\"} 10", "billing_cache_entries 10",
          "billing_cache_bytes{state=\"used\"} 960", "billing_cache_bytes{state=\"total\"} 64000",
          "billing_quota_held_tokens 77"}) {
        EXPECT_TRUE(has_line(page, line)) << line;
    }
}

TEST(Tally, EachReasonAndEachSourceHasItsCounter) {
    std::set<Counter> counters;
    for (std::size_t reason = 1; reason < k_reasons; ++reason) {
        counters.insert(counter_of(static_cast<Reason>(reason)));
    }
    EXPECT_EQ(counters.size(), k_reasons - 1);

    TestZone zone;
    Decision decision;
    decision.source = Source::shm;
    tally_pass(zone.table, decision);
    EXPECT_EQ(zone.table.counted(Counter::allowed_warm), 1u);
    decision.grace = true;
    tally_pass(zone.table, decision);
    decision.grace = false;
    decision.fallback = true;
    decision.source = Source::none;
    tally_pass(zone.table, decision);
    decision = Decision{};
    decision.source = Source::stale;
    tally_pass(zone.table, decision);
    decision.reason = Reason::limit_reached;
    decision.source = Source::postgres;
    tally_refusal(zone.table, decision, false);
    decision.reason = Reason::plan_required;
    decision.source = Source::redis;
    tally_refusal(zone.table, decision, true);
    for (const Counter counter :
         {Counter::allowed_warm, Counter::allowed_grace, Counter::allowed_fallback, Counter::allowed,
          Counter::denied_limit, Counter::observed_plan, Counter::from_redis, Counter::from_shm, Counter::from_nowhere,
          Counter::from_stale, Counter::from_postgres}) {
        EXPECT_EQ(zone.table.counted(counter), 1u) << static_cast<int>(counter);
    }
}

TEST(TableStates, OfWorkersThatAreAlive) {
    TestZone zone;
    const auto mine = static_cast<std::uint32_t>(getpid());
    zone.table.join(mine);
    EXPECT_TRUE(zone.table.states().empty()) << "it has not told anything yet";
    zone.table.tell_state(mine, WorkerState{true, true, false, false, 7, 0});
    zone.table.tell_state(mine + 1, WorkerState{true, false, false, false, 0, 0});
    const auto states = zone.table.states();
    ASSERT_EQ(states.size(), 1u) << "who has not joined is nobody";
    EXPECT_TRUE(states[0].postgres_up);
    EXPECT_EQ(states[0].postgres_pending, 7);
    zone.table.leave(mine);
    EXPECT_TRUE(zone.table.states().empty());
    zone.table.join(mine);
    EXPECT_TRUE(zone.table.states().empty()) << "whoever comes begins anew";

    ZoneUse parts{zone.table.units(), 0, 0, 0};
    for (std::uint32_t from = 0; from < parts.units; from += 100) {
        zone.table.add_use(from, 100, parts);
    }
    EXPECT_EQ(parts.records, zone.table.use().records);
}

} // namespace
} // namespace billing
