#include "gate/tally.hpp"

#include <array>

namespace billing {

namespace {

// By reason; `allowed` is none that refuses.
constexpr std::array k_denied = {
    Counter::allowed,
    Counter::denied_no_account,
    Counter::denied_invalid_token,
    Counter::denied_invalid_key,
    Counter::denied_invalid_account,
    Counter::denied_invalid_cost,
    Counter::denied_invalid_idempotency_key,
    Counter::denied_unknown_account,
    Counter::denied_write_disabled,
    Counter::denied_maintenance,
    Counter::denied_enforced,
    Counter::denied_inactive,
    Counter::denied_plan,
    Counter::denied_feature,
    Counter::denied_key_outstanding,
    Counter::denied_key_misused,
    Counter::denied_limit,
    Counter::denied_rate,
    Counter::denied_credits,
    Counter::denied_stock,
    Counter::denied_unavailable,
};
static_assert(k_denied.size() == k_reasons);

// By source.
constexpr std::array k_sources = {Counter::from_nowhere, Counter::from_shm, Counter::from_redis, Counter::from_postgres,
                                  Counter::from_stale};
static_assert(k_sources.size() == static_cast<std::size_t>(Source::stale) + 1);

void tally_source(Table& table, Source source) noexcept { table.count(k_sources[static_cast<std::size_t>(source)]); }

} // namespace

Counter counter_of(Reason reason) noexcept { return k_denied[static_cast<std::size_t>(reason)]; }

void tally_refusal(Table& table, const Decision& decision, bool observes) noexcept {
    const Counter denied = counter_of(decision.reason);
    table.count(observes ? observed(denied) : denied);
    tally_source(table, decision.source);
}

void tally_unusual_pass(Table& table, const Decision& decision) noexcept {
    table.count(decision.fallback ? Counter::allowed_fallback
                : decision.grace  ? Counter::allowed_grace
                                  : Counter::allowed);
    tally_source(table, decision.source);
}

} // namespace billing
