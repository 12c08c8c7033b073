// What the gate decided on one request, and why. Plain data: made in gate/, shown by nginx/ (status, headers, body,
// variables).
#pragma once

#include "domain/account.hpp"

#include <cstdint>
#include <string_view>

namespace billing {

// In the order in which they are asked (requirement G3); the first that refuses wins.
enum class Reason : std::uint8_t {
    allowed,
    no_account,              // 401
    invalid_token,           // 401, a bearer token that billing_jwt does not believe
    invalid_key,             // 401, an API key that is unknown, revoked or expired
    invalid_account,         // 400
    invalid_cost,            // 400
    invalid_idempotency_key, // 400
    unknown_account,  // 403, where billing_unknown_account says deny, or a metered location meets one it may not create
    write_disabled,   // 403
    maintenance,      // 402
    billing_enforced, // 402
    subscription_inactive, // 402
    plan_required,         // 403
    feature_missing,       // 403
    key_outstanding,       // 409: a request with the same Idempotency-Key is under way
    key_misused,           // 422: its Idempotency-Key was another request's
    limit_reached,         // 402
    rate_exceeded,         // 429
    credits_short,         // 402
    stock_full,            // 402
    unavailable,           // 503: neither cache nor database can tell
};
inline constexpr std::size_t k_reasons = 21;

// Where the facts came from.
enum class Source : std::uint8_t { none, shm, redis, postgres, stale };

// How a metered answer is described to the client. Units of the quota; seconds since 1970. Of an unlimited one it says
// no more than that.
struct Meter {
    bool metered = false;
    bool unlimited = false;
    std::uint8_t quota = 0; // index among the location's quotas, or, where one refuses, its rates, credits or stock
    bool overage = false;   // the request takes more of a quota than the account has, to be paid afterwards
    std::uint64_t limit = 0;
    std::uint64_t remaining = 0; // of a stock that is full: how many things there are, perhaps more than the limit
    std::int64_t reset = 0;      // 0 = never, or not known
    std::uint32_t cost = 0;
    std::uint32_t window = 0; // seconds, of a period that is the account's own; 0 = of the calendar

    bool operator==(const Meter&) const = default;
    bool bounded() const noexcept { return metered && !unlimited; }
};

struct Decision {
    Reason reason = Reason::allowed;
    Source source = Source::none;
    Status status = Status::active;
    std::uint8_t plan_no = 0; // 0 = not known
    bool grace = false;       // let through although it owes, for a while
    bool fallback = false;    // let through because the state was unknown (billing_on_error allow)
    std::uint8_t warning = 0; // percent: the highest threshold that a quota has reached; 0 = none
    std::uint8_t warned = 0;  // which: index among the location's quotas
    Meter meter;

    bool operator==(const Decision&) const = default;
    bool allows() const noexcept { return reason == Reason::allowed; }
};

// The HTTP status that nginx answers by default.
int default_status(Reason reason) noexcept;

// As in $billing_reason and the problem's `code`, e.g. PLAN_REQUIRED; for a limit and a stock LIMIT, which the body
// completes by its name.
std::string_view code_of(Reason reason) noexcept;

// What WWW-Authenticate says of it; "" where it says nothing.
std::string_view challenge_of(Reason reason) noexcept;

std::string_view to_text(Source source) noexcept;

} // namespace billing
