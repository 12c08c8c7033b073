// What a bearer token (JWT, RFC 7519) must look like before its signature is worth a look: everything that a token
// could say about how it wants to be verified is refused here or decided by the configuration. Pure; called by workers.
#pragma once

#include "domain/json.hpp"
#include "domain/result.hpp"
#include "identity/token_key.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace billing {

inline constexpr std::size_t k_max_token_bytes = std::size_t{16} << 10;

// The operator's word.
struct TokenPolicy {
    TokenAlg alg = TokenAlg::hs256;
    std::string issuer;   // "" = any
    std::string audience; // "" = any
    std::int64_t leeway_seconds = 60;
};

// A token that is well-formed and in force, if its signature is right.
struct TokenDraft {
    std::string_view signed_bytes; // within the token
    std::string signature;
    std::optional<std::string> kid;
    Json claims;
    std::int64_t good_until = 0; // unix seconds, leeway included
};

// The error says what is wrong; it holds nothing of the token. `now` in unix seconds.
Result<TokenDraft> inspect_token(std::string_view token, const TokenPolicy& policy, std::int64_t now);

// A claim as text: strings as they are, the rest as compact JSON; "" when it is absent or null. Its name in any case.
std::string claim_text(const json_t* claims, const std::string& name);

} // namespace billing
