#include "stripe/names.hpp"

#include <algorithm>

namespace billing {

namespace {

bool is_digit(char byte) noexcept { return byte >= '0' && byte <= '9'; }
bool is_lower(char byte) noexcept { return byte >= 'a' && byte <= 'z'; }

} // namespace

KeyMode key_mode(std::string_view key) noexcept {
    if (key.starts_with("sk_live_") || key.starts_with("rk_live_"))
        return KeyMode::live;
    if (key.starts_with("sk_test_") || key.starts_with("rk_test_"))
        return KeyMode::test;
    return KeyMode::unknown;
}

bool is_api_version(std::string_view text) noexcept {
    constexpr std::string_view pattern = "0000-00-00";
    if (text.size() < pattern.size())
        return false;
    for (std::size_t i = 0; i < pattern.size(); ++i)
        if (pattern[i] == '0' ? !is_digit(text[i]) : text[i] != pattern[i])
            return false;
    const std::string_view name = text.substr(pattern.size());
    return name.empty() || (name.size() > 1 && name.size() < 40 && name[0] == '.' &&
                            std::all_of(name.begin() + 1, name.end(), is_lower));
}

bool is_object_id(std::string_view text) noexcept {
    return !text.empty() && text.size() <= 255 && std::all_of(text.begin(), text.end(), [](char byte) {
        return is_digit(byte) || is_lower(byte) || (byte >= 'A' && byte <= 'Z') || byte == '_' || byte == '-';
    });
}

std::string trim_secret(std::string_view text) {
    constexpr std::string_view blank = " \t\r\n\v\f";
    const auto first = text.find_first_not_of(blank);
    if (first == text.npos)
        return {};
    return std::string(text.substr(first, text.find_last_not_of(blank) - first + 1));
}

} // namespace billing
