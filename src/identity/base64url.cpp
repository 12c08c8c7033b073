#include "identity/base64url.hpp"

#include <array>
#include <cstdint>

namespace billing {

namespace {

constexpr std::array<std::int8_t, 256> k_values = [] {
    constexpr std::string_view k_digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    std::array<std::int8_t, 256> values{};
    values.fill(-1);
    for (std::size_t digit = 0; digit < k_digits.size(); ++digit) {
        values[static_cast<unsigned char>(k_digits[digit])] = static_cast<std::int8_t>(digit);
    }
    return values;
}();

} // namespace

std::optional<std::string> decode_base64url(std::string_view text) {
    std::string bytes;
    bytes.reserve(text.size() / 4 * 3 + 2);
    std::uint32_t bits = 0;
    unsigned held = 0;
    for (const char digit : text) {
        const std::int8_t value = k_values[static_cast<unsigned char>(digit)];
        if (value < 0) {
            return std::nullopt;
        }
        bits = bits << 6 | static_cast<std::uint32_t>(value);
        held += 6;
        if (held >= 8) {
            held -= 8;
            bytes += static_cast<char>(bits >> held & 0xff);
        }
    }
    if (held >= 6 || (bits & ((1U << held) - 1)) != 0) {
        return std::nullopt;
    }
    return bytes;
}

} // namespace billing
