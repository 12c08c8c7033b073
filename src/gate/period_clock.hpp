// The periods of the present second, computed once for all requests in it. One for each worker.
#pragma once

#include "domain/period.hpp"

#include <array>
#include <cstdint>

namespace billing {

class PeriodClock {
public:
    struct Period {
        std::int64_t number = 0;
        std::int64_t end = 0; // unix seconds; 0 = never
    };

    const Period& at(PeriodKind kind, std::int64_t now) noexcept {
        if (now != now_) {
            compute(now);
        }
        return periods_[static_cast<std::size_t>(kind)];
    }

private:
    void compute(std::int64_t now) noexcept {
        for (std::size_t kind = 0; kind < periods_.size(); ++kind) {
            const auto number = period_number(static_cast<PeriodKind>(kind), now);
            periods_[kind] = {number, period_end(static_cast<PeriodKind>(kind), number).value_or(0)};
        }
        now_ = now;
    }

    std::int64_t now_ = -1;
    std::array<Period, 5> periods_{};
};

} // namespace billing
