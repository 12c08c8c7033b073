// A request's header fields, looked at by name.
#pragma once

#include "nginx/ngx.hpp"

namespace billing {

// The first field of that name (in lower case), or "". Lives as long as the request.
std::string_view header_of(const ngx_http_request_t* r, std::string_view lower_name) noexcept;

// Whether the request that a proxy asks about changes nothing: its own method and each X-Original-Method and
// X-Forwarded-Method is one of `reads`. All of them, for a client can send what its proxy does not set.
bool is_read_asked_about(const ngx_http_request_t* r, ngx_uint_t reads) noexcept;

// Bits of the methods of what a billing_check is asked about: one, unless its fields contradict each other.
ngx_uint_t methods_asked_about(const ngx_http_request_t* r) noexcept;

} // namespace billing
