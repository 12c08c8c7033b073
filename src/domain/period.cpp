#include "domain/period.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <utility>

namespace billing {

namespace {

constexpr std::array<std::string_view, 7> k_period_texts = {"minute",   "hour",  "day",    "month",
                                                            "lifetime", "cycle", "sliding"};
constexpr std::array<std::int64_t, 3> k_fixed_seconds = {60, 3600, 86400};
constexpr std::int64_t k_day = 86400;

// Far from the calendar's numbers. A unit of 16 s: the 20 bits of a number that shared memory keeps go round in half a
// year.
constexpr std::int64_t k_cycle_numbers = std::int64_t{1} << 60;
constexpr std::int64_t k_cycle_unit = 16;

constexpr std::int64_t floor_div(std::int64_t value, std::int64_t by) noexcept {
    return value >= 0 ? value / by : -((-value + by - 1) / by);
}

std::int64_t month_of(std::int64_t days) noexcept {
    const std::chrono::year_month_day date{std::chrono::sys_days{std::chrono::days{days}}};
    return static_cast<int>(date.year()) * std::int64_t{12} + static_cast<unsigned>(date.month()) - 1;
}

// Days since 1970.
std::int64_t first_of_month(std::int64_t month) noexcept {
    const auto year = std::chrono::year{static_cast<int>(floor_div(month, 12))};
    const auto number = std::chrono::month{static_cast<unsigned>(month - floor_div(month, 12) * 12) + 1};
    return std::chrono::sys_days{year / number / 1}.time_since_epoch().count();
}

std::int64_t cycle_start(CycleAnchor anchor, std::int64_t month) noexcept {
    const std::int64_t first = first_of_month(month);
    const std::int64_t day = std::min(first + anchor.day, first_of_month(month + 1)) - 1;
    return day * k_day + anchor.second;
}

// The first instant at which the zone's clocks have reached this local time, looking from now on.
std::int64_t when_local(std::int64_t local, const ZoneOffsets& zone) noexcept {
    const std::int64_t plain = local - zone.offset;
    if (zone.change_at == 0 || plain < zone.change_at) {
        return plain;
    }
    return std::max(zone.change_at, local - zone.after); // a clock put forward may skip it
}

// The same for a time that has been.
std::int64_t when_was_local(std::int64_t local, const ZoneOffsets& zone) noexcept {
    const std::int64_t plain = local - zone.offset;
    if (zone.changed_at == 0 || plain > zone.changed_at) {
        return plain;
    }
    return std::min(zone.changed_at, local - zone.before);
}

} // namespace

std::optional<PeriodKind> parse_period(std::string_view text) noexcept {
    const auto* found = std::find(k_period_texts.begin(), k_period_texts.end(), text);
    if (found == k_period_texts.end()) {
        return std::nullopt;
    }
    return static_cast<PeriodKind>(found - k_period_texts.begin());
}

std::string_view to_text(PeriodKind kind) noexcept { return k_period_texts[static_cast<std::size_t>(kind)]; }

Period calendar_period(PeriodKind kind, std::int64_t now) noexcept {
    if (kind >= PeriodKind::lifetime) {
        return {};
    }
    if (kind == PeriodKind::month) {
        const std::int64_t month = month_of(floor_div(now, k_day));
        return {month, first_of_month(month) * k_day, first_of_month(month + 1) * k_day};
    }
    const std::int64_t length = k_fixed_seconds[static_cast<std::size_t>(kind)];
    const std::int64_t number = floor_div(now, length);
    return {number, number * length, (number + 1) * length};
}

CycleAnchor CycleAnchor::of(std::int64_t anchor) noexcept {
    const std::int64_t day = floor_div(anchor, k_day);
    const std::chrono::year_month_day date{std::chrono::sys_days{std::chrono::days{day}}};
    return {static_cast<std::uint8_t>(static_cast<unsigned>(date.day())),
            static_cast<std::uint32_t>(anchor - day * k_day)};
}

Period cycle_period(CycleAnchor anchor, std::int64_t now) noexcept {
    std::int64_t month = month_of(floor_div(now, k_day));
    std::int64_t start = cycle_start(anchor, month);
    if (now < start) {
        start = cycle_start(anchor, --month);
    }
    return {k_cycle_numbers + floor_div(start, k_cycle_unit), start, cycle_start(anchor, month + 1)};
}

Period zoned_period(PeriodKind kind, std::int64_t now, const ZoneOffsets& zone) noexcept {
    if (kind != PeriodKind::day && kind != PeriodKind::month) {
        return calendar_period(kind, now);
    }
    if (zone.change_at != 0 && now >= zone.change_at) {
        return zoned_period(kind, now, {zone.change_at, 0, zone.until, zone.offset, zone.after, zone.after});
    }
    const Period local = calendar_period(kind, now + zone.offset);
    return {local.number, when_was_local(local.start, zone), when_local(local.end, zone)};
}

Period sliding_period(std::int64_t length, std::int64_t now) noexcept {
    const std::int64_t bucket = sliding_bucket(length);
    const std::int64_t number = floor_div(now, bucket);
    return {bucket << 32 | number, number * bucket, (number + 1) * bucket};
}

std::optional<std::int64_t> parse_duration(std::string_view text) noexcept {
    constexpr std::array<std::pair<std::string_view, std::int64_t>, 10> k_units = {{
        {"s", 1},
        {"sec", 1},
        {"m", 60},
        {"min", 60},
        {"minute", 60},
        {"h", 3600},
        {"hour", 3600},
        {"d", 86400},
        {"day", 86400},
        {"w", 7 * 86400},
    }};
    constexpr std::int64_t k_most = 1'000'000;
    std::int64_t count = 1;
    const auto digits = text.find_first_not_of("0123456789");
    if (digits == std::string_view::npos) {
        return std::nullopt;
    }
    if (digits > 0) {
        const auto [end, problem] = std::from_chars(text.data(), text.data() + digits, count);
        if (problem != std::errc{} || end != text.data() + digits || count < 1 || count > k_most) {
            return std::nullopt;
        }
    }
    for (const auto& [unit, seconds] : k_units) {
        if (text.substr(digits) == unit) {
            return count * seconds;
        }
    }
    return std::nullopt;
}

} // namespace billing
