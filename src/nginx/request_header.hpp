// A request's header fields, looked at by name.
#pragma once

#include "nginx/ngx.hpp"

namespace billing {

// The first field of that name (in lower case), or "". Lives as long as the request.
std::string_view header_of(const ngx_http_request_t* r, std::string_view lower_name) noexcept;

} // namespace billing
