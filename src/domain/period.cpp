#include "domain/period.hpp"

#include <algorithm>
#include <array>
#include <chrono>

namespace billing {

namespace {

constexpr std::array<std::string_view, 5> k_period_texts = {"minute", "hour", "day", "month", "lifetime"};
constexpr std::array<std::int64_t, 3> k_fixed_seconds = {60, 3600, 86400};

constexpr std::int64_t floor_div(std::int64_t value, std::int64_t by) noexcept {
    return value >= 0 ? value / by : -((-value + by - 1) / by);
}

std::int64_t month_start(std::int64_t number) noexcept {
    const auto year = std::chrono::year{static_cast<int>(floor_div(number, 12))};
    const auto month = std::chrono::month{static_cast<unsigned>(number - floor_div(number, 12) * 12) + 1};
    const std::chrono::sys_days first{year / month / 1};
    return std::chrono::duration_cast<std::chrono::seconds>(first.time_since_epoch()).count();
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

std::int64_t period_number(PeriodKind kind, std::int64_t unix_seconds) noexcept {
    if (kind == PeriodKind::lifetime) {
        return 0;
    }
    if (kind == PeriodKind::month) {
        const std::chrono::sys_days day{std::chrono::days{floor_div(unix_seconds, 86400)}};
        const std::chrono::year_month_day date{day};
        return static_cast<int>(date.year()) * std::int64_t{12} + static_cast<unsigned>(date.month()) - 1;
    }
    return floor_div(unix_seconds, k_fixed_seconds[static_cast<std::size_t>(kind)]);
}

std::optional<std::int64_t> period_end(PeriodKind kind, std::int64_t number) noexcept {
    if (kind == PeriodKind::lifetime) {
        return std::nullopt;
    }
    if (kind == PeriodKind::month) {
        return month_start(number + 1);
    }
    return (number + 1) * k_fixed_seconds[static_cast<std::size_t>(kind)];
}

std::int64_t period_length(PeriodKind kind, std::int64_t number) noexcept {
    if (kind == PeriodKind::lifetime) {
        return 0;
    }
    if (kind == PeriodKind::month) {
        return month_start(number + 1) - month_start(number);
    }
    return k_fixed_seconds[static_cast<std::size_t>(kind)];
}

} // namespace billing
