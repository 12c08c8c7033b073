// Credits, and counts of a stock, by names: what the application's back ends ask for, one call at a time. SQL's own
// words are the answer.
#pragma once

#include "async/task.hpp"
#include "domain/json.hpp"
#include "drivers/postgres.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace billing {

enum class CreditAction : std::uint8_t { check, take, commit, refund, grant, adjust, stock };

struct CreditCall {
    CreditAction action = CreditAction::check;
    std::string account;
    std::string credit;                       // type; of stock: its name
    std::string key;                          // once for each; check and stock need none
    std::optional<std::int64_t> quantity;     // of stock: how many there are; none: only asked
    std::optional<std::int64_t> hold_seconds; // of take: undecided, it comes back after that
    std::string job;                          // of take: what the ledger says it was for
    std::string reason;                       // of refund, grant, adjust: what the ledger says
};

class CreditCalls {
public:
    // References outlive the object.
    explicit CreditCalls(Postgres& postgres) : postgres_(postgres) {}

    // An object with "success" (of check "allowed"); a refusal has "code" and "error". Null: PostgreSQL could not be
    // asked, or its answer was lost; the same call may be made again. Any process.
    Task<Json> call(CreditCall call);

    // What an account's switch of overage stands at, after having been set to `on` by `actor`, if it is given: an
    // object; a refusal has "code" and "error". Null as above.
    Task<Json> overage(std::string account, std::optional<bool> on, std::string actor);

private:
    Task<Json> ask(std::string_view sql, PgParams parameters);

    Postgres& postgres_;
};

} // namespace billing
