// A request's way through the gate, as nginx sees it: the PRECONTENT handler that decides, the LOG handler that
// settles. PRECONTENT stands after every access module and before try_files, caches and the content, and `satisfy any`
// cannot walk around it.
#pragma once

#include "nginx/ngx.hpp"

#include "gate/charge.hpp"
#include "gate/decision.hpp"
#include "nginx/conf.hpp"

namespace billing {

class Waiting;

// What is kept of one request or subrequest across its internal redirects. Lives in the request's pool.
struct RequestRecord {
    ngx_http_request_t* request;
    Decision decision;
    Charge charge; // of the client's request; what subrequests take is in the main request's record
    std::string_view account;
    const LocationRules* rules;          // of the last decision; null = none yet
    const AccountSource* account_source; // and who was asked for
    Waiting* waiting;                    // while Redis or PostgreSQL is asked
    bool refused;                        // the next location is the refusal's error page
    bool fields_sent;                    // RateLimit fields stand in the answer
};

// Null when the gate has not seen this request.
RequestRecord* find_record(ngx_http_request_t* r) noexcept;

ngx_int_t gate_handler(ngx_http_request_t* r);
ngx_int_t settle_handler(ngx_http_request_t* r);

} // namespace billing
