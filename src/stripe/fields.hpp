// Getters which the readers of Stripe's objects share; see objects.hpp for what counts as absent. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "domain/json.hpp"
#include "domain/result.hpp"
#include "stripe/objects.hpp"

namespace billing::fields {

// nullptr unless it is an object; the same for a list's array of data.
const json_t* child(const json_t* object, const char* key) noexcept;
const json_t* list_data(const json_t* object, const char* key) noexcept;
bool list_cut(const json_t* object, const char* key) noexcept;

std::string text(const json_t* object, const char* key);
// The id of something which may be expanded in place.
std::string id(const json_t* object, const char* key);
StripeTime time(const json_t* object, const char* key) noexcept;
std::int64_t amount(const json_t* object, const char* key) noexcept; // 0 if absent
std::optional<bool> flag(const json_t* object, const char* key) noexcept;
StripePeriod period(const json_t* object, const char* start, const char* end) noexcept;
StripeMetadata metadata(const json_t* object, const char* key);

// The price of an item or a legacy line: price (id or object), or the plan of old.
std::string price(const json_t* object);

// Is it an object of this type? A missing "object" is taken for yes. `Done`, or what is wrong.
Result<Done> check(const json_t* object, const char* type, bool id_needed = true);

} // namespace billing::fields
