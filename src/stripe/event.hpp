// Stripe's events: the few facts which intake needs, read from the signed bytes without building a tree; and the whole
// event for processing. By shape, never by version: fields which are null, missing or of another type are absent. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "domain/json.hpp"
#include "domain/result.hpp"

namespace billing {

enum class EventKind {
    snapshot, // "event" with an id and a type; carries an object
    thin,     // "v2....event": carries no object; to be answered and left alone
    other,    // JSON, but no event with an id and a type
};

// Texts are printable ASCII of at most 255 bytes; "" is absent.
struct EventHead {
    EventKind kind = EventKind::other;
    std::string id;
    std::string type;
    std::string account;                 // Connect: whose event it is
    std::string api_version;             // in which it was written
    std::optional<std::int64_t> created; // seconds
    std::optional<bool> livemode;
    std::string object_type; // of data.object
    std::string object_id;
    std::string customer; // of data.object; its own id if it is a customer
};

// From a webhook's body. An error: not one JSON object (the position is named), nested deeper than 200, or one of the
// facts is there twice. More lenient than parse_payload() in what it passes over: bytes which are no UTF-8, lone
// surrogates, huge numbers, keys given twice; such an event is worth storing though it cannot be processed. Linear
// time.
Result<EventHead> read_event_head(std::string_view body);

// The same facts of an event which has been parsed (a list's element). Not for untrusted duplicates: parse_payload()
// refuses those.
EventHead event_head(const json_t* event);

// The whole of an event, or of an answer of the API, for processing: one JSON object. "\u0000" within texts is taken;
// keys given twice are refused.
Result<Json> parse_payload(std::string_view body);

// data.object, data.previous_attributes (old values of what *.updated has changed at the top): nullptr if there is
// none. Borrowed.
const json_t* event_object(const json_t* event) noexcept;
const json_t* event_previous(const json_t* event) noexcept;

// The object's metadata has the account under `name`, which the operator chose; from here on also as "account", as all
// readers know it. One that has nothing there stays as it is: it may have been begun before the name was chosen.
void rename_account(json_t* event, const std::string& name) noexcept;

} // namespace billing
