// jansson behind ownership: what every reader and writer of JSON here shares. Pure; any process.
#pragma once

#include "domain/result.hpp"

#include <jansson.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace billing {

struct JsonFree {
    void operator()(json_t* value) const noexcept { json_decref(value); }
};
using Json = std::unique_ptr<json_t, JsonFree>;

// Duplicate keys are refused: two readers could take different ones. The error names line and column.
Result<Json> parse_json(std::string_view text);

// Compact, keys in insertion order. Empty when out of memory.
std::string dump_json(const json_t* value);

// Into an object; texts are written as json_text() does. Memory that is out leaves the member away.
void put_member(json_t* object, const char* key, std::string_view text);
void put_member(json_t* object, const char* key, std::int64_t number);

// A JSON string of any bytes; invalid UTF-8 becomes "?" so that a body can always be written.
Json json_text(std::string_view text);

// Members of an object, or nothing when absent, null or of another type.
std::optional<std::string_view> text_member(const json_t* object, const char* key) noexcept;
std::optional<std::int64_t> integer_member(const json_t* object, const char* key) noexcept;
bool true_member(const json_t* object, const char* key) noexcept;

// Stamps and other 64-bit orders travel as 16 lower-case hex digits, so that their text sorts as they do.
std::string to_hex16(std::uint64_t value);
std::optional<std::uint64_t> from_hex16(std::string_view text) noexcept;

} // namespace billing
