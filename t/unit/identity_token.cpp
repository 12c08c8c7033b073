// Promise guarded: a token is good only if the configured key signed it with the configured algorithm, for the
// configured issuer and audience, and it is in force; nothing in the token decides how it is looked at. A4, A5, G2.
#include <gtest/gtest.h>

#include <openssl/err.h>

#include <random>
#include <string>

#include "identity/base64url.hpp"
#include "identity/token_guard.hpp"
#include "identity/token_key.hpp"
#include "tokens.hpp"

namespace billing {
namespace {

using test::base64url;
using test::joined;
using test::jwks;
using test::Signer;

constexpr std::int64_t k_now = 1'800'000'000;
const std::string k_claims = R"({"sub":"a","iss":"https://i","aud":"api","exp":1800000100,"nbf":1799999900})";

TokenPolicy policy(TokenAlg alg = TokenAlg::rs256) {
    TokenPolicy out;
    out.alg = alg;
    out.issuer = "https://i";
    out.audience = "api";
    return out;
}

// What inspect_token() says: "" for a token that may go on.
std::string verdict(const std::string& header, const std::string& claims, const TokenPolicy& by = policy(),
                    std::int64_t now = k_now) {
    const std::string token = joined(header, claims) + ".c2ln";
    const auto draft = inspect_token(token, by, now);
    return draft ? "" : draft.error();
}

std::string header(const std::string& more) { return "{\"alg\":\"RS256\"" + more + "}"; }
std::string claims(const std::string& more, const std::string& exp = "1800000100") {
    return R"({"sub":"a","iss":"https://i","aud":"api","exp":)" + exp + more + "}";
}

TEST(TokenGuard, TakesWhatIsInOrder) {
    const std::string token = joined(R"({"alg":"RS256","typ":"JWT","kid":"k1"})", k_claims) + "." + base64url("signed");
    const auto draft = inspect_token(token, policy(), k_now);
    ASSERT_TRUE(draft) << draft.error();
    EXPECT_EQ(draft.value().signed_bytes, token.substr(0, token.rfind('.')));
    EXPECT_EQ(draft.value().signature, "signed");
    EXPECT_EQ(draft.value().kid, "k1");
    EXPECT_EQ(draft.value().good_until, 1'800'000'160);
    EXPECT_EQ(claim_text(draft.value().claims.get(), "sub"), "a");
    for (const char* more : {"", R"(,"typ":"jwt")", R"(,"typ":"at+jwt")", R"(,"typ":"application/AT+JWT")",
                             R"(,"x5t":"abc","x5c":["abc"],"cty":"x")"}) {
        EXPECT_EQ(verdict(header(more), k_claims), "") << more;
    }
}

TEST(TokenGuard, HeaderSaysNothingAboutHowItIsVerified) {
    for (const char* alg : {"none", "None", "NoNe", "rs256", "RS512", "HS256", "ES256", "RS256 ", "", "PS256"}) {
        EXPECT_EQ(verdict("{\"alg\":\"" + std::string{alg} + "\"}", k_claims), "its alg is not RS256") << alg;
    }
    for (const char* whole :
         {"{}", R"({"alg":null})", R"({"alg":["RS256"]})", R"({"alg":256})", R"({"Alg":"RS256"})"}) {
        EXPECT_EQ(verdict(whole, k_claims), "its alg is not RS256") << whole;
    }
    for (const char* whole : {"", "[]", "\"RS256\"", "{\"alg\":\"RS256\"", R"({"alg":"none","alg":"RS256"})",
                              R"({"alg":"RS256"}{"alg":"none"})", "{\"alg\":\"RS256\\u0000\"}"}) {
        EXPECT_EQ(verdict(whole, k_claims), "its header is no JSON object") << whole;
    }
    for (const char* member : {R"("crit":["exp"])", R"("crit":null)", R"("b64":false)", R"("b64":true)",
                               R"("jku":"https://evil")", R"("x5u":"https://evil")", R"("jwk":{})"}) {
        const std::string more = std::string{","} + member;
        EXPECT_TRUE(verdict(header(more), k_claims).starts_with("its header has ")) << member;
    }
    for (const char* more : {R"(,"typ":"logout+jwt")", R"(,"typ":"dpop+jwt")", R"(,"typ":1)", R"(,"typ":"")"}) {
        EXPECT_EQ(verdict(header(more), k_claims), "its typ is not JWT or at+jwt") << more;
    }
    EXPECT_EQ(verdict(header(R"(,"kid":7)"), k_claims), "its kid is no short text");
    EXPECT_EQ(verdict(header(",\"kid\":\"" + std::string(257, 'k') + "\""), k_claims), "its kid is no short text");
}

TEST(TokenGuard, ClaimsAreCheckedWithTheLeeway) {
    EXPECT_EQ(verdict(header(""), k_claims, policy(), 1'800'000'159), "");
    EXPECT_EQ(verdict(header(""), k_claims, policy(), 1'800'000'160), "it has expired");
    EXPECT_EQ(verdict(header(""), k_claims, policy(), 1'799'999'840), "");
    EXPECT_EQ(verdict(header(""), k_claims, policy(), 1'799'999'839), "it is not in force yet");
    TokenPolicy strict = policy();
    strict.leeway_seconds = 0;
    EXPECT_EQ(verdict(header(""), k_claims, strict, 1'800'000'099), "");
    EXPECT_EQ(verdict(header(""), k_claims, strict, 1'800'000'100), "it has expired");
    EXPECT_EQ(verdict(header(""), claims("", "1800000100.5")), "");
    const std::string huge = "1" + std::string(400, '0');
    for (const std::string& exp :
         {std::string{"\"1800000100\""}, std::string{"null"}, std::string{"true"}, std::string{"{}"},
          std::string{"[1800000100]"}, std::string{"-1"}, std::string{"1e300"}, std::string{"9007199254740993"},
          std::string{"9223372036854775807"}}) {
        EXPECT_EQ(verdict(header(""), claims("", exp)), "its exp is no time") << exp;
    }
    for (const std::string& exp : {huge, std::string{"1e400"}, std::string{"NaN"}, std::string{"0x70000000"}}) {
        EXPECT_EQ(verdict(header(""), claims("", exp)), "its payload is no JSON object") << exp;
    }
    EXPECT_EQ(verdict(header(""), R"({"iss":"https://i","aud":"api"})"), "its exp is no time");
    EXPECT_EQ(verdict(header(""), claims(R"(,"nbf":"0")")), "its nbf is no time");
    EXPECT_EQ(verdict(header(""), claims(R"(,"nbf":null)")), "its nbf is no time");
    EXPECT_EQ(verdict(header(""), claims(R"(,"exp":1)")), "its payload is no JSON object") << "exp twice";
}

TEST(TokenGuard, IssuerAndAudienceAreWholeTexts) {
    const auto with = [](const std::string& iss, const std::string& aud) {
        return verdict(header(""), "{\"exp\":1800000100" + iss + aud + "}");
    };
    const std::string iss = R"(,"iss":"https://i")";
    const std::string aud = R"(,"aud":"api")";
    EXPECT_EQ(with(iss, aud), "");
    EXPECT_EQ(with(iss, R"(,"aud":["x","api"])"), "");
    for (const char* wrong : {"", R"(,"iss":null)", R"(,"iss":["https://i"])", R"(,"iss":"https://i/")", R"(,"iss":"")",
                              R"(,"iss":"https://I")"}) {
        EXPECT_EQ(with(wrong, aud), "it is of another issuer") << wrong;
    }
    for (const char* wrong : {"", R"(,"aud":null)", R"(,"aud":[])", R"(,"aud":"ap")", R"(,"aud":"api ")",
                              R"(,"aud":[["api"]])", R"(,"aud":{"api":1})", R"(,"aud":"API")"}) {
        EXPECT_EQ(with(iss, wrong), "it is for another audience") << wrong;
    }
}

TEST(TokenGuard, CutAndForgedTextsAreRefused) {
    const std::string good = joined(header(""), k_claims) + ".c2ln";
    for (std::size_t size = 0; size < good.size(); ++size) {
        const std::string cut = good.substr(0, size);
        EXPECT_FALSE(inspect_token(cut, policy(), k_now) && size < good.size() - 3) << cut;
    }
    for (const std::string& text : {good + ".", good + ".x", "." + good, good + "=", " " + good, good + "\n",
                                    good.substr(0, good.size() - 1) + "+", std::string{".."}, std::string(3, '\0')}) {
        EXPECT_FALSE(inspect_token(text, policy(), k_now)) << text;
    }
    EXPECT_FALSE(inspect_token(std::string(1'000'000, 'A'), policy(), k_now));
    EXPECT_FALSE(inspect_token(joined(header(""), std::string(5000, '[')) + ".c2ln", policy(), k_now));
    std::minstd_rand random{7};
    for (int round = 0; round < 20'000; ++round) { // nothing crashes, whatever stands there
        std::string text = good;
        for (int change = 0; change < 3; ++change) {
            text[random() % text.size()] = static_cast<char>(random() % 256);
        }
        static_cast<void>(inspect_token(text, policy(), k_now));
    }
}

TEST(TokenGuard, ClaimsAreFoundInAnyCaseIfOnlyOneIsMeant) {
    const auto parsed =
        parse_json(R"({"orgId":"o","n":7,"f":1.5,"b":true,"list":["x",{"y":1}],"none":null,"a":"1","A":"2",
                                       "xY":"1","Xy":"2"})");
    const json_t* all = parsed.value().get();
    EXPECT_EQ(claim_text(all, "orgid"), "o");
    EXPECT_EQ(claim_text(all, "n"), "7");
    EXPECT_EQ(claim_text(all, "b"), "true");
    EXPECT_EQ(claim_text(all, "list"), R"(["x",{"y":1}])");
    EXPECT_EQ(claim_text(all, "none"), "");
    EXPECT_EQ(claim_text(all, "absent"), "");
    EXPECT_EQ(claim_text(all, "a"), "1") << "the exact name";
    EXPECT_EQ(claim_text(all, "xy"), "") << "none of the two";
}

TEST(Base64Url, OneTextForEachBytes) {
    EXPECT_EQ(decode_base64url(""), "");
    EXPECT_EQ(decode_base64url("Zg"), "f");
    EXPECT_EQ(decode_base64url("Zm8"), "fo");
    EXPECT_EQ(decode_base64url("Zm9v"), "foo");
    EXPECT_EQ(decode_base64url("_-8"), "\xff\xef");
    for (const char* wrong : {"Z", "Zh", "Zm9", "Zg==", "Zm8=", "Z m8", "Zm8\n", "+/8", "Zm9vYQ=", "\xc3\xa4"}) {
        EXPECT_FALSE(decode_base64url(wrong)) << wrong;
    }
    std::string bytes;
    for (int byte = 0; byte < 256; ++byte) {
        bytes += static_cast<char>(byte);
        EXPECT_EQ(decode_base64url(base64url(bytes)), bytes);
    }
}

TEST(TokenKeys, EachVerifiesItsOwnAlgorithmAlone) {
    const Signer rsa = Signer::rsa();
    const Signer curve = Signer::p256();
    const auto rs = read_jwks(jwks({rsa.jwk("r"), curve.jwk("c")}), TokenAlg::rs256);
    const auto es = read_jwks(jwks({rsa.jwk("r"), curve.jwk("c")}), TokenAlg::es256);
    ASSERT_TRUE(rs && es);
    EXPECT_EQ(rs.value().size(), 1U);
    EXPECT_EQ(es.value().size(), 1U);
    const std::string name_r = "r";
    const std::string name_c = "c";
    const TokenKey* r = rs.value().find(&name_r);
    const TokenKey* c = es.value().find(&name_c);
    ASSERT_TRUE(r != nullptr && c != nullptr);
    EXPECT_EQ(rs.value().find(&name_c), nullptr);
    EXPECT_EQ(rs.value().find(nullptr), r) << "the only one";
    for (int round = 0; round < 20; ++round) {
        const std::string text = "text " + std::to_string(round);
        EXPECT_TRUE(r->verifies(text, rsa.sign(text)));
        EXPECT_TRUE(c->verifies(text, curve.sign(text)));
        EXPECT_FALSE(r->verifies(text + "x", rsa.sign(text)));
        EXPECT_FALSE(c->verifies(text + "x", curve.sign(text)));
        EXPECT_FALSE(r->verifies(text, curve.sign(text)));
        EXPECT_FALSE(c->verifies(text, rsa.sign(text)));
    }
    const std::string text = "text";
    std::string signature = curve.sign(text);
    for (const std::string& wrong :
         {std::string{}, std::string(64, '\0'), std::string(64, '\xff'), signature.substr(1), signature + "x",
          signature.substr(0, 32) + std::string(32, '\0'), std::string(32, '\0') + signature.substr(32)}) {
        EXPECT_FALSE(c->verifies(text, wrong));
        EXPECT_FALSE(r->verifies(text, wrong));
    }
    const TokenKey secret = TokenKey::of_secret("a secret");
    const std::string mac = test::mac_token("a secret", "{}", "{}");
    const auto dot = mac.rfind('.');
    const std::string tag = *decode_base64url(mac.substr(dot + 1));
    EXPECT_TRUE(secret.verifies(mac.substr(0, dot), tag));
    EXPECT_FALSE(secret.verifies(mac.substr(0, dot), tag.substr(0, 31)));
    EXPECT_FALSE(secret.verifies(mac.substr(0, dot), tag + "x"));
    EXPECT_FALSE(secret.verifies(mac.substr(0, dot), ""));
    EXPECT_FALSE(TokenKey::of_secret("another").verifies(mac.substr(0, dot), tag));
    EXPECT_EQ(ERR_peek_error(), 0U) << "nginx would find it";
}

TEST(TokenKeys, DocumentsAreReadWithCare) {
    const Signer rsa = Signer::rsa();
    const Signer curve = Signer::p256();
    const auto count = [](const std::string& text, TokenAlg alg) {
        const auto read = read_jwks(text, alg);
        return read ? read.value().size() : 0;
    };
    const auto rs = [&](const std::string& more) { return count(jwks({rsa.jwk("r", more)}), TokenAlg::rs256); };
    EXPECT_EQ(rs(R"(,"use":"sig","alg":"RS256","key_ops":["verify"])"), 1U);
    EXPECT_EQ(rs(R"(,"x5c":["abc"],"d":"AQAB")"), 1U);
    for (const char* other :
         {R"(,"use":"enc")", R"(,"use":7)", R"(,"alg":"RS512")", R"(,"alg":"PS256")", R"(,"alg":null)",
          R"(,"key_ops":["sign"])", R"(,"key_ops":[])", R"(,"key_ops":"verify")"}) {
        EXPECT_EQ(rs(other), 0U) << other;
    }
    EXPECT_EQ(count(jwks({Signer::rsa(1024).jwk("weak")}), TokenAlg::rs256), 0U);
    EXPECT_EQ(count(jwks({Signer::rsa(1024).jwk("weak"), rsa.jwk("r")}), TokenAlg::rs256), 1U);
    const std::string oct = R"({"kty":"oct","k":"AAAA","kid":"o"})";
    EXPECT_EQ(count(jwks({oct}), TokenAlg::hs256), 0U) << "a secret does not come in a document";
    EXPECT_EQ(count(jwks({oct, curve.jwk("c")}), TokenAlg::es256), 1U);

    const std::string n = base64url(rsa.number(OSSL_PKEY_PARAM_RSA_N));
    for (const std::string& wrong :
         {R"({"kty":"RSA","n":")" + n + "\"}", R"({"kty":"RSA","n":")" + n + R"(","e":"AA"})",
          R"({"kty":"RSA","n":")" + n + R"(","e":"AQ"})", R"({"kty":"RSA","n":")" + n + R"(","e":"BA"})",
          R"({"kty":"RSA","n":")" + n + R"(=","e":"AQAB"})", R"({"kty":"RSA","n":")" + n + R"(","e":"AQABAQABAQAB"})",
          std::string{R"({"kty":"RSA","n":"","e":"AQAB"})"}, std::string{R"({"kty":"RSA","n":7,"e":"AQAB"})"},
          R"({"kty":"RSA","n":")" + base64url(std::string(4000, '\xff')) + R"(","e":"AQAB"})"}) {
        EXPECT_EQ(count(jwks({wrong}), TokenAlg::rs256), 0U) << wrong.substr(0, 60);
    }
    const std::string x = base64url(curve.number(OSSL_PKEY_PARAM_EC_PUB_X, 32));
    const std::string y = base64url(curve.number(OSSL_PKEY_PARAM_EC_PUB_Y, 32));
    const auto point = [&](const std::string& crv, const std::string& left, const std::string& right) {
        return count(jwks({R"({"kty":"EC","crv":")" + crv + R"(","x":")" + left + R"(","y":")" + right + "\"}"}),
                     TokenAlg::es256);
    };
    EXPECT_EQ(point("P-256", x, y), 1U);
    EXPECT_EQ(point("P-384", x, y), 0U);
    EXPECT_EQ(point("P-256", y, x), 0U) << "not on the curve";
    EXPECT_EQ(point("P-256", x, x), 0U);
    EXPECT_EQ(point("P-256", base64url(std::string(32, '\0')), base64url(std::string(32, '\0'))), 0U);
    EXPECT_EQ(point("P-256", base64url(std::string(33, '\1')), y), 0U);

    for (const char* wrong : {"", "{}", "[]", R"({"keys":{}})", R"({"keys":[]})", R"({"keys":[7,null,[]]})",
                              R"({"keys":[{}]})", R"({"keys":[{"kty":7}]})", "not json"}) {
        EXPECT_FALSE(read_jwks(wrong, TokenAlg::rs256)) << wrong;
    }
    EXPECT_FALSE(read_jwks("{\"keys\":[" + std::string(70'000, ' ') + "]}", TokenAlg::rs256));
    std::vector<std::string> many(65, R"({"kty":"oct"})");
    EXPECT_FALSE(read_jwks(jwks(many), TokenAlg::rs256));
    EXPECT_EQ(ERR_peek_error(), 0U);
}

TEST(TokenKeys, AnUnnamedKeyServesOnlyAlone) {
    const Signer one = Signer::p256();
    const Signer two = Signer::p256();
    const std::string named = "two";
    const std::string empty;
    const auto both = read_jwks(jwks({one.jwk(""), two.jwk("two")}), TokenAlg::es256);
    ASSERT_TRUE(both);
    EXPECT_NE(both.value().find(&named), nullptr);
    EXPECT_EQ(both.value().find(nullptr), nullptr);
    EXPECT_EQ(both.value().find(&empty), nullptr);
}

} // namespace
} // namespace billing
