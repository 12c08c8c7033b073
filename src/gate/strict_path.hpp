// Paths that nginx and the application behind it may read differently: a location that nginx does not match could be
// the one that the application serves. Pure; called by nginx/path_handler under `billing_strict_path on`.
#pragma once

#include <string_view>

namespace billing {

// `target`: as the client sent it, query and all. False: it has, before the query, a `;` or `\`, an empty, `.` or `..`
// part, an encoded `/`, `\`, `;`, `.` or `%`, a control character, or bytes that are no UTF-8 (RFC 3629: the shortest
// form only, no surrogates).
bool is_plain_path(std::string_view target) noexcept;

} // namespace billing
