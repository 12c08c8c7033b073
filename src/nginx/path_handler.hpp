// `billing_strict_path on`: refuses paths that the application may read differently from nginx, wherever they lead. A
// PRECONTENT handler that stands before the gate's. Installed only where the directive is used.
#pragma once

#include "nginx/ngx.hpp"

namespace billing {

ngx_int_t path_handler(ngx_http_request_t* r);

} // namespace billing
