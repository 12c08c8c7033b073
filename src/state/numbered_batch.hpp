// A batch of rows on its way to PostgreSQL: rows collect in the open buffer; freeze() turns it into the batch with the
// next sequence number, which stays as it is until acknowledged, whoever sends it. Used by Table, under the zone's
// lock. A writer may die after any of its stores: each step is complete with one store.
#pragma once

#include "state/zone_layout.hpp"

#include <cstdint>
#include <span>

namespace billing {

// A view over one of the zone's batch regions.
template <class Row, std::size_t Rows>
class Batch {
public:
    explicit Batch(BatchRegion<Row, Rows>& region) noexcept : region_(region) {}

    std::uint32_t room() const noexcept { return static_cast<std::uint32_t>(Rows) - open_count(); }
    std::uint32_t open_count() const noexcept { return shared::load(region_.count[open()]); }
    std::span<Row> open_rows() noexcept { return {region_.rows[open()], open_count()}; }
    // False: full.
    bool append(const Row& row) noexcept {
        const std::uint32_t side = open();
        const std::uint32_t count = shared::load(region_.count[side]);
        if (count >= Rows) {
            return false;
        }
        region_.rows[side][count] = row;
        shared::store(region_.count[side], count + 1);
        return true;
    }

    bool is_frozen() const noexcept { return (shared::load(region_.state) & 2) != 0; }
    // 0 before the first.
    std::uint64_t last_sequence() const noexcept { return shared::load(region_.state) >> 2; }
    // The open rows become the batch. False: one is waiting already, or there are no rows.
    bool freeze() noexcept {
        const std::uint64_t state = shared::load(region_.state);
        if ((state & 2) != 0 || open_count() == 0) {
            return false;
        }
        const std::uint64_t other = (state & 1) ^ 1;
        shared::store(region_.count[other], 0);
        shared::store(region_.state, ((state >> 2) + 1) << 2 | 2 | other);
        return true;
    }
    // Of the batch that is waiting; empty when there is none.
    std::span<const Row> frozen_rows() const noexcept {
        if (!is_frozen()) {
            return {};
        }
        const std::uint32_t side = open() ^ 1;
        return {region_.rows[side], shared::load(region_.count[side])};
    }
    bool acknowledge(std::uint64_t sequence) noexcept {
        const std::uint64_t state = shared::load(region_.state);
        if ((state & 2) == 0 || state >> 2 != sequence) {
            return false;
        }
        shared::store(region_.state, state & ~std::uint64_t{2});
        return true;
    }

private:
    std::uint32_t open() const noexcept { return static_cast<std::uint32_t>(shared::load(region_.state) & 1); }

    BatchRegion<Row, Rows>& region_;
};

using UsageBatch = Batch<UsageRow, k_batch_rows>;
using LateBatch = Batch<LateRow, k_late_rows>;

} // namespace billing
