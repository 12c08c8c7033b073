// Looks up a request's API key before the gate and our own locations ask whose it is: a PRECONTENT handler that stands
// before the gate's. Installed only where a `billing_api_key` is.
#pragma once

#include "nginx/ngx.hpp"

namespace billing {

ngx_int_t key_handler(ngx_http_request_t* r);

} // namespace billing
