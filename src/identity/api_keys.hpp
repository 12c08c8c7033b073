// Whose API key it is. A worker remembers the keys it has asked PostgreSQL for, each with the stamp of its account;
// every change of a key raises that stamp (migrations/0014_api_keys.sql), and the accounts' stamps reach shared memory
// by themselves. So a warm request asks nobody, and a revocation is met by the next one. One for each worker.
#pragma once

#include "async/batch.hpp"
#include "async/complaint.hpp"
#include "async/task.hpp"
#include "drivers/postgres.hpp"
#include "identity/bounded_cache.hpp"
#include "state/table.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace billing {

enum class KeyVerdict : std::uint8_t {
    good,
    bad,     // unknown, revoked or expired
    unknown, // nobody could tell
};

struct KeyAnswer {
    KeyVerdict verdict = KeyVerdict::unknown;
    std::string account; // exactly if good
};

class ApiKeys {
public:
    // All references outlive it; its scope is cancelled before.
    ApiKeys(Scope& scope, Postgres& postgres, Table& table);

    // From memory alone. Nothing: go on with resolve().
    std::optional<KeyAnswer> look(std::string_view key);

    // With every means. While PostgreSQL cannot be reached, a key that was good not longer ago than `stale_ms` still
    // is, unless its account is known to have changed since.
    Task<KeyAnswer> resolve(std::string key, std::uint64_t stale_ms);

private:
    static constexpr std::size_t k_good_sets = 4096; // 16384 keys
    static constexpr std::size_t k_bad_sets = 1024;  // 4096; a place of their own, so that a flood forgets no good one

    struct Row {
        bool told = true;    // false: PostgreSQL could not say
        std::string account; // "": there is no such key
        std::uint64_t stamp = 0;
        std::int64_t expires = 0;
    };
    struct Good {
        std::string account;
        std::uint64_t stamp = 0;
        std::int64_t expires = 0; // unix seconds; 0 = never
        std::uint64_t confirmed_ms = 0;
        std::uint32_t valid_gen = 0; // of the table, before PostgreSQL was asked
    };

    bool expired(const Good& known) const noexcept;
    bool superseded(const Good& known) const noexcept;
    bool vouched_for(const Good& known) const noexcept;
    std::uint64_t now_ms() const noexcept;
    Task<std::vector<Row>> read(std::vector<std::string> digests);

    Reactor& reactor_;
    Postgres& postgres_;
    Table& table_;
    Complaint trouble_;
    Batch<std::string, Row> asking_;
    BoundedCache<Good> good_;
    BoundedCache<std::uint64_t> bad_; // until then, monotonic ms
};

} // namespace billing
