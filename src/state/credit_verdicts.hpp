// What became of requests that took credits, or made or removed things of a stock, on its way to PostgreSQL. A request
// is over when this is told, so nobody waits for it: verdicts are kept until PostgreSQL has them, and those of a worker
// that is killed are made up for by the sweep of takings that nobody decided. One for each worker; gate/ tells, a task
// of the worker sends.
#pragma once

#include "async/complaint.hpp"
#include "async/signal.hpp"
#include "async/task.hpp"
#include "drivers/postgres.hpp"
#include "state/credit_takings.hpp"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

namespace billing {

struct CreditVerdict {
    TakingName name;
    std::uint64_t account_id = 0;
    std::uint8_t no = 0; // of the type of credits, or the stock
    // Units that the work was worth; nothing: what was taken. 0: it failed. Of a key: nothing or 0. Below zero: so many
    // things were removed.
    std::optional<std::int64_t> keep;
    TakingKind kind = TakingKind::credits;
};

class CreditVerdicts {
public:
    // References outlive the object.
    CreditVerdicts(Reactor& reactor, Postgres& postgres)
        : reactor_(reactor), postgres_(postgres), wake_(reactor), trouble_(reactor), dropped_(reactor) {}

    // Allocates, but never fails the caller: with memory out, or too much kept already, the sweep decides.
    void tell(const CreditVerdict& verdict) noexcept;

    // For ever.
    Task<void> run();

    // When the worker ends: all that is kept, once. False: PostgreSQL did not take it.
    Task<bool> finish();

    // For the worker's end: the loop that ran run() is over, another goes on.
    std::deque<CreditVerdict> leftovers() && { return std::move(waiting_); }
    void take_over(std::deque<CreditVerdict> verdicts) { waiting_ = std::move(verdicts); }

private:
    static constexpr std::size_t k_batch = 256;

    Task<bool> send();
    Task<PgResult> settle(std::vector<CreditVerdict> verdicts);

    Reactor& reactor_;
    Postgres& postgres_;
    Signal wake_;
    Complaint trouble_;
    Complaint dropped_;
    std::deque<CreditVerdict> waiting_;
    std::size_t most_ = k_batch; // in one statement
};

} // namespace billing
