// A worker's own means to tell who asks: a verifier for each `billing_jwt`, and the API keys. Owner: the worker.
#pragma once

#include "identity/api_keys.hpp"
#include "identity/token_verifier.hpp"

#include <deque>
#include <utility>
#include <vector>

namespace billing {

class Identity {
public:
    // What one `billing_jwt` says, and what was fetched for it before.
    struct Tokens {
        const TokenConfig& config;
        KeptText memory;
    };

    Identity(Scope& scope, Postgres& postgres, Table& table, const std::vector<Tokens>& tokens)
        : scope_(scope), keys_(scope, postgres, table) {
        for (const auto& [config, memory] : tokens) {
            verifiers_.emplace_back(scope.reactor(), config, memory);
        }
    }

    void start() {
        for (auto& verifier : verifiers_) {
            verifier.start(scope_);
        }
    }
    // After the scope was cancelled.
    void stop() noexcept {
        for (auto& verifier : verifiers_) {
            verifier.stop();
        }
    }

    // In the order of the constructor's list.
    TokenVerifier& verifier(std::size_t index) noexcept { return verifiers_[index]; }
    ApiKeys& keys() noexcept { return keys_; }

private:
    Scope& scope_;
    ApiKeys keys_;
    std::deque<TokenVerifier> verifiers_; // they do not move
};

} // namespace billing
