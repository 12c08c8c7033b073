#include "jobs/pulse.hpp"

#include "async/sleep.hpp"

#include <algorithm>
#include <limits>

namespace billing {

namespace {

constexpr std::int64_t k_beat_ms = 1000;

std::uint16_t in_16_bits(std::size_t number) noexcept {
    return static_cast<std::uint16_t>(std::min<std::size_t>(number, std::numeric_limits<std::uint16_t>::max()));
}

} // namespace

Task<void> keep_telling(Reactor& reactor, Table& table, std::uint32_t pid, const Postgres& postgres,
                        const Redis* redis) {
    for (;;) {
        WorkerState state;
        state.told = true;
        state.postgres_up = postgres.available();
        state.postgres_pending = in_16_bits(postgres.pending());
        state.has_redis = redis != nullptr;
        state.redis_up = redis != nullptr && redis->available();
        state.redis_pending = redis == nullptr ? std::uint16_t{0} : in_16_bits(redis->pending());
        table.tell_state(pid, state);
        co_await sleep_for(reactor, k_beat_ms, true);
    }
}

} // namespace billing
