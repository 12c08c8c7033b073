#include "domain/json.hpp"

#include <charconv>

namespace billing {

Result<Json> parse_json(std::string_view text) {
    json_error_t error;
    Json value{json_loadb(text.data(), text.size(), JSON_REJECT_DUPLICATES, &error)};
    if (!value) {
        return Error{"line " + std::to_string(error.line) + ", column " + std::to_string(error.column) + ": " +
                     error.text};
    }
    return value;
}

std::string dump_json(const json_t* value) {
    const std::unique_ptr<char, decltype(&std::free)> text{json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY),
                                                           &std::free};
    return text ? std::string{text.get()} : std::string{};
}

Json json_text(std::string_view text) {
    Json value{json_stringn(text.data(), text.size())};
    if (!value) {
        value.reset(json_string("?"));
    }
    return value;
}

void put_member(json_t* object, const char* key, std::string_view text) {
    json_object_set_new(object, key, json_text(text).release());
}

void put_member(json_t* object, const char* key, std::int64_t number) {
    json_object_set_new(object, key, json_integer(static_cast<json_int_t>(number)));
}

std::optional<std::string_view> text_member(const json_t* object, const char* key) noexcept {
    const json_t* value = json_object_get(object, key);
    if (!json_is_string(value)) {
        return std::nullopt;
    }
    return std::string_view{json_string_value(value), json_string_length(value)};
}

std::optional<std::int64_t> integer_member(const json_t* object, const char* key) noexcept {
    const json_t* value = json_object_get(object, key);
    if (!json_is_integer(value)) {
        return std::nullopt;
    }
    return json_integer_value(value);
}

bool true_member(const json_t* object, const char* key) noexcept { return json_is_true(json_object_get(object, key)); }

std::string to_hex16(std::uint64_t value) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string text(16, '0');
    for (std::size_t place = 16; place-- > 0; value >>= 4) {
        text[place] = digits[value & 15];
    }
    return text;
}

std::optional<std::uint64_t> from_hex16(std::string_view text) noexcept {
    std::uint64_t value = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
    if (text.size() != 16 || problem != std::errc{} || end != text.data() + text.size()) {
        return std::nullopt;
    }
    return value;
}

} // namespace billing
