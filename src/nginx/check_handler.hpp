// billing_check: the gate's decision as an answer, for other proxies that ask before they pass a request on
// (auth_request, forward_auth, ext_authz). The gate stands before it as before any content; what comes through gets
// 200.
#pragma once

#include "nginx/ngx.hpp"

#include "nginx/gate_handler.hpp"

namespace billing {

// The content handler: who passed the gate is told so, with what is known of the account in X-Billing-* fields.
ngx_int_t check_handler(ngx_http_request_t* r);

} // namespace billing
