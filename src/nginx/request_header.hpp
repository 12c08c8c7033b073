// A request's header fields, looked at by name.
#pragma once

#include "nginx/ngx.hpp"

namespace billing {

// The first field of that name (in lower case), or "". Lives as long as the request.
std::string_view header_of(const ngx_http_request_t* r, std::string_view lower_name) noexcept;

// The method of the request that is asked about, as the proxy says: X-Original-Method, X-Forwarded-Method, else the
// asking request's own. One of nginx's method bits; NGX_HTTP_UNKNOWN for one that it does not know.
ngx_uint_t asked_method(const ngx_http_request_t* r) noexcept;

} // namespace billing
