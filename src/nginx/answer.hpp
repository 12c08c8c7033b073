// Sending an answer of our own: header fields and a body, from a phase handler or a content handler.
#pragma once

#include "nginx/ngx.hpp"

namespace billing {

// Adds a field to the coming answer. `name` is static text, `value` is copied. False: out of memory, or the value has
// bytes that do not belong into a field.
bool add_header(ngx_http_request_t* r, std::string_view name, std::string_view value) noexcept;

// The same for a value that is clean and lives as long as the request. Null: out of memory.
ngx_table_elt_t* push_header(ngx_http_request_t* r, std::string_view name, std::string_view value) noexcept;

// Takes back what add_header() added under this very name.
void remove_header(ngx_http_request_t* r, std::string_view name) noexcept;

// Sends status, type and body; what ngx_http_finalize_request() is to be called with. `type` is static text.
ngx_int_t send_answer(ngx_http_request_t* r, int status, std::string_view type, std::string_view body) noexcept;

} // namespace billing
