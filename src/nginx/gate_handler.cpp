#include "nginx/gate_handler.hpp"

#include "nginx/refusal.hpp"
#include "nginx/waiting.hpp"
#include "nginx/worker.hpp"

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
    record->account_source = nullptr;
    record->waiting = nullptr;
    record->refused = false;
    record->fields_sent = false;
    ngx_http_set_ctx(r, record, ngx_http_billing_module);
    return record;
}

bool changes_things(ngx_uint_t method) noexcept {
    return (method & (NGX_HTTP_GET | NGX_HTTP_HEAD | NGX_HTTP_OPTIONS | NGX_HTTP_TRACE)) == 0;
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
    ask.unknown = conf.unknown_account;
    ask.on_error = conf.error_policy;
    return conf.rules->costs.empty() ? Reason::allowed : read_costs(r, *conf.rules, ask);
}

ngx_int_t conclude(ngx_http_request_t* r, RequestRecord& record) {
    Table& table = Worker::current()->table();
    if (!record.decision.allows()) {
        table.count(Counter::decisions_refused);
        record.refused = true;
        return refuse(r, record);
    }
    table.count(Counter::decisions_allowed);
    return send_rate_limit_fields(r, record) ? NGX_DECLINED : NGX_HTTP_INTERNAL_SERVER_ERROR;
}

// OPTIONS and work that nginx does for itself are free.
bool is_free(const ngx_http_request_t* r, const LocConf& conf) noexcept {
    return !conf.gated || r->method == NGX_HTTP_OPTIONS || r->background;
}

// A redirect within the same rules and for the same account has been decided and paid.
bool is_decided(const LocConf& conf, const RequestRecord& record) noexcept {
    return record.rules == conf.rules && record.account_source != nullptr && *record.account_source == conf.account &&
           record.waiting == nullptr;
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

ngx_int_t decide(ngx_http_request_t* r, const LocConf& conf, RequestRecord* record) {
    if (record != nullptr && record->waiting != nullptr) {
        if (!record->waiting->over()) {
            return NGX_AGAIN;
        }
        record->waiting = nullptr;
        return conclude(r, *record);
    }
    record = record != nullptr ? record : make_record(r);
    RequestRecord* payer = record;
    if (r != r->main) { // a charge is taken once for each request of a client, whatever its subrequests are
        payer = find_record(r->main);
        payer = payer != nullptr ? payer : make_record(r->main);
    }
    if (record == nullptr || payer == nullptr) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    record->rules = conf.rules;
    record->account_source = &conf.account;
    record->decision = Decision{};
    Ask ask;
    record->decision.reason = read_request(r, conf, *record, ask);
    if (record->decision.allows() && !Worker::current()->gate().decide(ask, record->decision, payer->charge)) {
        const ngx_int_t begun = begin_waiting(r, *record, ask, payer->charge);
        if (begun != NGX_OK) {
            return begun;
        }
    }
    return conclude(r, *record);
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
    if (record != nullptr && record->refused) { // the error page is let through, what it leads to is not
        record->refused = false;
        record->rules = nullptr;
        return NGX_DECLINED;
    }
    if (is_free(r, conf) || (record != nullptr && is_decided(conf, *record))) {
        return NGX_DECLINED;
    }
    return guard(r->connection->log, ngx_int_t{NGX_HTTP_INTERNAL_SERVER_ERROR},
                 [&] { return decide(r, conf, record); });
}

ngx_int_t settle_handler(ngx_http_request_t* r) {
    RequestRecord* record = find_record(r);
    if (record != nullptr && record->charge.count > 0 && !is_paid(r)) {
        Worker::current()->gate().refund(record->charge);
    }
    return NGX_OK;
}

} // namespace billing
