// `billing_pass_headers`: the application reads in fields of the request what the gate knows. They stand among the
// fields that the client sent, so every module that proxies a request sends them on.
#pragma once

#include "nginx/ngx.hpp"

namespace billing {

// The fields as this location has them: those of the last decision where `on`, else none. What an earlier location or
// the parent of a subrequest had is gone. False: memory is out.
bool pass_headers(ngx_http_request_t* r, bool on);

} // namespace billing
