// What the subcommands of ngx-billing print in one way, and the name under which the audit keeps what they do.
#pragma once

#include <jansson.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace billing {

// "command:USER".
std::string actor();

// A line for each member that is not null, sections indented: what a person wants to see at a glance.
void print_tree(const json_t* object, int depth = 0);

// A text as it is, anything else as JSON.
std::string scalar_text(const json_t* value);

// The text under a key, or "".
std::string text_of(const json_t* object, const char* key);

// A point in time as the operator gives it: "72h" (so long ago), or a time that PostgreSQL reads. "" stays "".
std::string since_time(std::string_view text);

// NULL for PostgreSQL where nothing was given.
std::optional<std::string> given(const std::string& text);

} // namespace billing
