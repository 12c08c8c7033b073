#include "domain/amounts.hpp"

#include "domain/period.hpp"

#include <algorithm>
#include <charconv>

namespace billing {

std::optional<RateAmount> parse_rate(std::string_view text) noexcept {
    const auto slash = text.find('/');
    if (slash == std::string_view::npos) {
        return std::nullopt;
    }
    RateAmount rate;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + slash, rate.count);
    const auto seconds = parse_duration(text.substr(slash + 1));
    if (problem != std::errc{} || end != text.data() + slash || rate.count < 0 || rate.count > k_most_rate_count ||
        !seconds || *seconds > k_most_rate_seconds) {
        return std::nullopt;
    }
    rate.seconds = *seconds;
    return rate;
}

bool valid_unit_price(std::string_view text) noexcept {
    const auto digits = [](std::string_view part, std::size_t most) {
        return !part.empty() && part.size() <= most &&
               std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
    };
    const auto point = text.find('.');
    return digits(text.substr(0, point), 12) && (point == std::string_view::npos || digits(text.substr(point + 1), 6));
}

std::optional<std::uint8_t> parse_percent(std::string_view text) noexcept {
    unsigned percent = 0;
    const bool marked = text.size() >= 2 && text.size() <= 4 && text.back() == '%' && text.front() != '0';
    const char* const last = marked ? text.data() + text.size() - 1 : text.data();
    const auto [end, problem] = std::from_chars(text.data(), last, percent);
    if (!marked || problem != std::errc{} || end != last || percent > 100) {
        return std::nullopt;
    }
    return static_cast<std::uint8_t>(percent);
}

} // namespace billing
