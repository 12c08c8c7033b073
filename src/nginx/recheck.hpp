// `billing_recheck`: a request that runs long (a websocket, server-sent events, a slow answer) is asked for again at an
// interval, charged again, and closed when the answer is no. One timer for such a request, in its memory, gone with it;
// there is nothing for others.
#pragma once

#include "nginx/ngx.hpp"

#include "nginx/conf.hpp"

namespace billing {

// For a request that the gate has let through. Once for each, whatever locations it is led to. False: memory is out.
bool begin_rechecks(ngx_http_request_t* r, const LocConf& conf);

// What a request was charged by them so far; to its very end, for the log.
std::uint64_t recharged_units(const ngx_http_request_t& r) noexcept;

} // namespace billing
