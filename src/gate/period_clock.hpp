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
    struct Present {
        std::int64_t number = 0;
        std::int64_t end = 0; // unix seconds; 0 = never
        Parameter length;     // ;w=
        Parameter left;       // ;t=
    };

    // Of the calendar in UTC: minute to lifetime.
    const Present& at(PeriodKind kind, std::int64_t now) noexcept {
        if (now != now_) {
            compute(now);
        }
        return periods_[static_cast<std::size_t>(kind)];
    }

    // One that only an account has: so long, and so far away is its end (0 = not told).
    static Present own(std::int64_t length, std::int64_t left) noexcept {
        Present present;
        present.length = parameter('w', length);
        if (left > 0) {
            present.left = parameter('t', left);
        }
        return present;
    }

private:
    [[gnu::noinline]] void compute(std::int64_t now) noexcept {
        for (std::size_t index = 0; index < k_calendar_kinds; ++index) {
            const auto kind = static_cast<PeriodKind>(index);
            const Period period = calendar_period(kind, now);
            periods_[index] = period.end == 0 ? Present{} : own(period.length(), period.end - now);
            periods_[index].number = period.number;
            periods_[index].end = period.end;
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
    std::array<Present, k_period_kinds> periods_{}; // of the own ones: nothing
};

} // namespace billing
