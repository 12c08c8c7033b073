// Amounts that a catalog writes as texts. Pure; used by the judge of its file and by tests.
#pragma once

#include "domain/catalog.hpp"

#include <cstdint>
#include <optional>
#include <string_view>

namespace billing {

// "10/min", "100/10s", "5000/1d".
std::optional<RateAmount> parse_rate(std::string_view text) noexcept;

// What one unit costs in the currency's smallest unit: "40", "0.25"; up to 12 digits and 6 decimals.
bool valid_unit_price(std::string_view text) noexcept;

// "80%": a whole number from 1 to 100.
std::optional<std::uint8_t> parse_percent(std::string_view text) noexcept;

} // namespace billing
