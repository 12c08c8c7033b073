// Follows the change stream in Redis into this host's shared memory. Run by the worker that holds the host's lease;
// where it stands is kept in shared memory, so the next holder goes on from there.
#pragma once

#include "async/complaint.hpp"
#include "async/signal.hpp"
#include "async/task.hpp"
#include "drivers/redis.hpp"
#include "state/account_store.hpp"
#include "state/catalog_holder.hpp"
#include "state/redis_cache.hpp"
#include "state/table.hpp"

#include <string>

namespace billing {

class ChangeReader {
public:
    // `stream`: a connection of its own, since it blocks. `returned` is set when a change may have freed tokens that
    // another host waits for.
    ChangeReader(Reactor& reactor, Redis& stream, RedisCache& redis, Table& table, AccountStore& accounts,
                 CatalogHolder& catalogs, Signal& returned);

    // For ever.
    Task<void> run();

private:
    Task<bool> check_life();
    Task<bool> has_gap();
    Task<bool> start_at_end();
    void complain(const RedisReply& reply);
    Task<void> apply(const RedisReply& reply);
    void apply_entry(const RedisReply& fields);
    void doubt();
    Task<void> follow_catalog();
    void remember();

    Reactor& reactor_;
    Redis& stream_;
    RedisCache& redis_;
    Table& table_;
    AccountStore& accounts_;
    CatalogHolder& catalogs_;
    Signal& returned_;
    Complaint trouble_;
    std::string life_;
    std::string last_id_;
    std::int64_t checked_ms_ = 0;
    std::int64_t doubted_ms_ = 0;
    std::uint64_t announced_catalog_ = 0; // 0: PostgreSQL has been asked since
};

} // namespace billing
