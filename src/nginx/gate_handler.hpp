// A request's way through the gate, as nginx sees it: the PRECONTENT handler that decides, the LOG handler that
// settles. PRECONTENT stands after every access module and before try_files, caches and the content, and `satisfy any`
// cannot walk around it.
#pragma once

#include "nginx/ngx.hpp"

#include "gate/charge.hpp"
#include "gate/decision.hpp"
#include "gate/gate.hpp"
#include "nginx/conf.hpp"
#include "nginx/request_header.hpp"

#include <type_traits>

namespace billing {

class Waiting;

// What is kept of one request or subrequest across its internal redirects. Lives in the request's pool, and small: each
// byte here is one of every request.
struct RequestRecord {
    ngx_pool_cleanup_t cleanup{};  // in the pool's list; its data is the request
    const LocConf* conf = nullptr; // of the last decision; null = none yet
    Decision decision;
    Charge charge; // of the client's request; what subrequests take is in the main request's record
    std::string_view account;
    Waiting* waiting = nullptr;  // while Redis or PostgreSQL is asked
    bool refused = false;        // the next location is the refusal's error page
    bool fields_sent = false;    // RateLimit fields stand in the answer
    bool settled = false;        // before post_action
    bool observed = false;       // refused by the gate, and let through by `billing observe`
    std::uint32_t waited_ms = 0; // for Redis or PostgreSQL, in all its decisions

    const LocationRules& rules() const noexcept { return *conf->rules; }
    // The last decision let it through.
    bool passed() const noexcept { return conf != nullptr && (decision.allows() || observed); }
};
static_assert(std::is_trivially_destructible_v<RequestRecord> && std::is_standard_layout_v<RequestRecord>);

// The question for a location, as far as it does not depend on who asks.
[[gnu::always_inline]] inline Ask ask_for(ngx_http_request_t* r, const LocConf& conf) noexcept {
    return {
        .account = {},
        .rules_index = conf.rules->index,
        .costs = conf.rules->costs,
        .credits = conf.rules->credits,
        .now = ngx_time(),
        .now_ms = ngx_current_msec,
        .write = conf.check ? !is_read_asked_about(r, conf.read_methods) : (r->method & conf.read_methods) == 0,
        .live = conf.live_statuses,
        .unknown = conf.unknown_account,
        .on_error = conf.error_policy,
    };
}

// The same as find_record(), where nginx has forgotten the request's contexts.
RequestRecord* recover_record(ngx_http_request_t* r) noexcept;

// Null when the gate has not seen this request.
inline RequestRecord* find_record(ngx_http_request_t* r) noexcept {
    auto* record = static_cast<RequestRecord*>(ngx_http_get_module_ctx(r, ngx_http_billing_module));
    const bool forgotten = record == nullptr && (r->internal != 0 || r->filter_finalize != 0);
    return forgotten ? recover_record(r) : record;
}

// Evaluates the costs that the configuration left open. Anything but `allowed`: why the request is refused.
Reason read_costs(ngx_http_request_t* r, const LocationRules& rules, Costs& costs, CreditUnits& credits) noexcept;

// Room for what one more location takes. What others that still wait may take keeps its room. False: memory is out.
bool make_room(ngx_pool_t* pool, Charge& charge, const Rules& rules) noexcept;

// What the client sees at the end decides whether the request is paid for: answers of 2xx, 3xx and a switch of
// protocols are, unless billing_paid_status says otherwise; a client that left pays once the application has been
// reached. OPTIONS never is, whatever it leads to. `conf`: of the location that decided.
bool is_paid(const ngx_http_request_t* r, const LocConf& conf) noexcept;

ngx_int_t gate_handler(ngx_http_request_t* r);
ngx_int_t settle_handler(ngx_http_request_t* r);

} // namespace billing
