// How long to wait before the next try to connect: 100 ms, doubling to 5 s, each with jitter (75 to 125 %), so that the
// workers of a host do not come all at once. Owned by each connection.
#pragma once

#include <cstdint>

namespace billing {

class Backoff {
public:
    static constexpr std::int64_t k_first_ms = 100;
    static constexpr std::int64_t k_limit_ms = 5000;

    // `seed`: anything which differs between connections and processes.
    explicit Backoff(std::uint64_t seed) noexcept : random_(seed * 0x9E3779B97F4A7C15U | 1U) {}

    std::int64_t next_ms() noexcept {
        const std::int64_t base = base_ms_;
        base_ms_ = base * 2 < k_limit_ms ? base * 2 : k_limit_ms;
        random_ ^= random_ << 13;
        random_ ^= random_ >> 7;
        random_ ^= random_ << 17;
        return base * 3 / 4 + static_cast<std::int64_t>(random_ % static_cast<std::uint64_t>(base / 2));
    }
    // After a success.
    void reset() noexcept { base_ms_ = k_first_ms; }

private:
    std::uint64_t random_;
    std::int64_t base_ms_ = k_first_ms;
};

} // namespace billing
