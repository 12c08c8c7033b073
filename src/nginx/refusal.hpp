// What the gate says to the client: the problem document of a refusal, and the RateLimit fields of a metered answer.
#pragma once

#include "nginx/ngx.hpp"

#include "nginx/gate_handler.hpp"

namespace billing {

// Answers the request itself, or leaves it to error_page where one is configured for the status. What a phase handler
// returns.
ngx_int_t refuse(ngx_http_request_t* r, RequestRecord& record);

// Under `billing observe`: says in the log what would have been answered.
void observe_refusal(ngx_http_request_t* r, const RequestRecord& record);

// Adds the fields to the coming answer. False: out of memory.
bool send_rate_limit_fields(ngx_http_request_t* r, RequestRecord& record) noexcept;

// The status that the client gets: billing_codes, else the default.
int status_of(const ngx_http_request_t* r, Reason reason) noexcept;

// An operator's error_page for this status takes the place of our body.
bool has_error_page(ngx_http_request_t* r, int status) noexcept;

} // namespace billing
