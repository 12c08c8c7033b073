// Keys and tokens for tests, made with OpenSSL by other calls than those under test.
#pragma once

#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace billing::test {

inline std::string base64url(std::string_view bytes) {
    std::string text(bytes.size() * 2 + 4, '\0');
    const int size =
        EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                        reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
    text.resize(static_cast<std::size_t>(size));
    while (text.ends_with('=')) {
        text.pop_back();
    }
    for (char& digit : text) {
        digit = digit == '+' ? '-' : digit == '/' ? '_' : digit;
    }
    return text;
}

inline std::string joined(const std::string& header, const std::string& claims) {
    return base64url(header) + "." + base64url(claims);
}

inline std::string mac_token(const std::string& secret, const std::string& header, const std::string& claims) {
    const std::string text = joined(header, claims);
    std::array<unsigned char, 32> mac{};
    unsigned size = 0;
    HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
         reinterpret_cast<const unsigned char*>(text.data()), text.size(), mac.data(), &size);
    return text + "." + base64url({reinterpret_cast<const char*>(mac.data()), size});
}

class Signer {
public:
    static Signer rsa(std::size_t bits = 2048) {
        return Signer{EVP_PKEY_Q_keygen(nullptr, nullptr, "RSA", bits), false};
    }
    static Signer p256() { return Signer{EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"), true}; }

    std::string number(const char* name, std::size_t width = 0) const {
        BIGNUM* value = nullptr;
        EVP_PKEY_get_bn_param(key_.get(), name, &value);
        std::string bytes(width != 0 ? width : static_cast<std::size_t>(BN_num_bytes(value)), '\0');
        BN_bn2binpad(value, reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
        BN_free(value);
        return bytes;
    }
    // `more`: further members, as ,"use":"sig".
    std::string jwk(const std::string& kid, const std::string& more = {}) const {
        const std::string named = kid.empty() ? "" : ",\"kid\":\"" + kid + "\"";
        if (curve_) {
            return R"({"kty":"EC","crv":"P-256","x":")" + base64url(number(OSSL_PKEY_PARAM_EC_PUB_X, 32)) +
                   R"(","y":")" + base64url(number(OSSL_PKEY_PARAM_EC_PUB_Y, 32)) + "\"" + named + more + "}";
        }
        return R"({"kty":"RSA","n":")" + base64url(number(OSSL_PKEY_PARAM_RSA_N)) + R"(","e":")" +
               base64url(number(OSSL_PKEY_PARAM_RSA_E)) + "\"" + named + more + "}";
    }
    std::string token(const std::string& header, const std::string& claims) const {
        const std::string text = joined(header, claims);
        return text + "." + base64url(sign(text));
    }
    std::string sign(const std::string& text) const {
        const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context{EVP_MD_CTX_new(), &EVP_MD_CTX_free};
        std::array<unsigned char, 1024> bytes{};
        std::size_t size = bytes.size();
        if (EVP_DigestSignInit(context.get(), nullptr, EVP_sha256(), nullptr, key_.get()) != 1 ||
            EVP_DigestSign(context.get(), bytes.data(), &size, reinterpret_cast<const unsigned char*>(text.data()),
                           text.size()) != 1) {
            throw std::runtime_error("OpenSSL does not sign");
        }
        if (!curve_) {
            return {reinterpret_cast<const char*>(bytes.data()), size};
        }
        const unsigned char* at = bytes.data();
        ECDSA_SIG* both = d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(size));
        std::string raw(64, '\0');
        auto* out = reinterpret_cast<unsigned char*>(raw.data());
        BN_bn2binpad(ECDSA_SIG_get0_r(both), out, 32);
        BN_bn2binpad(ECDSA_SIG_get0_s(both), out + 32, 32);
        ECDSA_SIG_free(both);
        return raw;
    }

private:
    Signer(EVP_PKEY* key, bool curve) : key_(key, &EVP_PKEY_free), curve_(curve) {}

    std::shared_ptr<EVP_PKEY> key_;
    bool curve_;
};

inline std::string jwks(const std::vector<std::string>& keys) {
    std::string text = "{\"keys\":[";
    for (const std::string& key : keys) {
        text += (text.back() == '[' ? "" : ",") + key;
    }
    return text + "]}";
}

} // namespace billing::test
