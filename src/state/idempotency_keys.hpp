// Keys that clients give to their requests (Idempotency-Key), claimed in PostgreSQL: of the requests of an account with
// one key one at a time goes on, and once it is charged no other one is. One for each worker; called by gate/. What
// became of a request that has claimed a key is told by CreditVerdicts.
#pragma once

#include "async/complaint.hpp"
#include "async/task.hpp"
#include "drivers/postgres.hpp"
#include "state/credit_takings.hpp"

#include <array>
#include <cstdint>
#include <optional>

namespace billing {

// Plain data: made by nginx/, in the request's memory.
struct IdempotencyClaim {
    using Digest = std::array<std::uint8_t, 32>; // SHA-256

    Digest key{};               // of the client's key and the route
    Digest request{};           // of all else by which a repeated request is known for the same
    std::uint32_t window_s = 0; // so long a charged one is remembered
};

enum class Claimed : std::uint8_t {
    now,         // by this request
    charged,     // by one like this one, which was charged
    outstanding, // by another, whose end nobody knows yet
    misused,     // by one that was not like this one
};

class IdempotencyKeys {
public:
    // References outlive the object.
    IdempotencyKeys(Reactor& reactor, Postgres& postgres) : reactor_(reactor), postgres_(postgres), trouble_(reactor) {}

    // For a request whose takings are called `name`; undecided for hold_s seconds, its key is free again. Nothing:
    // nobody can tell; give it up.
    Task<std::optional<Claimed>> claim(std::uint64_t account_id, TakingName name, IdempotencyClaim claim,
                                       std::uint32_t hold_s);

private:
    Reactor& reactor_;
    Postgres& postgres_;
    Complaint trouble_;
};

} // namespace billing
