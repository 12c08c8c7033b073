// The batch of usage that goes to PostgreSQL: rows collect in the open buffer; freeze() turns it into the batch with
// the next sequence number, which stays as it is until acknowledged, whoever sends it. Used by Table, under the zone's
// lock.
#pragma once

#include "state/zone_layout.hpp"

#include <cstdint>
#include <span>

namespace billing {

// A view over the zone's batch region. A writer may die after any of its stores: the region is consistent after each.
class UsageBatch {
public:
    explicit UsageBatch(BatchRegion& region) noexcept : region_(region) {}

    std::uint32_t room() const noexcept { return static_cast<std::uint32_t>(k_batch_rows) - open_count(); }
    std::uint32_t open_count() const noexcept { return shared::load(region_.count[open()]); }
    // False: full.
    bool append(const UsageRow& row) noexcept;

    bool is_frozen() const noexcept { return (shared::load(region_.state) & 2) != 0; }
    // 0 before the first.
    std::uint64_t last_sequence() const noexcept { return shared::load(region_.state) >> 2; }
    // The open rows become the batch. False: one is waiting already, or there are no rows.
    bool freeze() noexcept;
    // Of the batch that is waiting; empty when there is none.
    std::span<const UsageRow> frozen_rows() const noexcept;
    bool acknowledge(std::uint64_t sequence) noexcept;

private:
    std::uint32_t open() const noexcept { return static_cast<std::uint32_t>(shared::load(region_.state) & 1); }

    BatchRegion& region_;
};

} // namespace billing
