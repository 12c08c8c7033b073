#include "domain/account.hpp"

#include <algorithm>
#include <array>

namespace billing {

namespace {

constexpr std::array<std::string_view, 8> k_status_texts = {"active", "trialing", "past_due",   "canceled",
                                                            "unpaid", "paused",   "incomplete", "incomplete_expired"};

} // namespace

std::optional<Status> parse_status(std::string_view text) noexcept {
    const auto* found = std::find(k_status_texts.begin(), k_status_texts.end(), text);
    if (found == k_status_texts.end()) {
        return std::nullopt;
    }
    return static_cast<Status>(found - k_status_texts.begin());
}

std::string_view to_text(Status status) noexcept { return k_status_texts[static_cast<std::size_t>(status)]; }

Lapse lapse_of(const Snapshot& snapshot) noexcept {
    const bool paying = snapshot.status == Status::active || snapshot.status == Status::trialing;
    if (snapshot.enforced && !paying) {
        return {Lapse::Rule::enforcement, snapshot.grace_until.value_or(0)};
    }
    if (snapshot.status == Status::past_due) {
        return {Lapse::Rule::subscription, snapshot.grace_until.value_or(0)};
    }
    if (!paying) {
        return {};
    }
    const auto& renewal = snapshot.status == Status::trialing ? snapshot.trial_end : snapshot.period_end;
    std::optional<std::int64_t> end;
    if (renewal) {
        end = *renewal + k_renewal_slack_seconds;
    }
    if (snapshot.cancel_at && (!end || *snapshot.cancel_at < *end)) {
        end = snapshot.cancel_at;
    }
    if (!end) {
        return {};
    }
    return {Lapse::Rule::subscription, *end};
}

} // namespace billing
