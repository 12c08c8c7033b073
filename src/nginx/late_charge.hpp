// What becomes of a request that was let through because nobody could be asked (billing_on_error allow): at its end, if
// it is one that pays, its units are noted in shared memory, and charged when PostgreSQL is back. Called by
// gate_handler and recheck.
#pragma once

#include "nginx/gate_handler.hpp"

namespace billing {

// False: memory is out.
bool charge_later(ngx_http_request_t* r, const RequestRecord& record);

// The same for an interval of a request that goes on (billing_recheck), whatever its end will be.
void charge_interval_later(ngx_http_request_t* r, const RequestRecord& record);

// Before the end of the client's request, once its answer is known: charges what is noted, or forgets it.
void settle_late_charges(ngx_http_request_t* r) noexcept;

} // namespace billing
