// What goes with a request that the gate lets through, where the location asks for it: fields that tell the application
// who it is for, re-checks while it runs. Called by gate_handler, never for plain requests.
#pragma once

#include "nginx/ngx.hpp"

#include "nginx/conf.hpp"

namespace billing {

// Once for each location that the request is led to. NGX_DECLINED: on to the next handler; else what went wrong.
ngx_int_t accompany(ngx_http_request_t* r, const LocConf& conf) noexcept;

} // namespace billing
