// Periods of quotas: when one begins and ends, each named by one number, so that host and PostgreSQL mean the same one.
// Pure; used by the gate at each metered request. PostgreSQL's billing.period_at() computes the same.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace billing {

// Up to lifetime the calendar's: UTC, or for days and months the account's own time zone. A cycle is the account's
// billing month. sliding is the time before now, in buckets.
enum class PeriodKind : std::uint8_t { minute, hour, day, month, lifetime, cycle, sliding };
inline constexpr std::size_t k_calendar_kinds = 5;
inline constexpr std::size_t k_period_kinds = 7;

std::optional<PeriodKind> parse_period(std::string_view text) noexcept;
std::string_view to_text(PeriodKind kind) noexcept;

// Half open, in unix seconds.
struct Period {
    std::int64_t number = 0;
    std::int64_t start = 0;
    std::int64_t end = 0; // 0 = never: a lifetime

    std::uint32_t length() const noexcept { return static_cast<std::uint32_t>(end - start); }
    bool operator==(const Period&) const = default;
};

// The period of the calendar that holds this instant, in UTC. Numbers: minutes, hours or days since 1970, months since
// year 0, 0 for a lifetime.
Period calendar_period(PeriodKind kind, std::int64_t now) noexcept;

// When an account's billing months begin: the day of the month, clamped to the month's last, and the second of that
// day, UTC. All that the anchor of a subscription says about its months.
struct CycleAnchor {
    std::uint8_t day = 1; // 1..31
    std::uint32_t second = 0;

    static CycleAnchor of(std::int64_t anchor) noexcept;
    bool operator==(const CycleAnchor&) const = default;
};

// [anchor + k months, anchor + k+1 months) around now. The number names the start, so that the months of two anchors
// have two numbers.
Period cycle_period(CycleAnchor anchor, std::int64_t now) noexcept;

// What a host has to know of a time zone: the offset of the present, the change before and the one after. Seconds; east
// of Greenwich is positive.
struct ZoneOffsets {
    std::int64_t changed_at = 0; // 0 = not for long
    std::int64_t change_at = 0;  // 0 = not before `until`
    std::int64_t until = 0;      // then it has to be asked for anew
    std::int32_t before = 0;
    std::int32_t offset = 0;
    std::int32_t after = 0;

    bool operator==(const ZoneOffsets&) const = default;
};

// Days and months of a time zone: the same numbers as in UTC, for the local date. A day has 23 or 25 hours where the
// clock changes.
Period zoned_period(PeriodKind kind, std::int64_t now, const ZoneOffsets& zone) noexcept;

// A sliding window is counted in buckets of a twentieth of its length: units come back when their whole bucket has left
// it. So never more than the cap within the length, and a refusal for up to a twentieth longer than need be.
inline constexpr std::int64_t k_sliding_buckets = 20;
constexpr std::int64_t sliding_bucket(std::int64_t length) noexcept {
    return (length + k_sliding_buckets - 1) / k_sliding_buckets;
}
inline constexpr std::int64_t k_least_sliding = 60;
inline constexpr std::int64_t k_most_sliding = 366 * std::int64_t{86400};

// The bucket that holds now; the number names its size, too.
Period sliding_period(std::int64_t length, std::int64_t now) noexcept;

// "90s", "10m" or "10min", "24h", "7d" in seconds; "m" stands for "1m". Nothing for what is no time or longer than a
// million days.
std::optional<std::int64_t> parse_duration(std::string_view text) noexcept;

} // namespace billing
