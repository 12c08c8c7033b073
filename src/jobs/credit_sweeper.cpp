#include "jobs/credit_sweeper.hpp"

#include "async/sleep.hpp"

namespace billing {

namespace {

constexpr std::int64_t k_interval_ms = 5000;
constexpr std::int64_t k_most = 200; // in one statement, which locks their balances

} // namespace

Task<void> CreditSweeper::run() {
    while (true) {
        PgResult swept = co_await postgres_.query("SELECT billing.credits_sweep($1)", PgParams(k_most));
        if (swept) {
            trouble_.settled();
        } else if (swept.outcome() == PgOutcome::refused) {
            trouble_.say("PostgreSQL refuses to give credits back: " + swept.message());
        }
        if (!swept || swept.integer(0, 0) < k_most) {
            co_await sleep_for(reactor_, k_interval_ms, true);
        }
    }
}

} // namespace billing
