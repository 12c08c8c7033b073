// Requests that carry a key of their client's own (Idempotency-Key), so that repeating them costs nothing.
#pragma once

#include "nginx/ngx.hpp"

#include "gate/gate.hpp"
#include "nginx/conf.hpp"

namespace billing {

// Both for locations that are keyed.
//
// Of a request with a key the body is read before the gate decides, since it says whether this is the same request.
// NGX_DECLINED: go on; else what the phase handler returns, which is called again once the body is there.
ngx_int_t read_keyed_body(ngx_http_request_t* r, const LocConf& conf);

// Fills in what the request claims, if it has a key; its costs are there. Anything but `allowed`: why it is refused.
Reason read_claim(ngx_http_request_t* r, const LocConf& conf, Ask& ask);

} // namespace billing
