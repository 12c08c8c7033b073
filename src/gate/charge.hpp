// What a request has taken, so that it can be given back. Trivially destructible: it lives in nginx's request memory.
#pragma once

#include "gate/rules.hpp"
#include "state/table.hpp"

#include <array>
#include <cstdint>
#include <type_traits>

namespace billing {

struct Taking {
    std::int64_t period;
    std::uint32_t cost;
    std::uint8_t limit_no;
};

struct Charge {
    RecordRef record{};
    std::uint64_t account_id = 0;
    std::uint32_t count = 0;
    std::array<Taking, k_max_quotas * 2> takings; // an internal redirect may add the quotas of its target

    // Units of this quota that the request has paid already.
    std::uint32_t paid(std::uint8_t limit_no) const noexcept {
        std::uint32_t sum = 0;
        for (std::uint32_t index = 0; index < count; ++index) {
            sum += takings[index].limit_no == limit_no ? takings[index].cost : 0;
        }
        return sum;
    }
};
static_assert(std::is_trivially_destructible_v<Charge>);

} // namespace billing
