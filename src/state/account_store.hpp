// Brings an account into shared memory: from Redis, else from PostgreSQL, many askers as one fetch. One for each
// worker.
#pragma once

#include "async/batch.hpp"
#include "async/complaint.hpp"
#include "async/single_flight.hpp"
#include "async/task.hpp"
#include "domain/snapshot.hpp"
#include "drivers/postgres.hpp"
#include "state/redis_cache.hpp"
#include "state/table.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace billing {

enum class Fetched : std::uint8_t {
    from_redis,
    from_postgres,
    unknown,     // PostgreSQL has no such account
    unavailable, // nobody could tell
};

class AccountStore {
public:
    enum class Mode : std::uint8_t {
        cached, // Redis will do
        truth,  // PostgreSQL's word only
        create, // as cached; and the account comes into being where PostgreSQL has none
    };

    // `redis` may be null. All references outlive the store; its scope is cancelled before.
    AccountStore(Scope& scope, Postgres& postgres, RedisCache* redis, Table& table);

    // Afterwards the table holds the account, unless it is unknown or unavailable. Bounded in time by the drivers'
    // time-outs.
    Task<Fetched> fetch(std::string account, Mode mode);

    // A snapshot as the publisher has just read it from PostgreSQL. Synchronous.
    void apply(std::string_view body);

    // A snapshot from the change stream. False: it is of an epoch that PostgreSQL has not told of yet, or so far ahead
    // of what is held that nobody can have made so many changes; then something else than a publisher wrote it, or
    // something was missed. Synchronous.
    bool follow(std::string_view body);

private:
    struct Row {
        bool told = true; // false: PostgreSQL could not say
        bool known = false;
        std::uint64_t stamp = 0;
        std::string body;
    };

    Task<Fetched> fetch_once(std::string key);
    Task<std::vector<Row>> read(std::vector<std::string> accounts, bool create);
    Task<std::vector<Row>> read_each(std::vector<std::string> accounts, bool create);
    bool put(const Snapshot& snapshot, std::uint32_t valid_gen);
    bool put(std::string_view body, std::uint32_t valid_gen);
    std::optional<Snapshot> read_body(std::string_view body);

    Scope& scope_;
    Postgres& postgres_;
    RedisCache* redis_;
    Table& table_;
    Complaint trouble_;
    SingleFlight<std::string, Fetched> flights_;
    Batch<std::string, Row> reading_;
    Batch<std::string, Row> creating_;
};

} // namespace billing
