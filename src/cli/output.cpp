#include "cli/output.hpp"

#include "domain/json.hpp"
#include "domain/period.hpp"

#include <cstdlib>
#include <ctime>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <memory>

namespace billing {

std::string actor() {
    const char* user = std::getenv("USER");
    return std::string{"command:"} + (user != nullptr ? user : "unknown");
}

void print_tree(const json_t* object, int depth) {
    const char* key = nullptr;
    json_t* value = nullptr;
    json_object_foreach(const_cast<json_t*>(object), key, value) {
        if (json_is_object(value) && json_object_size(value) > 0 && depth < 1) {
            fmt::print("{}:\n", key);
            print_tree(value, depth + 1);
        } else if (!json_is_null(value)) {
            fmt::print("{:{}}{}: {}\n", "", depth * 2, key, scalar_text(value));
        }
    }
}

std::string scalar_text(const json_t* value) {
    if (value == nullptr || json_is_null(value)) {
        return "nothing";
    }
    if (json_is_string(value)) {
        return json_string_value(value);
    }
    const std::unique_ptr<char, decltype(&std::free)> text{json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY),
                                                           &std::free};
    return text ? text.get() : "";
}

std::string text_of(const json_t* object, const char* key) {
    return std::string{text_member(object, key).value_or("")};
}

std::string since_time(std::string_view text) {
    const auto seconds = parse_duration(text);
    if (!seconds) {
        return std::string{text};
    }
    return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr) - *seconds));
}

std::optional<std::string> given(const std::string& text) {
    return text.empty() ? std::nullopt : std::optional<std::string>{text};
}

} // namespace billing
