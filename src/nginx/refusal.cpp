#include "nginx/refusal.hpp"

#include "gate/problem.hpp"
#include "gate/refusal_form.hpp"
#include "nginx/answer.hpp"
#include "nginx/outcome.hpp"
#include "nginx/request_header.hpp"
#include "nginx/worker.hpp"

namespace billing {

namespace {

constexpr std::string_view k_policy_field = "RateLimit-Policy";
constexpr std::string_view k_limit_field = "RateLimit";

// The checkout and portal of the request's server, as seen from outside.
WaysOut ways_out(ngx_http_request_t* r) {
    const MainConf& main = main_conf(r);
    const auto& base = loc_conf(r).endpoint.public_url;
    WaysOut ways;
    if (base && main.stripe) {
        const auto& paths = main.paths_of(ngx_http_get_module_srv_conf(r, ngx_http_core_module));
        ways.upgrade = paths.checkout.empty() ? "" : *base + paths.checkout;
        ways.portal = paths.portal.empty() ? "" : *base + paths.portal;
    }
    return ways;
}

RefusalForm form_for(const ngx_http_request_t* r) noexcept {
    const ngx_table_elt_t* type = r->headers_in.content_type;
    const RefusalForm form =
        refusal_form(type == nullptr ? std::string_view{} : view(type->value), header_of(r, "accept"));
    return form == RefusalForm::grpc && r->http_version < NGX_HTTP_VERSION_20 ? RefusalForm::json : form;
}

// An answer that ends with its header, as gRPC has it ("trailers-only"). What to finalize the request with.
ngx_int_t send_grpc(ngx_http_request_t* r, int status, const std::string& problem) {
    if (!add_header(r, "grpc-status", std::to_string(grpc_status(status))) ||
        !add_header(r, "grpc-message", grpc_message(problem))) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_type = ngx_string("application/grpc");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->header_only = 1;
    ngx_http_clear_content_length(r);
    return ngx_http_send_header(r);
}

// In the form that the client wants. What to finalize the request with.
ngx_int_t send_refusal(ngx_http_request_t* r, int status, const std::string& problem) {
    switch (form_for(r)) {
    case RefusalForm::grpc:
        return send_grpc(r, status, problem);
    case RefusalForm::html:
        if (!add_header(r, "Content-Security-Policy", "default-src 'none'; base-uri 'none'; frame-ancestors 'none'")) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
        return send_answer(r, status, "text/html; charset=utf-8", refusal_page(problem));
    case RefusalForm::json:
        break;
    }
    return send_answer(r, status, "application/problem+json", problem);
}

// The quota's period in words; of one that is the account's own no clock has them.
const PeriodClock::Present& period_of(const RequestRecord& record, const Meter& meter) noexcept {
    if (meter.window == 0) [[likely]] {
        return Worker::current()->gate().period_of(record.rules().index, meter.quota, ngx_time());
    }
    static PeriodClock::Present own;
    own = PeriodClock::own(meter.window, meter.reset - ngx_time());
    own.end = meter.reset;
    return own;
}

} // namespace

int status_of(const ngx_http_request_t* r, Reason reason) noexcept {
    const auto code = loc_conf(const_cast<ngx_http_request_t*>(r)).status_codes.gate[static_cast<std::size_t>(reason)];
    return code != 0 ? code : default_status(reason);
}

bool has_error_page(ngx_http_request_t* r, int status) noexcept {
    const auto* core = static_cast<ngx_http_core_loc_conf_t*>(ngx_http_get_module_loc_conf(r, ngx_http_core_module));
    if (core->error_pages == nullptr || (r->error_page && !core->recursive_error_pages)) {
        return false;
    }
    const auto* pages = static_cast<const ngx_http_err_page_t*>(core->error_pages->elts);
    for (ngx_uint_t index = 0; index < core->error_pages->nelts; ++index) {
        if (pages[index].status == status) {
            return true;
        }
    }
    return false;
}

void observe_refusal(ngx_http_request_t* r, const RequestRecord& record) {
    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0, "billing: would be refused with %d %s",
                  status_of(r, record.decision.reason), reason_code(record.decision, record.rules().rules).c_str());
}

ngx_int_t refuse(ngx_http_request_t* r, RequestRecord& record) {
    const Decision& decision = record.decision;
    const Rules& rules = record.rules().rules;
    int status = status_of(r, decision.reason);
    if (status != NGX_HTTP_UNAUTHORIZED && r != r->main && asks_for_access(r)) {
        status = NGX_HTTP_FORBIDDEN; // auth_request makes a 500 of any other refusal
    }
    r->err_status = 0; // of the error whose page this would have been
    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0, "billing: refused with %d %s", status,
                  reason_code(decision, rules).c_str());
    bool ok = push_header(r, "Cache-Control", "no-store") != nullptr && push_header(r, "Vary", "Accept") != nullptr &&
              send_rate_limit_fields(r, record);
    if (const auto wait = retry_after(decision, ngx_time()); ok && wait > 0) {
        ok = add_header(r, "Retry-After", std::to_string(wait));
    }
    if (const auto challenge = challenge_of(decision.reason); ok && !challenge.empty()) {
        ngx_table_elt_t* field = push_header(r, "WWW-Authenticate", challenge);
        r->headers_out.www_authenticate = field; // where auth_request looks for it
        ok = field != nullptr;
    }
    if (ok && record.conf->check) { // a proxy that asks may look at nothing but fields
        ok = add_header(r, "X-Billing-Reason", reason_code(decision, rules));
    }
    if (!ok) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    if (has_error_page(r, status)) {
        return status;
    }
    const Gate& gate = Worker::current()->gate();
    const RecentProblems::Key key{record.conf, gate.catalog_stamp(), status, decision};
    const std::string& problem = Worker::current()->problems().find(key, [&] {
        return problem_body(decision, rules, gate.rules(record.rules().index), gate.catalog(), status, ways_out(r));
    });
    ngx_http_finalize_request(r, send_refusal(r, status, problem));
    return NGX_DONE;
}

bool send_rate_limit_fields(ngx_http_request_t* r, RequestRecord& record) noexcept {
    const Meter& meter = record.decision.meter;
    if (!meter.bounded() || r != r->main) {
        return true;
    }
    const std::string_view quota = record.rules().rules.quotas[meter.quota].key;
    auto* room = static_cast<char*>(ngx_pnalloc(r->pool, rate_limit_room(quota)));
    if (room == nullptr) {
        return false;
    }
    if (record.fields_sent) { // a redirect was decided anew
        remove_header(r, k_policy_field);
        remove_header(r, k_limit_field);
    }
    record.fields_sent = true;
    const RateLimitFields fields = rate_limit_fields(meter, quota, period_of(record, meter), room);
    return push_header(r, k_policy_field, fields.policy) != nullptr &&
           push_header(r, k_limit_field, fields.limit) != nullptr;
}

} // namespace billing
