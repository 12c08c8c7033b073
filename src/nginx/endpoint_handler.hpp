// The content handler of our own locations: reads the body, hands the request to its endpoint in the worker's scope,
// and sends what comes back. A client that leaves takes only its seat along; the work goes on to its end.
#pragma once

#include "endpoints/exchange.hpp"
#include "nginx/ngx.hpp"

namespace billing {

ngx_int_t endpoint_handler(ngx_http_request_t* r);

// Sends it, with the operator's status for it. What ngx_http_finalize_request() is to be called with.
ngx_int_t send_response(ngx_http_request_t* r, Response response) noexcept;

} // namespace billing
