// Promise guarded: only a body which Stripe signed lately passes (W1, A30, A31): what its own libraries accept by
// accident is refused, several secrets and signatures may stand side by side, and odd headers cost nothing.
#include <gtest/gtest.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <cctype>
#include <string>
#include <vector>

#include "stripe/names.hpp"
#include "stripe/signature.hpp"

namespace billing {
namespace {

constexpr std::int64_t k_now = 1700000000;
const std::string k_body = "{\"id\":\"evt_1\"}";
const std::string k_secret = "whsec_dGVzdA==";

// Independent of the code under test.
std::string mac(const std::string& secret, const std::string& time, const std::string& body) {
    const std::string signed_text = time + "." + body;
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
         reinterpret_cast<const unsigned char*>(signed_text.data()), signed_text.size(), digest, &size);
    std::string hex;
    for (unsigned i = 0; i < size; ++i) {
        char pair[3];
        std::snprintf(pair, sizeof(pair), "%02x", digest[i]);
        hex += pair;
    }
    return hex;
}

std::string good(std::int64_t time = k_now) { return mac(k_secret, std::to_string(time), k_body); }
std::string header(std::int64_t time = k_now) { return "t=" + std::to_string(time) + ",v1=" + good(time); }

SignatureVerdict verify(const std::string& text, const std::vector<std::string>& secrets = {k_secret},
                        const std::string& body = k_body, std::int64_t tolerance = 300) {
    return verify_signature(text, body, secrets, k_now, tolerance);
}

const std::string k_t = "t=1700000000";
const std::string k_zero(64, '0');

TEST(StripeSignature, KnownVectorIsValid) {
    // Computed with `printf '1700000000.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_dGVzdA==`.
    EXPECT_EQ(verify(k_t + ",v1=38e139d9cda964169d7a35c040325a8afe4b0951ac39ad5b092f04cf3388ad25"),
              SignatureVerdict::valid);
    EXPECT_EQ(verify(header()), SignatureVerdict::valid);
}

TEST(StripeSignature, TimeIsBoundedInBothDirections) {
    for (const std::int64_t off : {0, 1, 299, 300})
        for (const std::int64_t sign : {-1, 1})
            EXPECT_EQ(verify(header(k_now + sign * off)), SignatureVerdict::valid) << sign * off;
    for (const std::int64_t off : {301, 1000, 1000000000})
        for (const std::int64_t sign : {-1, 1})
            EXPECT_EQ(verify(header(k_now + sign * off)), SignatureVerdict::stale) << sign * off;
    EXPECT_EQ(verify(header(k_now - 10), {k_secret}, k_body, 9), SignatureVerdict::stale);
    EXPECT_EQ(verify(header(k_now - 2), {k_secret}, k_body, 0), SignatureVerdict::stale)
        << "0 is no way to turn it off";
    EXPECT_EQ(verify(header(k_now - 2), {k_secret}, k_body, -5), SignatureVerdict::stale);
}

TEST(StripeSignature, HeaderTableOfOddities) {
    const std::string v1 = ",v1=" + good();
    std::string upper = good();
    for (char& byte : upper)
        byte = static_cast<char>(std::toupper(static_cast<unsigned char>(byte)));
    const struct {
        const char* name;
        std::string text;
        SignatureVerdict verdict;
    } cases[] = {
        {"nothing", "", SignatureVerdict::missing},
        {"two v1, the second good", k_t + ",v1=" + k_zero + v1, SignatureVerdict::valid},
        {"two v1, the first good", k_t + v1 + ",v1=" + k_zero, SignatureVerdict::valid},
        {"signature before time", "v1=" + good() + "," + k_t, SignatureVerdict::valid},
        {"another scheme beside it", k_t + ",v0=" + k_zero + v1 + ",v2=x", SignatureVerdict::valid},
        {"only v0 carries the good one", k_t + ",v0=" + good(), SignatureVerdict::malformed},
        {"v0 good, v1 wrong", k_t + ",v0=" + good() + ",v1=" + k_zero, SignatureVerdict::wrong},
        {"wrong", k_t + ",v1=" + k_zero, SignatureVerdict::wrong},
        {"upper case", k_t + ",v1=" + upper, SignatureVerdict::wrong},
        {"one digit short", k_t + ",v1=" + good().substr(1), SignatureVerdict::wrong},
        {"one digit more", k_t + ",v1=" + good() + "0", SignatureVerdict::wrong},
        {"empty v1", k_t + ",v1=", SignatureVerdict::wrong},
        {"no hex", k_t + ",v1=" + std::string(64, 'g'), SignatureVerdict::wrong},
        {"space after the comma", k_t + ", v1=" + good(), SignatureVerdict::malformed},
        {"space before", " " + k_t + v1, SignatureVerdict::malformed},
        {"space behind", k_t + v1 + " ", SignatureVerdict::wrong},
        {"no t", "v1=" + good(), SignatureVerdict::malformed},
        {"empty t", "t=" + v1, SignatureVerdict::malformed},
        {"t with a tail", k_t + "x" + v1, SignatureVerdict::malformed},
        {"t with a fraction", k_t + ".0" + v1, SignatureVerdict::malformed},
        {"negative t", "t=-1700000000" + v1, SignatureVerdict::malformed},
        {"t with a plus", "t=+1700000000" + v1, SignatureVerdict::malformed},
        {"t of 2^70", "t=1180591620717411303424" + v1, SignatureVerdict::malformed},
        {"t twice, the same", k_t + "," + k_t + v1, SignatureVerdict::malformed},
        {"t twice, the good one last", "t=1," + k_t + v1, SignatureVerdict::malformed},
        {"no v1", k_t, SignatureVerdict::malformed},
        {"comma at the end", k_t + v1 + ",", SignatureVerdict::malformed},
        {"word without =", k_t + v1 + ",x", SignatureVerdict::malformed},
        {"only commas", ",,,,", SignatureVerdict::malformed},
        {"only =", "=", SignatureVerdict::malformed},
        {"a NUL byte", k_t + v1 + std::string(1, '\0'), SignatureVerdict::wrong},
    };
    for (const auto& one : cases)
        EXPECT_EQ(verify(one.text), one.verdict) << one.name;
}

// Leading zeros are digits: what is signed is the text as it came.
TEST(StripeSignature, TimeIsSignedAsItWasWritten) {
    EXPECT_EQ(verify("t=01700000000,v1=" + mac(k_secret, "01700000000", k_body)), SignatureVerdict::valid);
    EXPECT_EQ(verify("t=01700000000,v1=" + good()), SignatureVerdict::wrong);
}

TEST(StripeSignature, NumberAndLengthAreBounded) {
    std::string sixteen = k_t;
    for (int i = 0; i < 15; ++i)
        sixteen += ",v1=" + k_zero;
    EXPECT_EQ(verify(sixteen + ",v1=" + good()), SignatureVerdict::valid);
    EXPECT_EQ(verify(sixteen + ",v1=x,v1=" + good()), SignatureVerdict::malformed) << "bad ones count too";
    std::string thousand = k_t;
    for (int i = 0; i < 1000; ++i)
        thousand += ",v1=";
    EXPECT_EQ(verify(thousand + good()), SignatureVerdict::malformed);
    const std::string base = header() + ",x=";
    EXPECT_EQ(verify(base + std::string(4096 - base.size(), 'y')), SignatureVerdict::valid);
    EXPECT_EQ(verify(base + std::string(4097 - base.size(), 'y')), SignatureVerdict::malformed);
}

TEST(StripeSignature, AnyOfTheSecretsMayMatchAndAnEmptyOneNever) {
    const std::string old = "whsec_old";
    EXPECT_EQ(verify(header(), {old, k_secret}), SignatureVerdict::valid);
    EXPECT_EQ(verify(header(), {old}), SignatureVerdict::wrong);
    EXPECT_EQ(verify(header(), {}), SignatureVerdict::wrong);
    EXPECT_EQ(verify(k_t + ",v1=" + mac("", "1700000000", k_body), {""}), SignatureVerdict::wrong);
    EXPECT_EQ(verify(k_t + ",v1=" + mac(old, "1700000000", k_body) + ",v1=" + good(), {k_secret}),
              SignatureVerdict::valid);
}

TEST(StripeSignature, EveryByteOfTheBodyCounts) {
    for (std::size_t i = 0; i < k_body.size(); ++i) {
        std::string other = k_body;
        other[i] = static_cast<char>(other[i] ^ 1);
        EXPECT_EQ(verify(header(), {k_secret}, other), SignatureVerdict::wrong);
    }
    EXPECT_EQ(verify(header(), {k_secret}, k_body + "\n"), SignatureVerdict::wrong);
    for (const std::string& body : {std::string(), std::string("\0\xff\r\n", 4), std::string(500000, 'x')})
        EXPECT_EQ(verify(k_t + ",v1=" + mac(k_secret, "1700000000", body), {k_secret}, body), SignatureVerdict::valid);
}

TEST(StripeSignature, EveryVerdictHasWordsForTheLog) {
    for (const auto verdict : {SignatureVerdict::valid, SignatureVerdict::missing, SignatureVerdict::malformed,
                               SignatureVerdict::stale, SignatureVerdict::wrong})
        EXPECT_TRUE(std::string(signature_verdict_text(verdict)).starts_with("the signature"))
            << static_cast<int>(verdict);
}

TEST(StripeNames, KeysSayTheirWorld) {
    EXPECT_EQ(key_mode("sk_live_x"), KeyMode::live);
    EXPECT_EQ(key_mode("rk_live_x"), KeyMode::live);
    EXPECT_EQ(key_mode("sk_test_x"), KeyMode::test);
    EXPECT_EQ(key_mode("rk_test_x"), KeyMode::test);
    for (const char* key : {"", "pk_live_x", "sk_", "SK_LIVE_x", "whsec_x"})
        EXPECT_EQ(key_mode(key), KeyMode::unknown) << key;
}

TEST(StripeNames, VersionsAndIdsAreChecked) {
    for (const char* text : {"2026-02-25.clover", "2020-08-27", "2025-03-31.basil"})
        EXPECT_TRUE(is_api_version(text)) << text;
    for (const char* text : {"", "2026-02-25.", "2026-2-25", "2026-02-25 ", "2026-02-25.Clover", "x2026-02-25",
                             "latest", "2026-02-25.a b", "2026-02-25;preview=v1"})
        EXPECT_FALSE(is_api_version(text)) << text;
    EXPECT_TRUE(is_object_id("cus_Ab-9"));
    EXPECT_TRUE(is_object_id(std::string(255, 'a')));
    for (const std::string& text :
         {std::string(), std::string(256, 'a'), std::string("a/b"), std::string(".."), std::string("a?b"),
          std::string("a b"), std::string("a\0b", 3), std::string("\xc3\xa4")})
        EXPECT_FALSE(is_object_id(text)) << text;
    EXPECT_EQ(trim_secret(" \twhsec_x y\r\n"), "whsec_x y");
    EXPECT_EQ(trim_secret(" \n"), "");
}

} // namespace
} // namespace billing
