// The usage batch's few steps, each complete with one store. Runs under the zone's lock.
#include "state/usage_batch.hpp"

namespace billing {

bool UsageBatch::append(const UsageRow& row) noexcept {
    const std::uint32_t side = open();
    const std::uint32_t count = shared::load(region_.count[side]);
    if (count >= k_batch_rows) {
        return false;
    }
    region_.rows[side][count] = row;
    shared::store(region_.count[side], count + 1);
    return true;
}

bool UsageBatch::freeze() noexcept {
    const std::uint64_t state = shared::load(region_.state);
    if ((state & 2) != 0 || open_count() == 0) {
        return false;
    }
    const std::uint64_t other = (state & 1) ^ 1;
    shared::store(region_.count[other], 0);
    shared::store(region_.state, ((state >> 2) + 1) << 2 | 2 | other);
    return true;
}

std::span<const UsageRow> UsageBatch::frozen_rows() const noexcept {
    if (!is_frozen()) {
        return {};
    }
    const std::uint32_t side = open() ^ 1;
    return {region_.rows[side], shared::load(region_.count[side])};
}

bool UsageBatch::acknowledge(std::uint64_t sequence) noexcept {
    const std::uint64_t state = shared::load(region_.state);
    if ((state & 2) == 0 || state >> 2 != sequence) {
        return false;
    }
    shared::store(region_.state, state & ~std::uint64_t{2});
    return true;
}

} // namespace billing
