// Periods of quotas: calendar windows in UTC, each named by one number, so that host and PostgreSQL mean the same one.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace billing {

enum class PeriodKind : std::uint8_t { minute, hour, day, month, lifetime };

std::optional<PeriodKind> parse_period(std::string_view text) noexcept;
std::string_view to_text(PeriodKind kind) noexcept;

// The number of the period that holds this instant (unix seconds): minutes, hours or days since 1970, months since year
// 0, 0 for a lifetime. PostgreSQL's billing.period_no() computes the same.
std::int64_t period_number(PeriodKind kind, std::int64_t unix_seconds) noexcept;

// The first instant after the period, unix seconds; nothing for a lifetime.
std::optional<std::int64_t> period_end(PeriodKind kind, std::int64_t number) noexcept;

// Seconds in the period for the RateLimit-Policy field; 0 for a lifetime.
std::int64_t period_length(PeriodKind kind, std::int64_t number) noexcept;

} // namespace billing
