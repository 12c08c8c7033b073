// The periods of the present second, computed once for all requests in it. One for each worker.
#pragma once

#include "domain/period.hpp"

#include <array>
#include <charconv>
#include <cstdint>
#include <string_view>

namespace billing {

class PeriodClock {
public:
    // A parameter of a RateLimit field, as ";t=600"; empty for a lifetime.
    struct Parameter {
        std::array<char, 24> text;
        std::size_t size = 0;

        operator std::string_view() const noexcept { return {text.data(), size}; }
    };
    struct Period {
        std::int64_t number = 0;
        std::int64_t end = 0; // unix seconds; 0 = never
        Parameter length;     // ;w=
        Parameter left;       // ;t=
    };

    const Period& at(PeriodKind kind, std::int64_t now) noexcept {
        if (now != now_) {
            compute(now);
        }
        return periods_[static_cast<std::size_t>(kind)];
    }

private:
    void compute(std::int64_t now) noexcept {
        for (std::size_t index = 0; index < periods_.size(); ++index) {
            const auto kind = static_cast<PeriodKind>(index);
            auto& period = periods_[index];
            period.number = period_number(kind, now);
            period.end = period_end(kind, period.number).value_or(0);
            if (period.end != 0) {
                period.length = parameter('w', period_length(kind, period.number));
                period.left = parameter('t', period.end - now);
            }
        }
        now_ = now;
    }

    static Parameter parameter(char name, std::int64_t seconds) noexcept {
        Parameter made{{';', name, '='}};
        const auto written = std::to_chars(&made.text[3], made.text.data() + made.text.size(), seconds);
        made.size = static_cast<std::size_t>(written.ptr - made.text.data());
        return made;
    }

    std::int64_t now_ = -1;
    std::array<Period, 5> periods_{};
};

} // namespace billing
