#include "nginx/gate_handler.hpp"

#include "gate/tally.hpp"
#include "nginx/accompany.hpp"
#include "nginx/identity_record.hpp"
#include "nginx/keyed_request.hpp"
#include "nginx/late_charge.hpp"
#include "nginx/outcome.hpp"
#include "nginx/refusal.hpp"
#include "nginx/use_report.hpp"
#include "nginx/waiting.hpp"
#include "nginx/worker.hpp"

#include <algorithm>

namespace billing {

namespace {

// Marks our record in the pool's list of cleanups: an internal redirect forgets a request's contexts, and so does an
// error that a filter finds (412, say); never its pool.
void record_mark(void*) noexcept {}

// With room for what its first location takes.
RequestRecord* make_record(ngx_http_request_t* r, std::size_t takings) noexcept {
    void* memory = ngx_palloc(r->pool, sizeof(RequestRecord) + takings * sizeof(Taking));
    if (memory == nullptr) {
        return nullptr;
    }
    auto* record = new (memory) RequestRecord;
    record->cleanup = {record_mark, r, r->pool->cleanup};
    record->charge.takings = reinterpret_cast<Taking*>(record + 1);
    record->charge.room = static_cast<std::uint32_t>(takings);
    r->pool->cleanup = &record->cleanup;
    ngx_http_set_ctx(r, record, ngx_http_billing_module);
    return record;
}

// `more` in an array of the pool. False: memory is out.
template <class T>
bool grow(ngx_pool_t* pool, T*& items, std::uint32_t count, std::uint32_t& room, std::size_t more) noexcept {
    const auto wanted = std::min(room + static_cast<std::uint32_t>(more), k_most_takings);
    if (wanted == room) {
        return true;
    }
    auto* larger = static_cast<T*>(ngx_palloc(pool, wanted * sizeof(T)));
    if (larger == nullptr) {
        return false;
    }
    std::copy_n(items, count, larger);
    items = larger;
    room = wanted;
    return true;
}

[[gnu::noinline]] bool make_credit_room(ngx_pool_t* pool, Charge& charge, const Rules& rules) noexcept {
    if (charge.credits == nullptr) {
        void* memory = ngx_palloc(pool, sizeof(CreditCharge));
        if (memory == nullptr) {
            return false;
        }
        charge.credits = new (memory) CreditCharge;
    }
    CreditCharge& credits = *charge.credits;
    return grow(pool, credits.takings, credits.count, credits.room, rules.durable_takings());
}

[[gnu::noinline]] RequestRecord* extend_record(ngx_http_request_t* r, RequestRecord* record, const LocationRules& rules,
                                               bool pays) noexcept {
    const bool first = record == nullptr;
    if (first) {
        record = make_record(r, pays ? rules.takings : 0);
    }
    if (!pays || record == nullptr) {
        return record;
    }
    const bool room = first ? make_credit_room(r->pool, record->charge, rules.rules)
                            : make_room(r->pool, record->charge, rules.rules);
    return room ? record : nullptr;
}

// The request's record, for its first decision or one more: with room for what the location takes, if it is the one
// that pays. Null: memory is out.
RequestRecord* begin_record(ngx_http_request_t* r, RequestRecord* record, const LocationRules& rules,
                            bool pays) noexcept {
    if (record == nullptr && !rules.takes_credits) [[likely]] {
        return make_record(r, pays ? rules.takings : 0);
    }
    return extend_record(r, record, rules, pays);
}

// What can be nobody's id is never in a log line or a field.
Reason forget_account(RequestRecord& record) noexcept {
    record.account = {};
    return Reason::invalid_account;
}

// Fills in who asks for what. Anything but `allowed`: refused before it is looked up.
Reason read_request(ngx_http_request_t* r, const LocConf& conf, RequestRecord& record, Ask& ask) noexcept {
    if (!conf.account.read(r, ask.account)) {
        return Reason::unavailable;
    }
    if (const Reason refusal = identity_refusal(r, conf.account); refusal != Reason::allowed) {
        return refusal;
    }
    if (ask.account.empty()) {
        return Reason::no_account;
    }
    record.account = ask.account;
    if (conf.rules->constant || r->background != 0) {
        return Reason::allowed;
    }
    if (!valid_account_id(ask.account)) {
        return forget_account(record);
    }
    const Reason reason = read_costs(r, *conf.rules, ask.costs, ask.credits);
    return reason == Reason::allowed && conf.keyed ? read_claim(r, conf, ask) : reason;
}

// The answer is no: it is given, or under `billing observe` only said in the log.
ngx_int_t conclude_refusal(ngx_http_request_t* r, RequestRecord& record) {
    tally_refusal(Worker::current()->table(), record.decision, record.conf->observes);
    if (record.conf->observes) {
        record.observed = true;
        observe_refusal(r, record);
        return NGX_DECLINED;
    }
    record.refused = true;
    if (r == r->main) { // what it has paid on its way here goes back now: gRPC is told a refusal under status 200
        Worker::current()->gate().refund(record.charge);
    }
    return refuse(r, record);
}

bool is_free(const ngx_http_request_t* r) noexcept { return r->background != 0 || sent_as_options(r->main); }

// What passes as `billing_on_error` says has a line in the log. False: it could not be noted.
bool conclude_unusual(ngx_http_request_t* r, RequestRecord& record) {
    if (record.decision.fallback || record.decision.source == Source::stale) {
        ngx_log_error(NGX_LOG_INFO, r->connection->log, 0, "billing: let through, for %s",
                      record.decision.fallback ? "nobody can tell what its account may"
                                               : "its account might when it could last be asked for");
    }
    return !record.decision.fallback || is_free(r) || charge_later(r, record);
}

ngx_int_t conclude(ngx_http_request_t* r, RequestRecord& record) {
    record.observed = false;
    if (!record.decision.allows()) {
        return conclude_refusal(r, record);
    }
    if (!tally_pass(Worker::current()->table(), record.decision) && !conclude_unusual(r, record)) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    const bool told = !record.decision.meter.bounded() || send_rate_limit_fields(r, record);
    return told ? NGX_DECLINED : NGX_HTTP_INTERNAL_SERVER_ERROR;
}

ngx_uint_t status_of(const ngx_http_request_t* r) noexcept {
    return r->err_status != 0 ? r->err_status : r->headers_out.status;
}

// Of a client that has no answer yet.
bool has_left(ngx_uint_t status) noexcept { return status == NGX_HTTP_CLIENT_CLOSED_REQUEST || status == 0; }

// What is paid for, where that is more than to leave it as it is.
[[gnu::noinline]] void settle_use(ngx_http_request_t* r, RequestRecord& record) noexcept {
    if (record.conf != nullptr && record.conf->settles) {
        guard(r->connection->log, 0, [&] {
            settle_by_report(r, record);
            return 0;
        });
    }
    Worker::current()->gate().commit(record.charge, !has_left(status_of(r)));
}

[[gnu::always_inline]] inline void settle(ngx_http_request_t* r, RequestRecord* record) noexcept {
    if (record == nullptr || (record->charge.count == 0 && record->charge.credits == nullptr)) {
        return;
    }
    // A request that was not gated itself pays for its subrequests.
    const LocConf& conf = record->conf != nullptr ? *record->conf : loc_conf(r);
    if (!is_paid(r, conf)) {
        Worker::current()->gate().refund(record->charge);
    } else if (conf.settles || record->charge.credits != nullptr) [[unlikely]] {
        settle_use(r, *record);
    }
}

// The client has its answer, whose status post_action is about to replace by its own.
void settle_early(ngx_http_request_t* r, RequestRecord* record) noexcept {
    if (record != nullptr && !record->settled) {
        record->settled = true;
        settle(r, record);
        settle_late_charges(r);
    }
}

// Of a redirect or subrequest. The error page of a refusal is let through, what it leads to is not; nor is what
// post_action does decided, for no client sees it.
bool is_spared(ngx_http_request_t* r, RequestRecord* record) noexcept {
    if (r->post_action != 0) {
        settle_early(r, record);
        return true;
    }
    if (record != nullptr && record->refused) {
        record->refused = false;
        return true;
    }
    return answers_options(r);
}

// The same rules, asked of the same account in the same way.
bool decides_alike(const LocConf& a, const LocConf& b) noexcept {
    return a.rules == b.rules && a.account == b.account && a.observes == b.observes &&
           a.read_methods == b.read_methods && a.live_statuses == b.live_statuses &&
           a.unknown_account == b.unknown_account && a.error_policy == b.error_policy;
}

// A redirect to where it would be decided alike has been decided and paid.
bool is_decided(const LocConf& conf, const RequestRecord& record) noexcept {
    return record.passed() && record.waiting == nullptr && (record.conf == &conf || decides_alike(*record.conf, conf));
}

// By which of the location's rules the request makes or removes something. In doubt it makes, and does not remove.
std::uint8_t stock_of(const ngx_http_request_t* r, const LocConf& conf) noexcept {
    const ngx_uint_t methods = conf.check ? methods_asked_about(r) : r->method;
    unsigned bits = 0;
    for (std::size_t index = 0; index < conf.stock.size(); ++index) {
        const PlacedStock& stock = conf.stock[index];
        const bool counts = stock.rule.removes ? (methods & ~stock.methods) == 0 : (methods & stock.methods) != 0;
        bits |= counts ? 1U << index : 0;
    }
    return static_cast<std::uint8_t>(bits);
}

// Shared memory cannot tell. Only here an account is looked at for what an id may be: one that was found is one.
ngx_int_t ask_further(ngx_http_request_t* r, RequestRecord& record, Ask& ask, Charge& charge) {
    if (!valid_account_id(ask.account)) {
        record.decision.reason = forget_account(record);
        return NGX_OK;
    }
    ask.stock = r->background != 0 ? 0 : stock_of(r, *record.conf);
    return begin_waiting(r, record, ask, charge);
}

ngx_int_t decide(ngx_http_request_t* r, const LocConf& conf, RequestRecord* record) {
    if (record != nullptr && record->waiting != nullptr) {
        if (!record->waiting->over()) {
            return NGX_AGAIN;
        }
        record->waiting = nullptr;
        return conclude(r, *record);
    }
    const LocationRules& rules = *conf.rules;
    if (record != nullptr) {
        record->decision = Decision{};
    }
    record = begin_record(r, record, rules, r == r->main);
    RequestRecord* payer = record;
    if (r != r->main) { // a charge is taken once for each request of a client, whatever its subrequests are
        payer = begin_record(r->main, find_record(r->main), rules, true);
    }
    if (record == nullptr || payer == nullptr) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    record->conf = &conf;
    Ask ask = ask_for(r, conf);
    // Work that nginx does for itself is charged to nobody; its rules are checked all the same.
    if (r->background != 0) {
        ask.costs = {};
        ask.credits = {};
        ask.counts = false;
    }
    record->decision.reason = read_request(r, conf, *record, ask);
    if (record->decision.allows() && !Worker::current()->gate().decide(ask, record->decision, payer->charge)) {
        const ngx_int_t begun = ask_further(r, *record, ask, payer->charge);
        if (begun != NGX_OK) {
            return begun;
        }
    }
    return conclude(r, *record);
}

// Where the value is null, what stands there is the configuration's.
Reason read_units(ngx_http_request_t* r, const std::vector<ngx_http_complex_value_t*>& values,
                  std::uint32_t* units) noexcept {
    for (std::size_t index = 0; index < values.size(); ++index) {
        if (values[index] == nullptr) {
            continue;
        }
        ngx_str_t text;
        if (ngx_http_complex_value(r, values[index], &text) != NGX_OK) {
            return Reason::unavailable;
        }
        units[index] = parse_cost(view(text));
        if (units[index] == 0) {
            return Reason::invalid_cost;
        }
    }
    return Reason::allowed;
}

bool is_free_hit(const ngx_http_request_t* r) noexcept {
    return came_from_cache(r) && loc_conf(r).free_hits.value_or(false);
}

} // namespace

bool make_room(ngx_pool_t* pool, Charge& charge, const Rules& rules) noexcept {
    return grow(pool, charge.takings, charge.count, charge.room, rules.takings()) &&
           (rules.durable_takings() == 0 || make_credit_room(pool, charge, rules));
}

Reason read_costs(ngx_http_request_t* r, const LocationRules& rules, Costs& costs, CreditUnits& credits) noexcept {
    const Reason refusal = read_units(r, rules.variable_costs, costs.data());
    return refusal == Reason::allowed ? read_units(r, rules.variable_credits, credits.data()) : refusal;
}

bool is_paid(const ngx_http_request_t* r, const LocConf& conf) noexcept {
    const ngx_uint_t status = status_of(r);
    if (sent_as_options(r)) {
        return false;
    }
    if (has_left(status)) {
        return reached_upstream(r) &&
               (conf.paid_statuses == nullptr || conf.paid_statuses->test(NGX_HTTP_CLIENT_CLOSED_REQUEST));
    }
    const bool paid = conf.paid_statuses == nullptr
                          ? status < NGX_HTTP_BAD_REQUEST
                          : status < conf.paid_statuses->size() && conf.paid_statuses->test(status);
    return paid && !is_free_hit(r) && (r->http_version < NGX_HTTP_VERSION_20 || !failed_as_call(r));
}

RequestRecord* recover_record(ngx_http_request_t* r) noexcept {
    for (ngx_pool_cleanup_t* cleanup = r->pool->cleanup; cleanup != nullptr; cleanup = cleanup->next) {
        if (cleanup->handler == record_mark && cleanup->data == r) {
            auto* record = reinterpret_cast<RequestRecord*>(cleanup); // its first member
            ngx_http_set_ctx(r, record, ngx_http_billing_module);
            return record;
        }
    }
    return nullptr;
}

namespace {

[[gnu::noinline]] ngx_int_t enter(ngx_http_request_t* r, const LocConf& conf, RequestRecord* record) {
    if (r->internal != 0 && is_spared(r, record)) {
        return NGX_DECLINED;
    }
    if (!conf.gated || r->method == NGX_HTTP_OPTIONS || (record != nullptr && is_decided(conf, *record))) {
        return NGX_DECLINED;
    }
    return guard(r->connection->log, ngx_int_t{NGX_HTTP_INTERNAL_SERVER_ERROR},
                 [&] { return decide(r, conf, record); });
}

} // namespace

ngx_int_t gate_handler(ngx_http_request_t* r) {
    const LocConf& conf = loc_conf(r);
    RequestRecord* record = find_record(r);
    if (!conf.accompanies && record == nullptr && r == r->main) [[likely]] {
        return enter(r, conf, record);
    }
    if (const ngx_int_t begun = conf.keyed ? read_keyed_body(r, conf) : NGX_DECLINED; begun != NGX_DECLINED) {
        return begun;
    }
    const ngx_int_t answer = enter(r, conf, record); // the request may be gone, where it is not declined
    return answer == NGX_DECLINED ? accompany(r, conf) : answer;
}

ngx_int_t settle_handler(ngx_http_request_t* r) {
    RequestRecord* record = find_record(r);
    if (record != nullptr && !record->settled) {
        settle(r, record);
    }
    return NGX_OK;
}

} // namespace billing
