#include "stripe/signature.hpp"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include <array>
#include <charconv>
#include <cstddef>
#include <memory>
#include <optional>

namespace billing {

namespace {

constexpr std::size_t k_max_header = 4096;
constexpr std::size_t k_max_signatures = 16;
constexpr std::size_t k_max_time_digits = 12;

using Digest = std::array<unsigned char, 32>;

struct Header {
    std::string_view time; // digits, as they are signed
    std::array<Digest, k_max_signatures> signatures{};
    std::size_t count = 0; // of `signatures`; those which are not 64 lower-case hex digits are left out
};

std::optional<unsigned char> nibble(char digit) noexcept {
    if (digit >= '0' && digit <= '9')
        return static_cast<unsigned char>(digit - '0');
    if (digit >= 'a' && digit <= 'f')
        return static_cast<unsigned char>(digit - 'a' + 10);
    return std::nullopt;
}

bool decode(std::string_view hex, Digest& digest) noexcept {
    if (hex.size() != digest.size() * 2)
        return false;
    for (std::size_t i = 0; i < digest.size(); ++i) {
        const auto high = nibble(hex[2 * i]);
        const auto low = nibble(hex[2 * i + 1]);
        if (!high || !low)
            return false;
        digest[i] = static_cast<unsigned char>(*high << 4 | *low);
    }
    return true;
}

// Stripe's own libraries differ in what they make of odd headers; here they are refused. Other schemes (v0) are passed
// over.
std::optional<Header> parse(std::string_view text) noexcept {
    Header header;
    std::size_t seen = 0;
    for (bool more = true; more;) {
        const auto comma = text.find(',');
        const std::string_view item = text.substr(0, comma);
        more = comma != text.npos;
        text.remove_prefix(more ? comma + 1 : text.size());
        const auto equals = item.find('=');
        if (equals == item.npos)
            return std::nullopt;
        const std::string_view name = item.substr(0, equals);
        const std::string_view value = item.substr(equals + 1);
        if (name == "t") {
            if (!header.time.empty() || value.empty() || value.size() > k_max_time_digits ||
                value.find_first_not_of("0123456789") != value.npos)
                return std::nullopt;
            header.time = value;
        } else if (name == "v1") {
            if (++seen > k_max_signatures)
                return std::nullopt;
            header.count += decode(value, header.signatures[header.count]) ? 1U : 0U;
        }
    }
    if (header.time.empty() || seen == 0)
        return std::nullopt;
    return header;
}

struct MacFree {
    void operator()(EVP_MAC* method) const noexcept { EVP_MAC_free(method); }
    void operator()(EVP_MAC_CTX* context) const noexcept { EVP_MAC_CTX_free(context); }
};

// HMAC-SHA256 of "<time>.<body>".
bool sign(const std::string& secret, std::string_view time, std::string_view body, Digest& digest) noexcept {
    static const std::unique_ptr<EVP_MAC, MacFree> hmac(EVP_MAC_fetch(nullptr, OSSL_MAC_NAME_HMAC, nullptr));
    const std::unique_ptr<EVP_MAC_CTX, MacFree> context(hmac ? EVP_MAC_CTX_new(hmac.get()) : nullptr);
    char sha256[] = "SHA256";
    const std::array<OSSL_PARAM, 2> parameters = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, sha256, sizeof(sha256) - 1),
        OSSL_PARAM_construct_end()};
    const auto add = [&](std::string_view part) {
        return EVP_MAC_update(context.get(), reinterpret_cast<const unsigned char*>(part.data()), part.size()) == 1;
    };
    std::size_t size = 0;
    return context &&
           EVP_MAC_init(context.get(), reinterpret_cast<const unsigned char*>(secret.data()), secret.size(),
                        parameters.data()) == 1 &&
           add(time) && add(".") && add(body) &&
           EVP_MAC_final(context.get(), digest.data(), &size, digest.size()) == 1 && size == digest.size();
}

} // namespace

const char* signature_verdict_text(SignatureVerdict verdict) noexcept {
    switch (verdict) {
    case SignatureVerdict::valid:
        return "the signature is valid";
    case SignatureVerdict::missing:
        return "the signature is missing";
    case SignatureVerdict::malformed:
        return "the signature header is malformed";
    case SignatureVerdict::stale:
        return "the signature's time is too far from now";
    case SignatureVerdict::wrong:
        break;
    }
    return "the signature is wrong";
}

SignatureVerdict verify_signature(std::string_view header, std::string_view body, std::span<const std::string> secrets,
                                  std::int64_t now, std::int64_t tolerance) {
    if (header.empty())
        return SignatureVerdict::missing;
    const auto parsed = header.size() <= k_max_header ? parse(header) : std::nullopt;
    if (!parsed)
        return SignatureVerdict::malformed;
    std::int64_t time = 0;
    std::from_chars(parsed->time.data(), parsed->time.data() + parsed->time.size(), time);
    const std::int64_t limit = tolerance < 1 ? 1 : tolerance;
    if (time < now - limit || time > now + limit)
        return SignatureVerdict::stale;
    int matches = 0;
    for (const std::string& secret : secrets) {
        Digest expected{};
        if (secret.empty() || parsed->count == 0 || !sign(secret, parsed->time, body, expected))
            continue;
        for (std::size_t i = 0; i < parsed->count; ++i)
            matches += CRYPTO_memcmp(expected.data(), parsed->signatures[i].data(), expected.size()) == 0 ? 1 : 0;
    }
    return matches > 0 ? SignatureVerdict::valid : SignatureVerdict::wrong;
}

} // namespace billing
