// Promise guarded: a worker verifies a token's signature once, and forgets that when the keys change; keys follow their
// file or address in the background, and what was read last stays while there is nothing better. What is remembered is
// bounded. G2.
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "http_server.hpp"
#include "identity/api_key.hpp"
#include "identity/bounded_cache.hpp"
#include "identity/kept_text.hpp"
#include "identity/token_verifier.hpp"
#include "loop.hpp"
#include "servers.hpp"
#include "tokens.hpp"

namespace billing {
namespace {

using test::HttpAsk;
using test::HttpPeer;
using test::HttpServer;
using test::jwks;
using test::Signer;

struct IdentityWorker : test::LoopTest {
    void close() override {
        scope->cancel();
        if (verifier) {
            verifier->stop();
        }
        verifier.reset();
    }

    void open(KeySourceConfig keys, KeptText memory = {}) {
        TokenConfig config;
        config.policy.alg = keys.alg;
        config.keys = std::move(keys);
        verifier = std::make_unique<TokenVerifier>(reactor, config, memory);
        verifier->start(*scope);
    }
    std::string claims(std::int64_t seconds = 100) const {
        return "{\"sub\":\"a\",\"exp\":" + std::to_string(reactor.unix_ms() / 1000 + seconds) + "}";
    }
    std::string token(const Signer& by, const std::string& kid) const {
        return by.token(R"({"alg":"ES256","kid":")" + kid + "\"}", claims());
    }
    TokenVerdict verdict(const std::string& text) { return verifier->check(text).verdict; }

    std::unique_ptr<TokenVerifier> verifier;
    const Signer one = Signer::p256();
    const Signer two = Signer::p256();
};

TEST_F(IdentityWorker, ASignatureIsVerifiedOnce) {
    KeySourceConfig keys;
    keys.secret = "a secret of thirty-two bytes or so";
    open(keys);
    const std::string good = test::mac_token(keys.secret, R"({"alg":"HS256"})", claims());
    for (int round = 0; round < 100; ++round) {
        const TokenAnswer answer = verifier->check(good);
        ASSERT_EQ(answer.verdict, TokenVerdict::good);
        EXPECT_EQ(claim_text(answer.claims->get(), "sub"), "a");
    }
    EXPECT_EQ(verifier->verified(), 1U);
    EXPECT_EQ(verdict(good.substr(0, good.size() - 2)), TokenVerdict::bad);
    EXPECT_EQ(verdict(good + "A"), TokenVerdict::bad);
    const std::string brief = test::mac_token(keys.secret, R"({"alg":"HS256"})", claims(-59));
    EXPECT_EQ(verdict(brief), TokenVerdict::good) << "within the leeway";
    EXPECT_TRUE(until([&] { return verdict(brief) == TokenVerdict::bad; })) << "what is remembered ends with the token";
}

TEST_F(IdentityWorker, AFloodForgetsOldTokensAndNothingElse) {
    KeySourceConfig keys;
    keys.secret = "a secret of thirty-two bytes or so";
    open(keys);
    for (int user = 0; user < 6000; ++user) {
        const std::string text = "{\"sub\":\"u" + std::to_string(user) +
                                 "\",\"exp\":" + std::to_string(reactor.unix_ms() / 1000 + 100) + "}";
        const TokenAnswer answer = verifier->check(test::mac_token(keys.secret, R"({"alg":"HS256"})", text));
        ASSERT_EQ(answer.verdict, TokenVerdict::good);
        ASSERT_EQ(claim_text(answer.claims->get(), "sub"), "u" + std::to_string(user));
    }
}

TEST_F(IdentityWorker, AFileIsFollowed) {
    const test::TempDir dir;
    KeySourceConfig keys;
    keys.alg = TokenAlg::es256;
    keys.file = dir.path() + "/keys.json";
    keys.text = jwks({one.jwk("one")});
    std::ofstream(keys.file) << keys.text;
    open(keys);
    const std::string by_one = token(one, "one");
    const std::string by_two = token(two, "two");
    EXPECT_EQ(verdict(by_one), TokenVerdict::good);
    EXPECT_EQ(verdict(by_two), TokenVerdict::bad);
    std::ofstream(keys.file) << jwks({two.jwk("two")});
    EXPECT_TRUE(until([&] { return verdict(by_two) == TokenVerdict::good; }));
    EXPECT_EQ(verdict(by_one), TokenVerdict::bad) << "remembered, and its key is gone";
    std::ofstream(keys.file) << "{";
    EXPECT_TRUE(until([&] { return logged("is not JSON") == 1; }));
    EXPECT_EQ(verdict(by_two), TokenVerdict::good);
    std::remove(keys.file.c_str());
    EXPECT_TRUE(until([&] { return logged("cannot be read") == 1; }));
    EXPECT_EQ(verdict(by_two), TokenVerdict::good);
    std::ofstream(keys.file) << jwks({one.jwk("one")});
    EXPECT_TRUE(until([&] { return verdict(by_one) == TokenVerdict::good; }));
}

TEST_F(IdentityWorker, AFileThatIsNoneIsNotWaitedFor) {
    const test::TempDir dir;
    const std::string pipe = dir.path() + "/pipe";
    ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
    EXPECT_FALSE(read_key_file(pipe));
    EXPECT_FALSE(read_key_file(dir.path()));
    EXPECT_FALSE(read_key_file(dir.path() + "/none"));
    std::ofstream(dir.path() + "/big") << std::string(1 << 20, 'x');
    const auto big = read_key_file(dir.path() + "/big");
    ASSERT_TRUE(big);
    EXPECT_FALSE(read_jwks(big.value(), TokenAlg::es256));
}

TEST_F(IdentityWorker, AnAddressIsAskedInTheBackgroundAndNotForEachUnknownKey) {
    std::atomic<int> stage = 0;
    const std::string first = jwks({one.jwk("one")});
    const std::string both = jwks({one.jwk("one"), two.jwk("two")});
    HttpServer server{[&](HttpPeer& peer, const HttpAsk&) {
        return stage == 0 ? peer.answer(503, "") : peer.answer(200, stage == 1 ? first : both);
    }};
    KeySourceConfig keys;
    keys.alg = TokenAlg::es256;
    keys.url = server.url() + "/jwks.json?token=canary";
    std::vector<unsigned char> block(k_max_jwks_bytes + 1024);
    open(keys, KeptText{block.data(), block.size()});
    const std::string by_one = token(one, "one");
    const std::string by_two = token(two, "two");
    EXPECT_EQ(verdict(by_one), TokenVerdict::unknown) << "nobody can tell yet";
    EXPECT_EQ(verdict("nonsense"), TokenVerdict::bad) << "but of this one everybody";
    EXPECT_TRUE(until(
        [&] { return logged("cannot be fetched: status 503; until it can, tokens are answered with 503") == 1; }));
    EXPECT_EQ(logged("canary"), 0);
    EXPECT_EQ(verdict(by_one), TokenVerdict::unknown);
    stage = 1;
    EXPECT_TRUE(until([&] { return verdict(by_one) == TokenVerdict::good; }));
    stage = 2;
    const int asked = server.requests();
    EXPECT_TRUE(until([&] { return verdict(by_two) == TokenVerdict::good; }, 10'000)) << "its kid was unknown";
    EXPECT_LE(server.requests() - asked, 2) << "thousands of looks, a fetch or two";
    EXPECT_EQ(verdict(by_one), TokenVerdict::good);

    TokenConfig config; // the next process, while the address is away
    config.policy.alg = TokenAlg::es256;
    config.keys = keys;
    TokenVerifier next{reactor, config, KeptText{block.data(), block.size()}};
    EXPECT_EQ(next.check(by_two).verdict, TokenVerdict::good) << "what was fetched before is there";
}

TEST(KeptText, IsWholeOrNotThere) {
    std::vector<unsigned char> block(200);
    KeptText kept{block.data(), block.size()};
    EXPECT_EQ(kept.read(), "");
    kept.write("some text");
    EXPECT_EQ(KeptText(block.data(), block.size()).read(), "some text");
    kept.write(std::string(300, 'x'));
    EXPECT_EQ(kept.read(), "some text") << "what does not fit changes nothing";
    for (std::size_t at = 0; at < 49; ++at) {
        auto torn = block;
        torn[at] ^= 1;
        EXPECT_EQ(KeptText(torn.data(), torn.size()).read(), "") << at;
    }
    EXPECT_EQ(KeptText{}.read(), "");
}

TEST(BoundedCache, HoldsWhatIsInUse) {
    BoundedCache<std::string> cache{16};
    const Hash128 kept = cache.hash("kept");
    cache.put(kept, "kept");
    int held = 0;
    for (int number = 0; number < 1000; ++number) {
        const Hash128 hash = cache.hash(std::to_string(number));
        cache.put(hash, std::to_string(number));
        ASSERT_EQ(*cache.find(hash), std::to_string(number));
        ASSERT_NE(cache.find(kept), nullptr) << "used all the time";
    }
    for (int number = 0; number < 1000; ++number) {
        held += cache.find(cache.hash(std::to_string(number))) != nullptr ? 1 : 0;
    }
    EXPECT_LE(held, 63);
    EXPECT_GT(held, 30);
    cache.put(kept, "other");
    EXPECT_EQ(*cache.find(kept), "other");
    cache.forget(kept);
    EXPECT_EQ(cache.find(kept), nullptr);
}

TEST(ApiKey, HasOneForm) {
    const std::string key = new_api_key();
    ASSERT_EQ(key.size(), k_api_key_bytes);
    EXPECT_TRUE(valid_api_key(key));
    EXPECT_TRUE(valid_api_key_prefix(api_key_prefix(key)));
    EXPECT_NE(key, new_api_key());
    EXPECT_EQ(api_key_digest("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    for (const std::string& wrong :
         {std::string{}, key + "0", key.substr(1), "Bk" + key.substr(2), key.substr(0, 13) + "-" + key.substr(14),
          key.substr(0, 14) + std::string(64, 'g'), key.substr(0, 14) + std::string(64, 'A'), std::string(78, '\0'),
          "bk_aaaaaaaaa1_" + key.substr(14)}) {
        EXPECT_FALSE(valid_api_key(wrong)) << wrong;
    }
}

} // namespace
} // namespace billing
