// Counts what was decided, for billing_metrics: in shared memory, so that any worker can tell for the whole host.
// Called by nginx/gate_handler, once for each decision.
#pragma once

#include "gate/decision.hpp"
#include "state/table.hpp"

namespace billing {

// What counts a refusal for this reason.
Counter counter_of(Reason reason) noexcept;

// `observes`: it was not carried out.
void tally_refusal(Table& table, const Decision& decision, bool observes) noexcept;

void tally_unusual_pass(Table& table, const Decision& decision) noexcept;

// A request that shared memory lets through costs one addition. False: this one was another.
inline bool tally_pass(Table& table, const Decision& decision) noexcept {
    if (decision.source == Source::shm && !decision.grace && !decision.fallback) [[likely]] {
        table.count(Counter::allowed_warm);
        return true;
    }
    tally_unusual_pass(table, decision);
    return false;
}

} // namespace billing
