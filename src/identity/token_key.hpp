// The keys that tokens are verified with, and the documents they come in (JWKS, RFC 7517). A key is bound to one
// algorithm when it is made: a token never chooses. Pure but for OpenSSL; made in workers and, to check a file, in the
// master.
#pragma once

#include "domain/json.hpp"
#include "domain/result.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct evp_pkey_st; // OpenSSL

namespace billing {

enum class TokenAlg : std::uint8_t { hs256, rs256, es256 };

// As in a token's header.
std::string_view to_text(TokenAlg alg) noexcept;

// The largest document that is read, in bytes.
inline constexpr std::size_t k_max_jwks_bytes = std::size_t{64} << 10;
// What RFC 7518 asks of a secret for HS256.
inline constexpr std::size_t k_min_secret_bytes = 32;

class TokenKey {
public:
    static TokenKey of_secret(std::string secret);
    // One member of a JWKS. The error says why it cannot serve for this algorithm.
    static Result<TokenKey> from_jwk(const json_t* jwk, TokenAlg alg);

    const std::string& kid() const noexcept { return kid_; }
    // Whether the signature over these bytes was made by the key's owner. Leaves no error in OpenSSL's queue.
    bool verifies(std::string_view bytes, std::string_view signature) const noexcept;

private:
    explicit TokenKey(TokenAlg alg) noexcept : alg_(alg) {}

    bool read_rsa(const json_t* jwk);
    bool read_p256(const json_t* jwk);

    TokenAlg alg_;
    std::string kid_; // "" for a key without a name
    std::string secret_;
    std::shared_ptr<evp_pkey_st> public_;
};

class KeySet {
public:
    KeySet() = default;
    explicit KeySet(std::vector<TokenKey> keys) noexcept : keys_(std::move(keys)) {}

    // The key of that name; without a name the only one there is. Null: none.
    const TokenKey* find(const std::string* kid) const noexcept;
    std::size_t size() const noexcept { return keys_.size(); }

private:
    std::vector<TokenKey> keys_;
};

// Keys of other kinds and for other uses are passed over; a document without one for this algorithm is an error.
Result<KeySet> read_jwks(std::string_view text, TokenAlg alg);

} // namespace billing
