#include "state/facts.hpp"

#include <algorithm>
#include <limits>

namespace billing {

namespace {

constexpr std::uint32_t seconds32(std::int64_t unix_seconds) noexcept {
    return static_cast<std::uint32_t>(
        std::clamp<std::int64_t>(unix_seconds, 0, std::numeric_limits<std::uint32_t>::max()));
}

std::uint8_t flags_of(const Snapshot& snapshot) noexcept {
    unsigned flags = 0;
    flags |= snapshot.maintenance == Maintenance::payment ? AccountFlags::k_maintenance_payment : 0U;
    flags |= snapshot.maintenance == Maintenance::operator_hold ? AccountFlags::k_maintenance_operator : 0U;
    flags |= snapshot.write_enabled ? 0U : AccountFlags::k_write_disabled;
    flags |= snapshot.enforced ? AccountFlags::k_enforced : 0U;
    flags |= snapshot.overage_on ? AccountFlags::k_overage_on : 0U;
    flags |= snapshot.deleted ? AccountFlags::k_deleted : 0U;
    return static_cast<std::uint8_t>(flags);
}

UntilKind kind_of(Lapse::Rule rule) noexcept {
    switch (rule) {
    case Lapse::Rule::enforcement:
        return UntilKind::enforcement;
    case Lapse::Rule::subscription:
        return UntilKind::subscription;
    case Lapse::Rule::none:
        break;
    }
    return UntilKind::none;
}

// True while the override holds; remembers the earliest end.
bool holds(const std::optional<std::int64_t>& until, std::int64_t now, std::uint32_t& next_end) noexcept {
    if (!until) {
        return true;
    }
    if (*until <= now) {
        return false;
    }
    const std::uint32_t end = seconds32(*until);
    next_end = next_end == 0 ? end : std::min(next_end, end);
    return true;
}

// The present offset of the zone, and what is before and after it, for as long as no further change can lie within the
// month that a request is in.
ZoneOffsets zone_at(const Snapshot& snapshot, std::int64_t now) noexcept {
    constexpr std::int64_t k_month = 32 * std::int64_t{86400};
    const auto& spans = snapshot.zone;
    std::size_t at = 0;
    while (at + 1 < spans.size() && spans[at + 1].from <= now) {
        ++at;
    }
    ZoneOffsets zone{spans[at].from,  0, snapshot.zone_until - k_month, spans[at].offset, spans[at].offset,
                     spans[at].offset};
    if (at > 0) {
        zone.before = spans[at - 1].offset;
    }
    if (at + 1 < spans.size()) {
        zone.change_at = spans[at + 1].from;
        zone.after = spans[at + 1].offset;
    }
    if (at + 2 < spans.size()) {
        zone.until = std::max(zone.change_at, spans[at + 2].from - k_month);
    }
    return zone;
}

} // namespace

DecodedFacts facts_of(const Snapshot& snapshot, std::int64_t now) {
    DecodedFacts decoded;
    auto& facts = decoded.facts;
    const Lapse lapse = lapse_of(snapshot);
    facts.id = snapshot.id;
    facts.stamp = snapshot.stamp;
    facts.until = seconds32(lapse.at);
    facts.until_kind = kind_of(lapse.rule);
    facts.plan = snapshot.plan_no;
    facts.status = snapshot.status;
    facts.flags = flags_of(snapshot);
    facts.calendar = AccountCalendar::of(CycleAnchor::of(snapshot.anchor), !snapshot.zone.empty());
    if (!snapshot.zone.empty()) {
        decoded.zone = zone_at(snapshot, now);
        facts.overrides_until = seconds32(std::max<std::int64_t>(decoded.zone.until, 1));
    }
    for (const auto& override : snapshot.features) {
        if (holds(override.until, now, facts.overrides_until)) {
            (override.enabled ? facts.on : facts.off).set(override.feature_no);
            facts.has_overrides = true;
        }
    }
    for (const auto& override : snapshot.limits) {
        if (holds(override.until, now, facts.overrides_until)) {
            const auto amount = override.amount;
            decoded.amounts.push_back(
                {override.limit_no,
                 amount ? static_cast<std::uint64_t>(std::max<std::int64_t>(*amount, 0)) : k_unlimited});
            facts.has_overrides = true;
        }
    }
    return decoded;
}

} // namespace billing
