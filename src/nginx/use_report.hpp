// Quotas and credits that are settled to what the application says a request was worth: `settle=` of billing_quota and
// billing_credits. Called by gate_handler when a request that pays is over.
#pragma once

#include "nginx/ngx.hpp"

#include "nginx/gate_handler.hpp"

namespace billing {

// What the charge holds becomes what was reported; where nothing was, or what can be no number of units, what was taken
// stays, and the log says so.
void settle_by_report(ngx_http_request_t* r, RequestRecord& record);

} // namespace billing
