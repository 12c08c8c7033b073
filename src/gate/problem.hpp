// How a decision is told to the client: the problem document (RFC 9457) of a refusal, and the RateLimit fields of every
// metered answer (draft-ietf-httpapi-ratelimit-headers-10). Pure text; nginx/ sends it.
#pragma once

#include "domain/catalog.hpp"
#include "gate/decision.hpp"
#include "gate/period_clock.hpp"
#include "gate/rules.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace billing {

// Where the client can mend it: "" where nothing is served.
struct WaysOut {
    std::string upgrade; // takes POST {"plan": requiredPlan}
    std::string portal;  // where an open payment is settled
};

// What a refusal says to people.
std::string_view title_of(Reason reason) noexcept;
std::string_view detail_of(Reason reason) noexcept; // "" where it depends

// `status` is what the client gets, which billing_codes may have changed. The catalog, and the rules bound to it, name
// the plan that would do; they may be missing when nothing could be read. Texts are UTF-8.
std::string problem_body(const Decision& decision, const Rules& rules, const BoundRules* bound, const Catalog* catalog,
                         int status, const WaysOut& ways);

// The code in the body and in $billing_reason: LIMIT_<QUOTA> names the quota, RATE_<NAME> the rate.
std::string reason_code(const Decision& decision, const Rules& rules);

// Retry-After in seconds, where waiting helps; 0 where it does not.
std::int64_t retry_after(const Decision& decision, std::int64_t now) noexcept;

struct RateLimitFields {
    std::string_view policy; // "requests";q=20;w=2592000
    std::string_view limit;  // "requests";r=3;t=86400
};
// Bytes that the fields of a quota need: each has its name and two numbers.
constexpr std::size_t rate_limit_room(std::string_view quota) noexcept { return 2 * (quota.size() + 48); }
// For a meter with a bound, in its quota's present period. Written into `room`, which the views point into.
RateLimitFields rate_limit_fields(const Meter& meter, std::string_view quota, const PeriodClock::Present& period,
                                  char* room) noexcept;

} // namespace billing
