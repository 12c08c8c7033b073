// Everything one worker process owns: its reactor, its connections, its view of the zone, the gate and the host's jobs.
// Made in init_process, destroyed in exit_process; there is none in the master, the cache manager and the cache loader.
#pragma once

#include "nginx/ngx.hpp"

#include "async/scope.hpp"
#include "drivers/postgres.hpp"
#include "drivers/redis.hpp"
#include "drivers/stripe_api.hpp"
#include "endpoints/services.hpp"
#include "gate/gate.hpp"
#include "gate/recent_problems.hpp"
#include "identity/identity.hpp"
#include "jobs/host_jobs.hpp"
#include "nginx/conf.hpp"
#include "nginx/nginx_reactor.hpp"
#include "nginx/zone.hpp"
#include "state/account_store.hpp"
#include "state/catalog_holder.hpp"
#include "state/checkout_store.hpp"
#include "state/event_writer.hpp"
#include "state/host_gauges.hpp"
#include "state/quota_funding.hpp"
#include "state/redis_cache.hpp"
#include "state/table.hpp"

#include <optional>

namespace billing {

class Worker {
public:
    Worker(ngx_cycle_t* cycle, const MainConf& conf, Table table);
    ~Worker();

    void start();

    // This process's worker, or null where nothing is gated and no location is ours.
    static Worker* current() noexcept { return current_; }

    NginxReactor& reactor() noexcept { return reactor_; }
    Table& table() noexcept { return table_; }
    Gate& gate() noexcept { return gate_; }
    RecentProblems& problems() noexcept { return problems_; }
    // Requests that wait run in it; cancelled before all else ends.
    Scope& requests() noexcept { return requests_; }
    // What must not stay half done when its client leaves runs in this one.
    Scope& scope() noexcept { return scope_; }
    Services& services() noexcept { return services_; }
    Identity& identity() noexcept { return identity_; }
    // For its end: what PostgreSQL has not been told yet.
    std::deque<CreditVerdict> untold_verdicts() { return std::move(verdicts_).leftovers(); }

private:
    friend ngx_int_t init_process(ngx_cycle_t* cycle);
    friend void exit_process(ngx_cycle_t* cycle);

    static inline Worker* current_ = nullptr;

    bool serves_; // some location is ours
    // In the order of making; destroyed from below.
    NginxReactor reactor_;
    Scope scope_;
    Scope requests_;
    Table table_;
    Postgres postgres_;
    std::optional<Redis> redis_;
    std::optional<RedisCache> cache_;
    AccountStore accounts_;
    CatalogHolder catalogs_;
    QuotaFunding funding_;
    CreditTakings credits_;
    CreditTakings stock_;
    IdempotencyKeys keys_;
    CreditVerdicts verdicts_;
    Gate gate_;
    RecentProblems problems_;
    Identity identity_;
    Postgres endpoint_postgres_; // a checkout that waits for an account's row must not hold up the gate
    StripeApi stripe_;
    Turns turns_;
    CheckoutStore checkouts_;
    CreditCalls credit_calls_;
    AccountDocuments documents_;
    EventWriter events_;
    HostGauges gauges_;
    Services services_;
    HostJobs jobs_;
};

// nginx's hooks.
ngx_int_t init_process(ngx_cycle_t* cycle);
void exit_process(ngx_cycle_t* cycle);

} // namespace billing
