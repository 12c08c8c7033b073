// A published snapshot, as the shared-memory table keeps it.
#pragma once

#include "domain/account.hpp"
#include "state/table.hpp"

#include <cstdint>
#include <vector>

namespace billing {

struct DecodedFacts {
    AccountFacts facts{};
    std::vector<LimitAmount> amounts;
    ZoneOffsets zone;
};

// Overrides that have ended by `now` (unix seconds) are left out; the next to end is in overrides_until.
DecodedFacts facts_of(const Snapshot& snapshot, std::int64_t now);

} // namespace billing
