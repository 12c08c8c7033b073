// Says of a bearer token whether it is good, and what it claims. A good one is remembered, so that its signature is
// verified once for each worker and not for each request. One for each `billing_jwt`, in each worker. Synchronous.
#pragma once

#include "identity/bounded_cache.hpp"
#include "identity/key_source.hpp"
#include "identity/token_guard.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace billing {

struct TokenConfig {
    TokenPolicy policy;
    KeySourceConfig keys;
};

// Shared by the verifier and those who read it.
using Claims = std::shared_ptr<const Json>;

enum class TokenVerdict : std::uint8_t {
    good,
    bad,
    unknown, // there are no keys yet
};

struct TokenAnswer {
    TokenVerdict verdict = TokenVerdict::unknown;
    Claims claims;   // exactly if good
    std::string why; // if bad, for the log; holds nothing of the token
};

class TokenVerifier {
public:
    TokenVerifier(Reactor& reactor, const TokenConfig& config, KeptText memory)
        : reactor_(reactor), policy_(config.policy), keys_(reactor, config.keys, memory), good_(k_sets) {}

    void start(Scope& scope) { keys_.start(scope); }
    void stop() noexcept { keys_.stop(); }

    TokenAnswer check(std::string_view token);

    // Signatures that were verified, for tests.
    std::uint64_t verified() const noexcept { return verified_; }

private:
    static constexpr std::size_t k_sets = 512; // 2048 tokens

    struct Good {
        Claims claims;
        std::int64_t until = 0;       // unix seconds
        std::uint64_t generation = 0; // of the keys
    };

    Reactor& reactor_;
    TokenPolicy policy_;
    KeySource keys_;
    BoundedCache<Good> good_;
    std::uint64_t verified_ = 0;
};

} // namespace billing
