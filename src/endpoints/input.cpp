#include "endpoints/input.hpp"

#include <algorithm>
#include <optional>

namespace billing {

namespace {

using Members = std::vector<std::pair<std::string, std::string>>;

int hex_digit(char digit) noexcept {
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    const char lower = static_cast<char>(digit | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

std::optional<std::string> unescape(std::string_view text) {
    std::string result;
    for (std::size_t at = 0; at < text.size(); ++at) {
        if (text[at] != '%') {
            result += text[at] == '+' ? ' ' : text[at];
            continue;
        }
        const int high = at + 2 < text.size() ? hex_digit(text[at + 1]) : -1;
        const int low = at + 2 < text.size() ? hex_digit(text[at + 2]) : -1;
        if (high < 0 || low < 0 || (high == 0 && low == 0)) {
            return std::nullopt;
        }
        result += static_cast<char>(high * 16 + low);
        at += 2;
    }
    return result;
}

constexpr std::size_t k_most_members = 100; // each is compared with all before it

std::optional<Members> read_form(std::string_view text) {
    Members members;
    while (!text.empty()) {
        const std::string_view part = text.substr(0, text.find('&'));
        text.remove_prefix(std::min(part.size() + 1, text.size()));
        if (part.empty()) {
            continue;
        }
        if (members.size() == k_most_members) {
            return std::nullopt;
        }
        const auto equals = std::min(part.find('='), part.size());
        const auto name = unescape(part.substr(0, equals));
        const auto value = unescape(part.substr(std::min(equals + 1, part.size())));
        const bool utf8 = name && value && Json{json_stringn(value->data(), value->size())} != nullptr;
        if (!utf8) {
            return std::nullopt;
        }
        const bool twice = std::any_of(members.begin(), members.end(), [&](const auto& m) { return m.first == *name; });
        if (twice) {
            return std::nullopt;
        }
        members.emplace_back(*name, *value);
    }
    return members;
}

Result<Members> read_object(std::string_view text) {
    const auto parsed = parse_json(text);
    if (!parsed) {
        return Error{parsed.error()};
    }
    if (!json_is_object(parsed.value().get())) {
        return Error{"write a JSON object"};
    }
    Members members;
    void* at = json_object_iter(parsed.value().get());
    for (; at != nullptr; at = json_object_iter_next(parsed.value().get(), at)) {
        const json_t* value = json_object_iter_value(at);
        if (json_is_string(value)) {
            members.emplace_back(json_object_iter_key(at),
                                 std::string{json_string_value(value), json_string_length(value)});
        } else if (!json_is_null(value)) {
            members.emplace_back(json_object_iter_key(at), dump_json(value));
        }
    }
    return members;
}

std::string_view find(Members::const_iterator from, Members::const_iterator to, std::string_view name) noexcept {
    const auto known = std::find_if(from, to, [name](const auto& member) { return member.first == name; });
    return known == to ? std::string_view{} : std::string_view{known->second};
}

bool is_blank(std::string_view text) noexcept { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }

} // namespace

Result<Input> Input::read(const Request& request) {
    Input input;
    if (request.is_form()) {
        auto form = read_form(request.body);
        if (!form) {
            return Error{"the form is not well-formed, or names something twice"};
        }
        input.members_ = std::move(*form);
    } else if (!is_blank(request.body)) {
        if (request.content_type != "application/json") {
            return Error{"write Content-Type: application/json or application/x-www-form-urlencoded"};
        }
        auto object = read_object(request.body);
        if (!object) {
            return Error{object.error()};
        }
        input.members_ = std::move(object).value();
    }
    input.of_body_ = input.members_.size();
    auto query = read_form(request.query);
    if (!query) {
        return Error{"the query is not well-formed, or names something twice"};
    }
    std::move(query->begin(), query->end(), std::back_inserter(input.members_));
    return input;
}

std::string_view Input::text(std::initializer_list<std::string_view> names) const noexcept {
    for (const std::string_view name : names) {
        for (const auto& [key, value] : members_) {
            if (key == name && !value.empty()) {
                return value;
            }
        }
    }
    return {};
}

std::string_view Input::body_text(std::string_view name) const noexcept {
    return find(members_.begin(), members_.begin() + static_cast<std::ptrdiff_t>(of_body_), name);
}

std::string_view Input::query_text(std::string_view name) const noexcept {
    return find(members_.begin() + static_cast<std::ptrdiff_t>(of_body_), members_.end(), name);
}

std::optional<bool> Input::flag(std::string_view name) const noexcept {
    const std::string_view said = text({name});
    if (said == "true" || said == "on") {
        return true;
    }
    return said == "false" || said == "off" ? std::optional{false} : std::nullopt;
}

} // namespace billing
