// The background work of a host, done by whichever worker holds the lease in shared memory: publish changes, follow the
// change stream, flush usage, process Stripe's events, reconcile with Stripe, give
// back credits that nobody decided, report overage to Stripe. Every worker owns one and tries for the
// lease; losing or giving it up stops the work where it waits.
#pragma once

#include "async/scope.hpp"
#include "async/signal.hpp"
#include "drivers/pg_listener.hpp"
#include "drivers/postgres.hpp"
#include "drivers/redis.hpp"
#include "drivers/stripe_api.hpp"
#include "jobs/change_reader.hpp"
#include "jobs/inbox.hpp"
#include "jobs/overage_reporter.hpp"
#include "jobs/publisher.hpp"
#include "jobs/reconcile_schedule.hpp"
#include "jobs/stripe_purge.hpp"
#include "jobs/sweeper.hpp"
#include "jobs/usage_flusher.hpp"
#include "state/account_store.hpp"
#include "state/catalog_holder.hpp"
#include "state/redis_cache.hpp"
#include "state/table.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace billing {

class HostJobs {
public:
    struct Settings {
        std::string conninfo;        // the jobs have a connection of their own: a batch must not hold up a request
        std::string listen_conninfo; // and another for LISTEN
        std::optional<RedisAddress> redis;
        std::string host; // its name, for PostgreSQL's list of instances
        std::uint32_t pid = 0;
        QuotaThresholds thresholds;
        bool for_all = true;                // publish changes and process events; false leaves that to other hosts
        std::optional<StripeConfig> stripe; // nothing: there are no events to process
        InboxSettings inbox;
        std::int64_t keep_payloads_s = 0; // of events that are done
    };
    // What the worker's requests use too. `redis` may be null.
    struct Shared {
        RedisCache* redis;
        Table& table;
        AccountStore& accounts;
        CatalogHolder& catalogs;
    };

    HostJobs(Reactor& reactor, Shared shared, Settings settings);
    ~HostJobs();

    void start();
    // Gives the lease back, so that another worker takes over at once. Idempotent. A worker that is leaving does so by
    // itself as soon as no event is in work, and does not try again: its last connections may take hours.
    void stop() noexcept;

private:
    class Running;

    Task<void> keep_lease();
    void give_up() noexcept;

    Reactor& reactor_;
    Shared shared_;
    Settings settings_;
    Scope scope_;
    std::unique_ptr<Running> running_;
};

} // namespace billing
