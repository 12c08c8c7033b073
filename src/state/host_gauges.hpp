// What can be measured of a host but costs a look around: queues in PostgreSQL, use of the shared memory. One for each
// worker, for billing_metrics; what it saw is good for some seconds, so that nobody's asking can become a load.
#pragma once

#include "async/complaint.hpp"
#include "async/task.hpp"
#include "drivers/postgres.hpp"
#include "state/table.hpp"

#include <cstdint>
#include <optional>

namespace billing {

// Counts end at 100000: that many or more.
struct QueueDepths {
    std::int64_t received = 0; // events to be processed
    std::int64_t processing = 0;
    std::int64_t parked = 0;
    std::int64_t dead = 0;
    std::int64_t oldest_event_s = 0; // since the first in line came
    std::int64_t dirty = 0;          // accounts whose last change is not published
    std::int64_t outbox = 0;         // notices not delivered
};

class HostGauges {
public:
    // All references outlive the object.
    HostGauges(Reactor& reactor, Postgres& postgres, const Table& table)
        : reactor_(reactor), postgres_(postgres), table_(table), trouble_(reactor) {}

    // Nothing where PostgreSQL does not answer within a second.
    Task<std::optional<QueueDepths>> queues();
    Task<ZoneUse> zone();

private:
    bool is_fresh(std::int64_t seen_ms) const noexcept;

    Reactor& reactor_;
    Postgres& postgres_;
    const Table& table_;
    Complaint trouble_;
    std::optional<QueueDepths> queues_;
    ZoneUse use_{};
    std::int64_t queues_ms_ = 0; // when it was seen; 0 = never
    std::int64_t use_ms_ = 0;
};

} // namespace billing
