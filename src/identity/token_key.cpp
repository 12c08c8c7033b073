#include "identity/token_key.hpp"

#include "identity/base64url.hpp"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/param_build.h>

#include <algorithm>
#include <array>
#include <optional>

namespace billing {

namespace {

constexpr std::size_t k_max_keys = 64;
constexpr std::size_t k_p256_bytes = 32;
constexpr int k_least_rsa_bits = 2048;
constexpr int k_most_rsa_bits = 8192; // verifying takes longer with each bit
constexpr int k_most_exponent_bits = 32;

template <auto Function>
struct Free {
    template <class T>
    void operator()(T* object) const noexcept {
        Function(object);
    }
};
using Number = std::unique_ptr<BIGNUM, Free<BN_free>>;
using ParamBuild = std::unique_ptr<OSSL_PARAM_BLD, Free<OSSL_PARAM_BLD_free>>;
using Params = std::unique_ptr<OSSL_PARAM, Free<OSSL_PARAM_free>>;
using KeyContext = std::unique_ptr<EVP_PKEY_CTX, Free<EVP_PKEY_CTX_free>>;
using DigestContext = std::unique_ptr<EVP_MD_CTX, Free<EVP_MD_CTX_free>>;
using EcSignature = std::unique_ptr<ECDSA_SIG, Free<ECDSA_SIG_free>>;

const unsigned char* bytes_of(std::string_view text) noexcept {
    return reinterpret_cast<const unsigned char*>(text.data());
}

// What fails leaves its reason in a queue that belongs to the thread, where nginx would find it.
struct QuietOpenSsl {
    QuietOpenSsl() noexcept = default;
    QuietOpenSsl(const QuietOpenSsl&) = delete;
    QuietOpenSsl& operator=(const QuietOpenSsl&) = delete;
    ~QuietOpenSsl() { ERR_clear_error(); }
};

Number number_of(std::string_view bytes) noexcept {
    return Number{BN_bin2bn(bytes_of(bytes), static_cast<int>(bytes.size()), nullptr)};
}

std::optional<std::string> binary_member(const json_t* jwk, const char* name) {
    const auto text = text_member(jwk, name);
    return text ? decode_base64url(*text) : std::nullopt;
}

std::shared_ptr<EVP_PKEY> make_public(const char* type, OSSL_PARAM_BLD* build) {
    const Params params{OSSL_PARAM_BLD_to_param(build)};
    const KeyContext context{EVP_PKEY_CTX_new_from_name(nullptr, type, nullptr)};
    EVP_PKEY* key = nullptr;
    if (!params || !context || EVP_PKEY_fromdata_init(context.get()) != 1 ||
        EVP_PKEY_fromdata(context.get(), &key, EVP_PKEY_PUBLIC_KEY, params.get()) != 1) {
        return nullptr;
    }
    std::shared_ptr<EVP_PKEY> made{key, Free<EVP_PKEY_free>{}};
    const KeyContext check{EVP_PKEY_CTX_new_from_pkey(nullptr, key, nullptr)};
    return check && EVP_PKEY_public_check(check.get()) == 1 ? made : nullptr;
}

// A key meant for something else must not verify.
bool is_for(const json_t* jwk, TokenAlg alg) noexcept {
    const json_t* use = json_object_get(jwk, "use");
    const json_t* named = json_object_get(jwk, "alg");
    const json_t* operations = json_object_get(jwk, "key_ops");
    bool verifies = operations == nullptr;
    for (std::size_t index = 0; index < json_array_size(operations); ++index) {
        const json_t* operation = json_array_get(operations, index);
        verifies =
            verifies || (json_is_string(operation) && std::string_view{json_string_value(operation)} == "verify");
    }
    return verifies && (use == nullptr || text_member(jwk, "use") == "sig") &&
           (named == nullptr || text_member(jwk, "alg") == to_text(alg));
}

bool verify_digest(EVP_PKEY* key, std::string_view bytes, std::string_view signature) noexcept {
    const DigestContext context{EVP_MD_CTX_new()};
    return context && EVP_DigestVerifyInit(context.get(), nullptr, EVP_sha256(), nullptr, key) == 1 &&
           EVP_DigestVerify(context.get(), bytes_of(signature), signature.size(), bytes_of(bytes), bytes.size()) == 1;
}

// A token carries the two numbers side by side; OpenSSL wants them in DER.
bool verify_p256(EVP_PKEY* key, std::string_view bytes, std::string_view signature) noexcept {
    if (signature.size() != 2 * k_p256_bytes) {
        return false;
    }
    const EcSignature numbers{ECDSA_SIG_new()};
    Number r = number_of(signature.substr(0, k_p256_bytes));
    Number s = number_of(signature.substr(k_p256_bytes));
    if (!numbers || !r || !s || ECDSA_SIG_set0(numbers.get(), r.get(), s.get()) != 1) {
        return false;
    }
    static_cast<void>(r.release()); // the signature's now
    static_cast<void>(s.release());
    std::array<unsigned char, 80> der{};
    const int size = i2d_ECDSA_SIG(numbers.get(), nullptr);
    unsigned char* at = der.data();
    if (size <= 0 || static_cast<std::size_t>(size) > der.size() || i2d_ECDSA_SIG(numbers.get(), &at) != size) {
        return false;
    }
    return verify_digest(key, bytes, {reinterpret_cast<const char*>(der.data()), static_cast<std::size_t>(size)});
}

bool verify_mac(std::string_view secret, std::string_view bytes, std::string_view signature) noexcept {
    std::array<unsigned char, 32> expected{};
    unsigned size = 0;
    return HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()), bytes_of(bytes), bytes.size(),
                expected.data(), &size) != nullptr &&
           size == expected.size() && signature.size() == expected.size() &&
           CRYPTO_memcmp(expected.data(), signature.data(), expected.size()) == 0;
}

} // namespace

std::string_view to_text(TokenAlg alg) noexcept {
    switch (alg) {
    case TokenAlg::rs256:
        return "RS256";
    case TokenAlg::es256:
        return "ES256";
    case TokenAlg::hs256:
        break;
    }
    return "HS256";
}

TokenKey TokenKey::of_secret(std::string secret) {
    TokenKey key{TokenAlg::hs256};
    key.secret_ = std::move(secret);
    return key;
}

bool TokenKey::read_rsa(const json_t* jwk) {
    const auto modulus = binary_member(jwk, "n");
    const auto exponent = binary_member(jwk, "e");
    if (!modulus || !exponent || modulus->size() > k_most_rsa_bits / 8 + 1 || exponent->size() > 8) {
        return false;
    }
    const Number n = number_of(*modulus);
    const Number e = number_of(*exponent);
    const ParamBuild build{OSSL_PARAM_BLD_new()};
    if (!n || !e || !build || BN_num_bits(n.get()) < k_least_rsa_bits || BN_num_bits(n.get()) > k_most_rsa_bits ||
        BN_num_bits(e.get()) < 2 || BN_num_bits(e.get()) > k_most_exponent_bits || BN_is_odd(e.get()) == 0 ||
        OSSL_PARAM_BLD_push_BN(build.get(), OSSL_PKEY_PARAM_RSA_N, n.get()) != 1 ||
        OSSL_PARAM_BLD_push_BN(build.get(), OSSL_PKEY_PARAM_RSA_E, e.get()) != 1) {
        return false;
    }
    public_ = make_public("RSA", build.get());
    return public_ != nullptr;
}

bool TokenKey::read_p256(const json_t* jwk) {
    const auto x = binary_member(jwk, "x");
    const auto y = binary_member(jwk, "y");
    const ParamBuild build{OSSL_PARAM_BLD_new()};
    if (text_member(jwk, "crv") != "P-256" || !x || !y || x->size() != k_p256_bytes || y->size() != k_p256_bytes ||
        !build) {
        return false;
    }
    const std::string point = "\x04" + *x + *y;
    if (OSSL_PARAM_BLD_push_utf8_string(build.get(), OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0) != 1 ||
        OSSL_PARAM_BLD_push_octet_string(build.get(), OSSL_PKEY_PARAM_PUB_KEY, point.data(), point.size()) != 1) {
        return false;
    }
    public_ = make_public("EC", build.get());
    return public_ != nullptr;
}

Result<TokenKey> TokenKey::from_jwk(const json_t* jwk, TokenAlg alg) {
    const QuietOpenSsl quiet;
    const auto type = text_member(jwk, "kty");
    const std::string name{text_member(jwk, "kid").value_or("")};
    if (alg == TokenAlg::hs256 || type != (alg == TokenAlg::rs256 ? "RSA" : "EC") || !is_for(jwk, alg)) {
        return Error{"is for something else"};
    }
    TokenKey key{alg};
    key.kid_ = name;
    if (alg == TokenAlg::rs256 && !key.read_rsa(jwk)) {
        return Error{"needs n and e of an RSA key with 2048 to 8192 bits"};
    }
    if (alg == TokenAlg::es256 && !key.read_p256(jwk)) {
        return Error{"needs crv P-256 and a point x, y on that curve"};
    }
    return key;
}

bool TokenKey::verifies(std::string_view bytes, std::string_view signature) const noexcept {
    const QuietOpenSsl quiet;
    switch (alg_) {
    case TokenAlg::rs256:
        return verify_digest(public_.get(), bytes, signature);
    case TokenAlg::es256:
        return verify_p256(public_.get(), bytes, signature);
    case TokenAlg::hs256:
        break;
    }
    return verify_mac(secret_, bytes, signature);
}

const TokenKey* KeySet::find(const std::string* kid) const noexcept {
    if (kid == nullptr) {
        return keys_.size() == 1 ? &keys_.front() : nullptr;
    }
    const auto found = std::find_if(keys_.begin(), keys_.end(),
                                    [kid](const TokenKey& key) { return !kid->empty() && key.kid() == *kid; });
    return found == keys_.end() ? nullptr : &*found;
}

Result<KeySet> read_jwks(std::string_view text, TokenAlg alg) {
    if (text.size() > k_max_jwks_bytes) {
        return Error{"is larger than " + std::to_string(k_max_jwks_bytes) + " bytes"};
    }
    const auto parsed = parse_json(text);
    if (!parsed) {
        return Error{"is not JSON: " + parsed.error()};
    }
    const json_t* list = json_object_get(parsed.value().get(), "keys");
    if (!json_is_array(list) || json_array_size(list) > k_max_keys) {
        return Error{"is no JWKS: it has no \"keys\" with at most " + std::to_string(k_max_keys) + " keys"};
    }
    std::vector<TokenKey> keys;
    std::string why;
    for (std::size_t index = 0; index < json_array_size(list); ++index) {
        auto key = TokenKey::from_jwk(json_array_get(list, index), alg);
        if (key) {
            keys.push_back(std::move(key).value());
        } else if (why.empty()) {
            why = "; keys[" + std::to_string(index) + "] " + key.error();
        }
    }
    if (keys.empty()) {
        return Error{"has no key for " + std::string{to_text(alg)} + why};
    }
    return KeySet{std::move(keys)};
}

} // namespace billing
