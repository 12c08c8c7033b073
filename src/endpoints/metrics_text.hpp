// What billing_metrics shows, as Prometheus reads it (text format 0.0.4). Pure. No label ever names an account: there
// are as many of those as there are customers.
#pragma once

#include "state/host_gauges.hpp"
#include "state/table.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace billing {

// A host at a moment.
struct HostMetrics {
    std::array<std::uint64_t, static_cast<std::size_t>(Counter::count_)> counters{}; // by Counter
    ZoneUse zone{};
    std::vector<WorkerState> workers;
    std::optional<std::int64_t> watermark_age_ms; // nothing: none has arrived yet
    std::optional<QueueDepths> queues;            // nothing: PostgreSQL does not answer, so there is nothing to show
    std::string_view nginx;                       // its version

    std::uint64_t count(Counter counter) const noexcept { return counters[static_cast<std::size_t>(counter)]; }
};

std::string metrics_text(const HostMetrics& host);

} // namespace billing
