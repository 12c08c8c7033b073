#include "nginx/gate_handler.hpp"

#include "nginx/refusal.hpp"
#include "nginx/waiting.hpp"
#include "nginx/worker.hpp"

#include <charconv>

namespace billing {

namespace {

// Marks our record in the pool's list of cleanups: an internal redirect forgets a request's contexts, never its pool.
void record_mark(void*) noexcept {}

RequestRecord* make_record(ngx_http_request_t* r) noexcept {
    ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(r->pool, sizeof(RequestRecord));
    if (cleanup == nullptr) {
        return nullptr;
    }
    cleanup->handler = record_mark;
    auto* record = static_cast<RequestRecord*>(cleanup->data);
    record->request = r;
    record->decision = Decision{};
    record->charge.count = 0;
    record->account = {};
    record->rules = nullptr;
    record->waiting = nullptr;
    ngx_http_set_ctx(r, record, ngx_http_billing_module);
    return record;
}

bool changes_things(ngx_uint_t method) noexcept {
    return (method & (NGX_HTTP_GET | NGX_HTTP_HEAD | NGX_HTTP_OPTIONS | NGX_HTTP_TRACE)) == 0;
}

// The digits of a whole number from 1 to k_max_cost; 0 for anything else.
std::uint32_t parse_cost(std::string_view text) noexcept {
    std::uint32_t cost = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), cost);
    const bool whole = problem == std::errc{} && end == text.data() + text.size();
    return whole && cost <= k_max_cost ? cost : 0;
}

Reason read_costs(ngx_http_request_t* r, const LocationRules& rules, Ask& ask) noexcept {
    for (std::size_t index = 0; index < rules.costs.size(); ++index) {
        ask.costs[index] = rules.rules.quotas[index].cost;
        if (rules.costs[index] == nullptr) {
            continue;
        }
        ngx_str_t text;
        if (ngx_http_complex_value(r, rules.costs[index], &text) != NGX_OK) {
            return Reason::unavailable;
        }
        ask.costs[index] = parse_cost(view(text));
        if (ask.costs[index] == 0) {
            return Reason::invalid_cost;
        }
    }
    return Reason::allowed;
}

// Fills in who asks for what. Anything but `allowed`: refused before it is looked up.
Reason read_request(ngx_http_request_t* r, const LocConf& conf, RequestRecord& record, Ask& ask) noexcept {
    std::string_view account;
    if (!conf.account.read(r, account)) {
        return Reason::unavailable;
    }
    if (account.empty()) {
        return Reason::no_account;
    }
    if (!valid_account_id(account)) {
        return Reason::invalid_account;
    }
    record.account = account;
    ask.account = account;
    ask.rules = &conf.rules->rules;
    ask.rules_index = conf.rules->index;
    ask.now = ngx_time();
    ask.now_ms = ngx_current_msec;
    ask.write = changes_things(r->method);
    ask.charge = r == r->main;
    ask.unknown = conf.unknown_account;
    ask.on_error = conf.error_policy;
    return conf.rules->costs.empty() ? Reason::allowed : read_costs(r, *conf.rules, ask);
}

ngx_int_t conclude(ngx_http_request_t* r, RequestRecord& record) {
    Table& table = Worker::current()->table();
    if (!record.decision.allows()) {
        table.count(Counter::decisions_refused);
        return refuse(r, record);
    }
    table.count(Counter::decisions_allowed);
    return send_rate_limit_fields(r, record) ? NGX_DECLINED : NGX_HTTP_INTERNAL_SERVER_ERROR;
}

// True when there is nothing (more) to decide: OPTIONS and work that nginx does for itself are free, a refusal's error
// page is let through, and a redirect within the same rules has been paid.
bool passes(const ngx_http_request_t* r, const LocConf& conf, const RequestRecord* record) noexcept {
    if (!conf.gated || r->method == NGX_HTTP_OPTIONS || r->background) {
        return true;
    }
    return record != nullptr && record->rules != nullptr && record->waiting == nullptr &&
           (record->rules == conf.rules || !record->decision.allows());
}

// What the client sees at the end decides whether the request is paid for: answers of 2xx, 3xx and a switch of
// protocols are; a client that left pays once the application has been asked.
bool is_paid(const ngx_http_request_t* r) noexcept {
    const ngx_uint_t status = r->err_status != 0 ? r->err_status : r->headers_out.status;
    if (status == NGX_HTTP_CLIENT_CLOSED_REQUEST || status == 0) {
        return r->upstream_states != nullptr && r->upstream_states->nelts > 0;
    }
    return status < NGX_HTTP_BAD_REQUEST;
}

} // namespace

RequestRecord* find_record(ngx_http_request_t* r) noexcept {
    auto* record = static_cast<RequestRecord*>(ngx_http_get_module_ctx(r, ngx_http_billing_module));
    if (record != nullptr || !r->internal) {
        return record;
    }
    for (ngx_pool_cleanup_t* cleanup = r->pool->cleanup; cleanup != nullptr; cleanup = cleanup->next) {
        if (cleanup->handler == record_mark && static_cast<RequestRecord*>(cleanup->data)->request == r) {
            record = static_cast<RequestRecord*>(cleanup->data);
            ngx_http_set_ctx(r, record, ngx_http_billing_module);
            return record;
        }
    }
    return nullptr;
}

ngx_int_t gate_handler(ngx_http_request_t* r) {
    const LocConf& conf = loc_conf(r);
    RequestRecord* record = find_record(r);
    if (passes(r, conf, record)) {
        return NGX_DECLINED;
    }
    if (record != nullptr && record->waiting != nullptr) {
        if (!record->waiting->over()) {
            return NGX_AGAIN;
        }
        record->waiting = nullptr;
        return guard(r->connection->log, ngx_int_t{NGX_HTTP_INTERNAL_SERVER_ERROR},
                     [&] { return conclude(r, *record); });
    }
    if (record == nullptr && (record = make_record(r)) == nullptr) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    record->rules = conf.rules;
    return guard(r->connection->log, ngx_int_t{NGX_HTTP_INTERNAL_SERVER_ERROR}, [&]() -> ngx_int_t {
        Ask ask;
        record->decision.reason = read_request(r, conf, *record, ask);
        if (record->decision.allows() && !Worker::current()->gate().decide(ask, record->decision, record->charge)) {
            const ngx_int_t begun = begin_waiting(r, *record, ask);
            if (begun != NGX_OK) {
                return begun;
            }
        }
        return conclude(r, *record);
    });
}

ngx_int_t settle_handler(ngx_http_request_t* r) {
    RequestRecord* record = find_record(r);
    if (record != nullptr && record->charge.count > 0 && !is_paid(r)) {
        Worker::current()->gate().refund(record->charge);
    }
    return NGX_OK;
}

} // namespace billing
