// Carries every change of PostgreSQL to the hosts: claims dirty accounts, writes their snapshots to Redis and the
// change stream (or, where there is no Redis, into this host's own shared memory), and then says up to when all is
// told. Run by the worker that holds the host's lease. Any number of hosts may run one at once: rows are claimed,
// snapshots ordered by stamp.
#pragma once

#include "async/complaint.hpp"
#include "async/signal.hpp"
#include "async/task.hpp"
#include "drivers/pg_listener.hpp"
#include "drivers/postgres.hpp"
#include "state/account_store.hpp"
#include "state/catalog_holder.hpp"
#include "state/redis_cache.hpp"
#include "state/table.hpp"

namespace billing {

class Publisher {
public:
    // `redis` may be null. The listener sets `wake` whenever PostgreSQL says that something has changed.
    Publisher(Reactor& reactor, Postgres& postgres, const PgListener& listener, Signal& wake, RedisCache* redis,
              Table& table, AccountStore& accounts, CatalogHolder& catalogs);

    // For ever: a round at each wake-up, and each half second for the watermark.
    Task<void> run();

private:
    struct Round;

    Task<bool> round();
    Task<void> publish(const PgResult& claimed, Round& round);
    Task<void> publish_catalog(std::uint64_t stamp);
    Task<bool> tell(std::int64_t watermark);
    bool may_publish();

    Reactor& reactor_;
    Postgres& postgres_;
    const PgListener& listener_;
    Signal& wake_;
    RedisCache* redis_;
    Table& table_;
    AccountStore& accounts_;
    CatalogHolder& catalogs_;
    std::uint64_t published_catalog_ = 0;
    int rounds_without_lock_ = 0;
    Complaint trouble_;
};

} // namespace billing
