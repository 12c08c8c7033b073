#include "jobs/sweeper.hpp"

#include "async/sleep.hpp"

namespace billing {

namespace {

constexpr std::int64_t k_interval_ms = 5000;
constexpr std::int64_t k_most = 200;        // in one statement, which locks their balances
constexpr std::int64_t k_most_periods = 50; // whose rows requests may wait for

} // namespace

Task<void> Sweeper::run() {
    while (true) {
        bool more_credits = co_await sweep("SELECT billing.credits_sweep($1)", k_most);
        bool more_stock = co_await sweep("SELECT billing.stock_sweep($1)", k_most);
        bool more_keys = co_await sweep("SELECT billing.idempotency_purge($1)", k_most);
        bool more_overage = co_await sweep("SELECT billing.overage_close($1)", k_most_periods);
        if (!more_credits && !more_stock && !more_keys && !more_overage) {
            co_await sleep_for(reactor_, k_interval_ms, true);
        }
    }
}

Task<bool> Sweeper::sweep(std::string_view statement, std::int64_t most) {
    PgResult swept = co_await postgres_.query(statement, PgParams(most));
    if (swept) {
        trouble_.settled();
    } else if (swept.outcome() == PgOutcome::refused) {
        trouble_.say(
            "PostgreSQL refuses to give back what nobody decided, to forget what is over, or to charge for overage: " +
            swept.message());
    }
    co_return swept&& swept.integer(0, 0) == most;
}

} // namespace billing
