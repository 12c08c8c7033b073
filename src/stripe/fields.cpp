#include "stripe/fields.hpp"

#include <algorithm>

namespace billing::fields {

namespace {

constexpr std::int64_t k_last_time = 253402300799; // end of the year 9999

std::string without_nul(std::string_view value) {
    std::string out(value);
    std::erase(out, '\0');
    return out;
}

} // namespace

const json_t* child(const json_t* object, const char* key) noexcept {
    const json_t* const value = json_object_get(object, key);
    return json_is_object(value) ? value : nullptr;
}

const json_t* list_data(const json_t* object, const char* key) noexcept {
    const json_t* const value = json_object_get(object, key);
    const json_t* const data = json_is_array(value) ? value : json_object_get(value, "data");
    return json_is_array(data) ? data : nullptr;
}

bool list_cut(const json_t* object, const char* key) noexcept { return true_member(child(object, key), "has_more"); }

std::string text(const json_t* object, const char* key) {
    const auto value = text_member(object, key);
    return value ? without_nul(*value) : std::string();
}

std::string id(const json_t* object, const char* key) {
    const json_t* const expanded = child(object, key);
    return expanded ? text(expanded, "id") : text(object, key);
}

StripeTime time(const json_t* object, const char* key) noexcept {
    const auto value = integer_member(object, key);
    return value && *value > 0 && *value <= k_last_time ? value : std::nullopt;
}

std::int64_t amount(const json_t* object, const char* key) noexcept { return integer_member(object, key).value_or(0); }

std::optional<bool> flag(const json_t* object, const char* key) noexcept {
    const json_t* const value = json_object_get(object, key);
    return json_is_boolean(value) ? std::optional<bool>(json_is_true(value)) : std::nullopt;
}

StripePeriod period(const json_t* object, const char* start, const char* end) noexcept {
    return {time(object, start), time(object, end)};
}

StripeMetadata metadata(const json_t* object, const char* key) {
    StripeMetadata out;
    const json_t* const all = child(object, key);
    // jansson's iterators take what is not const, and change nothing.
    auto* const walked = const_cast<json_t*>(all);
    for (void* entry = json_object_iter(walked); entry; entry = json_object_iter_next(walked, entry)) {
        const json_t* const value = json_object_iter_value(entry);
        if (json_is_string(value))
            out.add(json_object_iter_key(entry), without_nul({json_string_value(value), json_string_length(value)}));
    }
    return out;
}

std::string price(const json_t* object) {
    std::string out = id(object, "price");
    return out.empty() ? id(object, "plan") : out;
}

Result<Done> check(const json_t* object, const char* type, bool id_needed) {
    if (!json_is_object(object))
        return Error{std::string(type) + ": not an object"};
    const std::string said = text(object, "object");
    if (!said.empty() && said != type)
        return Error{std::string(type) + ": something else was sent"};
    if (id_needed && text(object, "id").empty())
        return Error{std::string(type) + ": it has no id"};
    return Done{};
}

} // namespace billing::fields

namespace billing {

std::string_view StripeMetadata::find(std::string_view name) const noexcept {
    const auto found = std::find_if(all_.begin(), all_.end(), [&](const auto& entry) { return entry.first == name; });
    return found == all_.end() ? std::string_view() : std::string_view(found->second);
}

} // namespace billing
