// The catalog of one worker, read from the copy in shared memory, which the jobs keep as new as PostgreSQL's.
#pragma once

#include "async/complaint.hpp"
#include "async/single_flight.hpp"
#include "async/task.hpp"
#include "domain/catalog.hpp"
#include "drivers/postgres.hpp"
#include "state/redis_cache.hpp"
#include "state/table.hpp"

#include <optional>

namespace billing {

class CatalogHolder {
public:
    // `redis` may be null. All references outlive the holder; the scope is cancelled before.
    CatalogHolder(Scope& scope, Postgres& postgres, RedisCache* redis, Table& table);

    // Null until one is known.
    const Catalog* catalog() const noexcept { return catalog_ ? &*catalog_ : nullptr; }
    // Of the last that was read from shared memory, readable or not; 0 = none. Differs from table.catalog_stamp() when
    // a newer one has come.
    std::uint64_t stamp() const noexcept { return stamp_; }
    // Reads what shared memory holds, where that is another than stamp(). False when no catalog is known.
    bool refresh();

    // Asks PostgreSQL, and Redis where nothing is known yet, and puts what it finds into shared memory. True when a
    // catalog is known afterwards.
    Task<bool> fetch();

    // The same, of PostgreSQL alone. True when it has told its catalog.
    Task<bool> ask();

private:
    bool apply(std::string_view document);
    Task<bool> fetch_once(int key);

    Scope& scope_;
    Postgres& postgres_;
    RedisCache* redis_;
    Table& table_;
    std::optional<Catalog> catalog_;
    std::uint64_t stamp_ = 0;
    Complaint trouble_;
    SingleFlight<int, bool> flights_;
};

} // namespace billing
