#include "nginx/recheck.hpp"

#include "gate/problem.hpp"
#include "gate/tally.hpp"
#include "nginx/gate_handler.hpp"
#include "nginx/identity_record.hpp"
#include "nginx/late_charge.hpp"
#include "nginx/refusal.hpp"
#include "nginx/worker.hpp"

#include <optional>
#include <string>

namespace billing {

namespace {

class Recheck;

// What nginx's timer leads back by.
struct Timer {
    ngx_event_t event{};
    Recheck* owner = nullptr;
};

// The question with every means: the credential first, where PostgreSQL alone can tell.
Task<Decision> ask_again(Worker& worker, Ask ask, std::string key, Charge& charge) {
    if (!key.empty()) {
        KeyAnswer answer = co_await worker.identity().keys().resolve(std::move(key), ask.on_error.stale_ms);
        if (answer.verdict != KeyVerdict::good) {
            Decision refused;
            refused.reason = answer.verdict == KeyVerdict::bad ? Reason::invalid_key : Reason::unavailable;
            co_return refused;
        }
    }
    co_return co_await worker.gate().resolve(ask, charge);
}

// The sum is asked for by the log, when re-checks have ended already: it stays in the pool, found by its mark.
void recharged_mark(void*) noexcept {}
struct Recharged {
    ngx_pool_cleanup_t cleanup{};
    std::uint64_t units = 0;
};

Recharged* make_recharged(ngx_pool_t* pool) noexcept {
    void* memory = ngx_palloc(pool, sizeof(Recharged));
    if (memory == nullptr) {
        return nullptr;
    }
    auto* sum = new (memory) Recharged;
    sum->cleanup = {recharged_mark, nullptr, pool->cleanup};
    pool->cleanup = &sum->cleanup;
    return sum;
}

// Lives in the request's memory. A request that ends takes it along, whatever it waits for.
class Recheck {
public:
    Recheck(ngx_http_request_t* r, Recharged& recharged) noexcept : request_(r), recharged_(recharged) {
        timer_.owner = this;
        timer_.event.handler = [](ngx_event_t* event) { reinterpret_cast<Timer*>(event)->owner->look(); };
        timer_.event.data = r->connection; // nginx's debug log reads a descriptor there
        timer_.event.log = r->connection->log;
        timer_.event.cancelable = 1; // what keeps a worker that is leaving is the connection, not its timer
    }
    ~Recheck() {
        if (timer_.event.timer_set) {
            ngx_del_timer(&timer_.event);
        }
        if (asking_ && Worker::current() != nullptr) { // an interval that has not begun
            Worker::current()->gate().refund(charge_);
        }
    }
    Recheck(const Recheck&) = delete;
    Recheck& operator=(const Recheck&) = delete;

    void arm(ngx_msec_t interval_ms) noexcept { ngx_add_timer(&timer_.event, interval_ms); }

private:
    class Asking final : public Root<Decision> {
    public:
        Asking(Recheck& owner, Task<Decision> task) noexcept : Root<Decision>(std::move(task)), owner_(owner) {}

    private:
        void done() noexcept override { owner_.collect(); }

        Recheck& owner_;
    };

    void look() noexcept;
    bool begin(RequestRecord& record);
    Reason prepare(const LocConf& conf, Ask& ask, std::string& key);
    void collect() noexcept;
    void conclude(RequestRecord& record, const Decision& decision) noexcept;
    void close(const RequestRecord& record) noexcept;

    Timer timer_; // the event is its first member
    ngx_http_request_t* request_;
    Recharged& recharged_;
    Charge charge_; // of the last interval
    std::optional<Asking> asking_;
};

static_assert(std::is_standard_layout_v<Timer> && alignof(Recheck) <= NGX_ALIGNMENT);

// The location is the one that the request has been led to by now.
void Recheck::look() noexcept {
    ngx_http_request_t* r = request_;
    RequestRecord* record = find_record(r);
    const ngx_msec_t interval_ms = loc_conf(r).recheck_ms;
    if (interval_ms == 0 || r->done || record == nullptr) { // `done`: answered, only the connection is being closed
        return;
    }
    if (!record->passed() || record->waiting != nullptr) { // a refusal's page, or the gate is at it now
        arm(interval_ms);
        return;
    }
    const bool begun = guard(r->connection->log, false, [&] { return begin(*record); });
    if (!begun) {
        Decision failed;
        failed.reason = Reason::unavailable;
        conclude(*record, failed);
    }
}

// True: concluded, or collect() will be called.
bool Recheck::begin(RequestRecord& record) {
    const LocConf& conf = *record.conf;
    charge_.count = 0;
    const Rules& rules = conf.rules->rules;
    const bool room = charge_.room >= rules.takings() && charge_.credits_room() >= rules.durable_takings();
    if (!room && !make_room(request_->pool, charge_, rules)) {
        return false;
    }
    Ask ask = ask_for(request_, conf);
    ask.account = record.account;
    std::string key;
    if (const Reason refusal = prepare(conf, ask, key); refusal != Reason::allowed) {
        Decision refused;
        refused.reason = refusal;
        conclude(record, refused);
        return true;
    }
    Worker& worker = *Worker::current();
    asking_.emplace(*this, ask_again(worker, ask, std::move(key), charge_));
    if (worker.requests().start(*asking_)) {
        collect();
    }
    return true;
}

// What the request itself can tell. `key`: an API key that only PostgreSQL can vouch for.
Reason Recheck::prepare(const LocConf& conf, Ask& ask, std::string& key) {
    if (ask.account.empty()) { // let through by `billing observe` without one
        return Reason::no_account;
    }
    if (const Reason expired = expired_token(request_, conf.account); expired != Reason::allowed) {
        return expired;
    }
    const ApiKeySource* source = conf.account.key;
    const IdentityRecord* identity = source == nullptr ? nullptr : find_identity(request_);
    if (identity != nullptr && identity->key_source == source && identity->has_key) {
        ngx_str_t text;
        if (ngx_http_complex_value(request_, source->key, &text) != NGX_OK) {
            return Reason::unavailable;
        }
        const auto known = Worker::current()->identity().keys().look(view(text));
        if (known && known->verdict != KeyVerdict::good) {
            return Reason::invalid_key;
        }
        key = known ? "" : view(text);
    }
    return conf.rules->constant ? Reason::allowed : read_costs(request_, *conf.rules, ask.costs, ask.credits);
}

void Recheck::collect() noexcept {
    Decision decision;
    decision.reason = Reason::unavailable;
    decision = guard(request_->connection->log, decision, [this] { return asking_->take(); });
    asking_.reset();
    RequestRecord* record = find_record(request_);
    if (record != nullptr && record->passed()) {
        conclude(*record, decision);
    }
}

void Recheck::conclude(RequestRecord& record, const Decision& decision) noexcept {
    const bool observes = record.conf->observes;
    record.decision = decision;
    record.observed = !decision.allows() && observes;
    if (decision.allows()) {
        tally_pass(Worker::current()->table(), decision);
        recharged_.units += charge_.sum();
        Worker::current()->gate().commit(charge_); // the interval has begun
        if (decision.fallback) {
            guard(request_->connection->log, 0, [&] {
                charge_interval_later(request_, record);
                return 0;
            });
        }
    } else {
        tally_refusal(Worker::current()->table(), decision, observes);
        const int status = status_of(request_, decision.reason);
        guard(request_->connection->log, 0, [&] {
            ngx_log_error(NGX_LOG_INFO, request_->connection->log, 0, "billing: %s: it is refused by now with %d %s",
                          observes ? "would be closed" : "closed", status,
                          reason_code(decision, record.rules().rules).c_str());
            return 0;
        });
        if (!observes) {
            close(record);
            return;
        }
    }
    if (const ngx_msec_t interval_ms = loc_conf(request_).recheck_ms; interval_ms != 0) {
        arm(interval_ms);
    }
}

// Both sides, as nginx does when a client has gone. This object is gone below, with the request.
void Recheck::close(const RequestRecord& record) noexcept {
    ngx_http_request_t* r = request_;
    ngx_connection_t* connection = r->connection;
    if (!r->header_sent) { // for the log; the client has seen nothing
        r->headers_out.status = static_cast<ngx_uint_t>(status_of(r, record.decision.reason));
    }
    ++r->count; // an upstream's cleanup ends the request too, before ours has run; nginx sets it to 1 when it
                // terminates
    ngx_http_finalize_request(r, NGX_ERROR);
    ngx_http_run_posted_requests(connection);
}

void destroy_recheck(void* data) noexcept { static_cast<Recheck*>(data)->~Recheck(); }

} // namespace

bool begin_rechecks(ngx_http_request_t* r, const LocConf& conf) {
    for (const ngx_http_cleanup_t* known = r->cleanup; known != nullptr; known = known->next) {
        if (known->handler == destroy_recheck) {
            return true;
        }
    }
    ngx_http_cleanup_t* cleanup = ngx_http_cleanup_add(r, sizeof(Recheck));
    Recharged* recharged = make_recharged(r->pool);
    if (cleanup == nullptr || recharged == nullptr) {
        return false;
    }
    auto* recheck = new (cleanup->data) Recheck{r, *recharged};
    cleanup->handler = destroy_recheck;
    recheck->arm(conf.recheck_ms);
    return true;
}

std::uint64_t recharged_units(const ngx_http_request_t& r) noexcept {
    for (const ngx_pool_cleanup_t* known = r.pool->cleanup; known != nullptr; known = known->next) {
        if (known->handler == recharged_mark) {
            return reinterpret_cast<const Recharged*>(known)->units; // its first member
        }
    }
    return 0;
}

} // namespace billing
