// What is known of an account, and the words its status can have. Pure: used by workers, the command and the unit
// tests.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace billing {

// Stripe's words for a subscription's state; an account on a free plan is `active`.
enum class Status : std::uint8_t {
    active,
    trialing,
    past_due,
    canceled,
    unpaid,
    paused,
    incomplete,
    incomplete_expired,
};

std::optional<Status> parse_status(std::string_view text) noexcept;
std::string_view to_text(Status status) noexcept;

using StatusSet = std::uint8_t; // one bit for each status
constexpr StatusSet status_bit(Status status) noexcept {
    return static_cast<StatusSet>(1U << static_cast<unsigned>(status));
}
constexpr bool contains(StatusSet set, Status status) noexcept { return (set & status_bit(status)) != 0; }
// Under which a paid plan may be used, unless the operator says otherwise; past_due only while its grace runs.
inline constexpr StatusSet k_live_statuses =
    status_bit(Status::active) | status_bit(Status::trialing) | status_bit(Status::past_due);

// Read-only mode: only `payment` is ended by a payment, `operator_hold` ends by hand.
enum class Maintenance : std::uint8_t { none, payment, operator_hold };

// The longest account id a request may carry, in bytes.
inline constexpr std::size_t k_account_id_max = 128;

namespace account_detail {

constexpr bool allowed_in_id(char c) noexcept {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
           c == '@' || c == ':' || c == '|' || c == '-';
}

inline constexpr std::array<bool, 256> k_id_bytes = [] {
    std::array<bool, 256> table{};
    for (unsigned byte = 0; byte < 128; ++byte) {
        table[byte] = allowed_in_id(static_cast<char>(byte));
    }
    return table;
}();

} // namespace account_detail

// 1-128 bytes of [A-Za-z0-9_.@:|-]. Everything else is refused before it reaches a key, a query, a log line or a page.
// Each request asks, so it is inline.
inline bool valid_account_id(std::string_view id) noexcept {
    if (id.empty() || id.size() > k_account_id_max) {
        return false;
    }
    bool valid = true;
#pragma GCC unroll 8
    for (const char c : id) {
        valid &= account_detail::k_id_bytes[static_cast<unsigned char>(c)];
    }
    return valid;
}

// PostgreSQL's numbers of accounts end here, so that a record in shared memory has bits to spare beside one.
inline constexpr std::int64_t k_account_number_max = (std::int64_t{1} << 40) - 1;

// An exception to the plan, for one feature or one limit; it may expire (unix seconds).
struct FeatureOverride {
    std::uint8_t feature_no;
    bool enabled;
    std::optional<std::int64_t> until;
};
struct LimitOverride {
    std::uint8_t limit_no;
    std::optional<std::int64_t> amount; // nothing = unlimited
    std::optional<std::int64_t> until;
};

// From this moment (unix seconds; 0 = for as long as matters) a time zone has this offset, in seconds.
struct ZoneSpan {
    std::int64_t from;
    std::int32_t offset;
};

// One account as PostgreSQL published it. Immutable; a later one has a greater stamp. Times are unix seconds.
// A stamp is epoch and version: PostgreSQL's timeline over the count of the row's changes.
inline constexpr unsigned k_version_bits = 40;
constexpr std::uint64_t epoch_of(std::uint64_t stamp) noexcept { return stamp >> k_version_bits; }

struct Snapshot {
    std::uint64_t id = 0;
    std::string account;
    std::uint64_t stamp = 0;
    std::uint8_t plan_no = 0;
    Status status = Status::active;
    Maintenance maintenance = Maintenance::none;
    bool write_enabled = true;
    bool enforced = false;
    bool overage_on = true; // its own switch, where its plan leaves it one
    bool deleted = false;
    std::optional<std::int64_t> grace_until;
    std::optional<std::int64_t> trial_end;
    std::optional<std::int64_t> period_end;
    std::optional<std::int64_t> cancel_at;
    std::int64_t anchor = 0;     // its billing months begin here: [anchor + k months)
    std::vector<ZoneSpan> zone;  // of its time zone, in the order of time; empty = UTC
    std::int64_t zone_until = 0; // how far PostgreSQL has told them
    std::vector<FeatureOverride> features;
    std::vector<LimitOverride> limits;
};

// A period's end is not yet the end of access: Stripe renews within hours, and its event may be late.
inline constexpr std::int64_t k_renewal_slack_seconds = 2 * 60 * 60;

// When access ends by itself, and which rule then refuses. A host evaluates it on each request; no write marks the
// moment.
struct Lapse {
    enum class Rule : std::uint8_t { none, enforcement, subscription };
    Rule rule = Rule::none;
    std::int64_t at = 0; // unix seconds; 0 = has lapsed already
};
Lapse lapse_of(const Snapshot& snapshot) noexcept;

} // namespace billing
