#include "state/host_gauges.hpp"

#include "async/sleep.hpp"

#include <utility>

namespace billing {

namespace {

constexpr std::int64_t k_good_for_ms = 5000;
constexpr std::int64_t k_patience_ms = 1000;
constexpr std::uint32_t k_units_at_once = 16384; // a megabyte to read: some tenths of a millisecond

constexpr std::string_view k_depths =
    "SELECT received, processing, parked, dead, oldest_event_s, dirty, outbox FROM billing.queue_depths()";

} // namespace

bool HostGauges::is_fresh(std::int64_t seen_ms) const noexcept {
    return seen_ms != 0 && reactor_.now_ms() - seen_ms < k_good_for_ms;
}

Task<std::optional<QueueDepths>> HostGauges::queues() {
    if (is_fresh(queues_ms_)) {
        co_return queues_;
    }
    PgParams none;
    PgResult result = co_await postgres_.query(k_depths, std::move(none), k_patience_ms);
    queues_ms_ = reactor_.now_ms(); // no answer is remembered too
    queues_.reset();
    if (!result || result.rows() != 1) {
        if (result.outcome() == PgOutcome::refused) {
            trouble_.say("PostgreSQL refuses to tell how long its queues are: " + result.message() +
                         "; has ngx-billing migrate been run?");
        }
        co_return queues_;
    }
    trouble_.settled();
    queues_ = QueueDepths{result.integer(0, 0), result.integer(0, 1), result.integer(0, 2), result.integer(0, 3),
                          result.integer(0, 4), result.integer(0, 5), result.integer(0, 6)};
    co_return queues_;
}

Task<ZoneUse> HostGauges::zone() {
    if (is_fresh(use_ms_)) {
        co_return use_;
    }
    ZoneUse use{table_.units(), 0, 0, 0};
    for (std::uint32_t from = 0; from < use.units; from += k_units_at_once) {
        table_.add_use(from, k_units_at_once, use);
        co_await sleep_for(reactor_, 0);
    }
    use_ = use;
    use_ms_ = reactor_.now_ms();
    co_return use;
}

} // namespace billing
