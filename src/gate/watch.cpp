// What the gate says of a request that it lets through beside letting it: that a quota has reached a threshold of
// `warn=`, and that the request takes overage. Called by Gate::spend_special, where a location or its catalog asks for
// it.
#include "gate/gate.hpp"

#include <algorithm>

namespace billing {

// How much of each quota is used by now, as far as this host knows: thresholds, and overage. `seen` holds their
// periods.
void Gate::watch(const Seen& seen, const BoundRules& rules, const Ask& ask, Decision& decision) noexcept {
    const auto& quotas = rules.quotas();
    for (std::size_t index = 0; index < quotas.size(); ++index) {
        const auto& warns = rules_[ask.rules_index]->quotas[index].warns;
        const std::uint64_t limit = limit_of(seen, quotas[index]);
        if ((warns.empty() && !quotas[index].overage) || limit == k_unlimited) {
            continue;
        }
        SpendOutcome outcome;
        const Spend result =
            table_.spend(seen.view.ref, quotas[index].limit_no, seen.periods[index], 0, ask.now_ms, outcome);
        if (result != Spend::taken && result != Spend::exhausted) {
            continue;
        }
        const bool beyond = result == Spend::taken && outcome.is_overage();
        if (beyond && decision.meter.metered && decision.meter.quota == index) {
            decision.meter.remaining = 0;
        }
        decision.meter.overage = decision.meter.overage || beyond;
        const std::uint64_t left = result == Spend::taken && !beyond ? outcome.remaining : 0;
        const std::uint64_t used = limit - std::min(limit, left);
        for (const std::uint8_t percent : warns) {
            const std::uint64_t threshold = limit / 100 * percent + (limit % 100 * percent + 99) / 100;
            if (limit != 0 && used >= threshold && percent > decision.warning) {
                decision.warning = percent;
                decision.warned = static_cast<std::uint8_t>(index);
            }
        }
    }
}

} // namespace billing
