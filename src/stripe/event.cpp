#include "stripe/event.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>

#include "stripe/names.hpp"
#include "stripe/scanner.hpp"

namespace billing {

namespace {

constexpr std::size_t k_max_text = 255;

bool is_plain(std::string_view text) noexcept {
    return text.size() <= k_max_text &&
           std::all_of(text.begin(), text.end(), [](char byte) { return byte >= 0x20 && byte < 0x7f; });
}

bool is_event_type(std::string_view text) noexcept {
    return !text.empty() && text.size() <= k_max_text && std::all_of(text.begin(), text.end(), [](char byte) {
        return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
               byte == '_' || byte == '.';
    });
}

void conclude(EventHead& head, std::string_view object) {
    const bool named = is_object_id(head.id) && is_event_type(head.type);
    if (named && object == "event")
        head.kind = EventKind::snapshot;
    else if (named && object.starts_with("v2.") && object.ends_with(".event"))
        head.kind = EventKind::thin;
    if (head.object_type == "customer")
        head.customer = head.object_id;
}

// From the bytes
// ------------------------------------------------------------------------------------------------------------------

using Names = std::span<const std::string_view>;

// The text value which comes next, or "" for anything else.
std::string text_value(JsonScanner& scanner) {
    if (scanner.peek() != '"') {
        scanner.skip();
        return {};
    }
    std::string text = scanner.string().decoded();
    return is_plain(text) ? text : std::string();
}

std::optional<std::int64_t> integer_value(JsonScanner& scanner) {
    const std::string_view token = scanner.skip();
    std::int64_t value = 0;
    const auto [end, problem] = std::from_chars(token.data(), token.data() + token.size(), value);
    if (token.empty() || problem != std::errc() || end != token.data() + token.size())
        return std::nullopt;
    return value;
}

std::optional<bool> bool_value(JsonScanner& scanner) {
    const std::string_view token = scanner.skip();
    if (token == "true" || token == "false")
        return token == "true";
    return std::nullopt;
}

// "cus_..." or {"id":"cus_...",...}
std::string id_value(JsonScanner& scanner) {
    static constexpr std::array<std::string_view, 1> names = {"id"};
    if (scanner.peek() != '{')
        return text_value(scanner);
    std::string id;
    scanner.object(names, [&](std::size_t) { id = text_value(scanner); });
    return id;
}

void read_object(JsonScanner& scanner, EventHead& head) {
    static constexpr std::array<std::string_view, 3> names = {"id", "object", "customer"};
    if (scanner.peek() != '{') {
        scanner.skip();
        return;
    }
    scanner.object(names, [&](std::size_t which) {
        if (which == 0)
            head.object_id = text_value(scanner);
        else if (which == 1)
            head.object_type = text_value(scanner);
        else
            head.customer = id_value(scanner);
    });
}

void read_data(JsonScanner& scanner, EventHead& head) {
    static constexpr std::array<std::string_view, 1> names = {"object"};
    if (scanner.peek() != '{')
        scanner.skip();
    else
        scanner.object(names, [&](std::size_t) { read_object(scanner, head); });
}

enum Top { top_id, top_object, top_type, top_created, top_livemode, top_account, top_api_version, top_data };
constexpr std::array<std::string_view, 8> k_top = {"id",       "object",  "type",        "created",
                                                   "livemode", "account", "api_version", "data"};

void read_member(JsonScanner& scanner, std::size_t which, EventHead& head, std::string& object) {
    switch (which) {
    case top_id:
        head.id = text_value(scanner);
        break;
    case top_object:
        object = text_value(scanner);
        break;
    case top_type:
        head.type = text_value(scanner);
        break;
    case top_created:
        head.created = integer_value(scanner);
        break;
    case top_livemode:
        head.livemode = bool_value(scanner);
        break;
    case top_account:
        head.account = text_value(scanner);
        break;
    case top_api_version:
        head.api_version = text_value(scanner);
        break;
    default:
        read_data(scanner, head);
    }
}

// From a tree
// ------------------------------------------------------------------------------------------------------------------

std::string plain_member(const json_t* object, const char* key) {
    const auto text = text_member(object, key);
    return text && is_plain(*text) ? std::string(*text) : std::string();
}

} // namespace

Result<EventHead> read_event_head(std::string_view body) {
    JsonScanner scanner(body);
    EventHead head;
    std::string object;
    if (scanner.peek() == '{')
        scanner.object(k_top, [&](std::size_t which) { read_member(scanner, which, head, object); });
    else
        scanner.fail("not a JSON object");
    scanner.finish();
    if (!scanner.ok())
        return Error{std::string(scanner.problem()) + " at byte " + std::to_string(scanner.position())};
    conclude(head, object);
    return head;
}

EventHead event_head(const json_t* event) {
    EventHead head;
    head.id = plain_member(event, "id");
    head.type = plain_member(event, "type");
    head.account = plain_member(event, "account");
    head.api_version = plain_member(event, "api_version");
    head.created = integer_member(event, "created");
    const json_t* const livemode = json_object_get(event, "livemode");
    if (json_is_boolean(livemode))
        head.livemode = json_is_true(livemode);
    const json_t* const object = event_object(event);
    head.object_type = plain_member(object, "object");
    head.object_id = plain_member(object, "id");
    const json_t* const customer = json_object_get(object, "customer");
    head.customer = json_is_object(customer) ? plain_member(customer, "id") : plain_member(object, "customer");
    conclude(head, plain_member(event, "object"));
    return head;
}

Result<Json> parse_payload(std::string_view body) {
    json_error_t error;
    Json event{json_loadb(body.data(), body.size(), JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error)};
    if (!event)
        return Error{"line " + std::to_string(error.line) + ", column " + std::to_string(error.column) +
                     ": not the JSON that it has to be"};
    if (!json_is_object(event.get()))
        return Error{"not a JSON object"};
    return event;
}

const json_t* event_object(const json_t* event) noexcept {
    const json_t* const object = json_object_get(json_object_get(event, "data"), "object");
    return json_is_object(object) ? object : nullptr;
}

const json_t* event_previous(const json_t* event) noexcept {
    const json_t* const previous = json_object_get(json_object_get(event, "data"), "previous_attributes");
    return json_is_object(previous) ? previous : nullptr;
}

void rename_account(json_t* event, const std::string& name) noexcept {
    json_t* const metadata = json_object_get(event_object(event), "metadata");
    if (json_t* const account = json_object_get(metadata, name.c_str()); account != nullptr && name != "account") {
        json_object_set(metadata, "account", account);
    }
}

} // namespace billing
