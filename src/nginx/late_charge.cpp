#include "nginx/late_charge.hpp"

#include "nginx/worker.hpp"

#include <algorithm>
#include <utility>

namespace billing {

namespace {

// In the pool of the client's request. Lives as long as it.
struct LateNote {
    const ngx_http_request_t* request; // the client's; null once it is settled
    const LocConf* conf;               // of the location that decided
    LateCharge charge;
};

void settle_note(void* data) noexcept {
    auto& note = *static_cast<LateNote*>(data);
    const ngx_http_request_t* request = std::exchange(note.request, nullptr);
    if (request != nullptr && is_paid(request, *note.conf)) {
        Worker::current()->table().charge_late(note.charge);
    }
}

// A request pays once for a quota, whatever its redirects and subrequests are.
LateNote* find_note(const ngx_http_request_t* main, const LateCharge& charge) noexcept {
    for (ngx_pool_cleanup_t* cleanup = main->pool->cleanup; cleanup != nullptr; cleanup = cleanup->next) {
        if (cleanup->handler == settle_note) {
            auto* note = static_cast<LateNote*>(cleanup->data);
            if (note->charge.account == charge.account && note->charge.limit == charge.limit) {
                return note;
            }
        }
    }
    return nullptr;
}

bool note_later(ngx_http_request_t* main, const LocConf& conf, const LateCharge& charge) noexcept {
    if (LateNote* note = find_note(main, charge); note != nullptr) {
        note->charge.units = std::max(note->charge.units, charge.units);
        return true;
    }
    ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(main->pool, sizeof(LateNote));
    if (cleanup == nullptr) {
        return false;
    }
    new (cleanup->data) LateNote{main, &conf, charge};
    cleanup->handler = settle_note;
    return true;
}

// Calls f(LateCharge) for each quota, as long as it answers true. False: it did not.
template <class F>
bool each_charge(ngx_http_request_t* r, const RequestRecord& record, F&& f) {
    const LocationRules& location = record.rules();
    Costs costs = location.costs;
    CreditUnits credits{}; // are never let through unpaid
    if (read_costs(r, location, costs, credits) != Reason::allowed) {
        return true; // what it depends on has changed since it was judged
    }
    bool done = true;
    for (std::size_t index = 0; index < location.rules.quotas.size() && done; ++index) {
        LateCharge charge;
        charge.account = record.account;
        charge.limit = location.rules.quotas[index].key;
        charge.at = ngx_time();
        charge.units = costs[index];
        charge.creates = record.conf->unknown_account == UnknownAccount::create;
        done = f(charge);
    }
    return done;
}

} // namespace

bool charge_later(ngx_http_request_t* r, const RequestRecord& record) {
    return each_charge(r, record, [&](const LateCharge& charge) { return note_later(r->main, *record.conf, charge); });
}

void settle_late_charges(ngx_http_request_t* r) noexcept {
    for (ngx_pool_cleanup_t* cleanup = r->pool->cleanup; cleanup != nullptr; cleanup = cleanup->next) {
        if (cleanup->handler == settle_note) {
            settle_note(cleanup->data);
        }
    }
}

void charge_interval_later(ngx_http_request_t* r, const RequestRecord& record) {
    each_charge(r, record, [](const LateCharge& charge) {
        Worker::current()->table().charge_late(charge);
        return true;
    });
}

} // namespace billing
