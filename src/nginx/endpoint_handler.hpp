// The content handler of our own locations: reads the body, hands the request to its endpoint in the worker's scope,
// and sends what comes back. A client that leaves takes only its seat along; the work goes on to its end.
#pragma once

#include "nginx/ngx.hpp"

namespace billing {

ngx_int_t endpoint_handler(ngx_http_request_t* r);

} // namespace billing
