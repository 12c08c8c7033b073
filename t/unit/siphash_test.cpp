// Promise: account ids are hashed by SipHash-1-3 with 128 bits as its authors define it, for every length of the last
// block. Expected values are another implementation's (openssl mac -macopt c-rounds:1 -macopt d-rounds:3 -macopt
// size:16 SIPHASH; key 00 01 ... 0f, input 00 01 02 ...).
#include "state/siphash.hpp"

#include <cstdio>
#include <gtest/gtest.h>
#include <memory>
#include <string>

namespace billing {
namespace {

struct Vector {
    std::size_t size;
    const char* hash;
};

constexpr Vector k_vectors[] = {
    {0, "e77ebcb22788a5befd62db6add303001"},  {1, "fc6f370460d3eda85e0573cc2b2ff063"},
    {2, "75787f090569839b855bc9548c6aea95"},  {3, "6bc5ccfa1edcf79f4823187712ebd743"},
    {4, "0c784e71ac2b285a9f8e92e78fbf2c25"},  {5, "f328db89345b620c795229a42695843e"},
    {6, "dcd03d29f743e7100951b0e83985a6f8"},  {7, "1084b923f2aae0c3a62f2ec80848ab77"},
    {8, "aa12fee1d5e3dab4724f16ab35f9c799"},  {9, "81ddb8042cf33994f4720e0094137c42"},
    {10, "4faa541d5d498e89ba0ea4c387b22fb4"}, {11, "723b9af3554491dbb1d6633dfc6e0c4e"},
    {12, "e53f92859e4819a8dc0695739fea8c65"}, {13, "b2f858c7c9ea801d53d603596d657844"},
    {14, "87e76268dbc9227226b0ca665f64e378"}, {15, "c17e5505b2bd526c2921cdec1e7e0109"},
    {16, "d0a8d95715518eebb513b0f83d9e1793"}, {17, "234126f93fbb668d975112e8febdf7ec"},
    {18, "ef42f03db78f704d023c449f16b7092b"}, {19, "abf76238c20af161b2314b4d5526bce9"},
    {20, "3c2c2f11bb90cf0be335ca9b2e91e9b7"}, {21, "2a7a680f22a02a92f45149d20fece0ef"},
    {22, "c9a8d130231dd43e42e6456957f83779"}, {23, "1d127b84405ceab99fd8775a9be6c559"},
    {24, "9e4bf837bcfd92cace09d2061a84d04a"}, {31, "42ea961c5b3c858b17c3e550dfa79010"},
    {32, "406c44dee67857b2943160f30c7417d3"}, {63, "4c5800e34efe426f079f6b0aa75260ad"},
};

std::string in_hex(Hash128 hash) {
    std::string text;
    for (const std::uint64_t word : {hash.lo, hash.hi}) {
        for (unsigned at = 0; at < 64; at += 8) {
            char digits[3];
            std::snprintf(digits, sizeof digits, "%02x", static_cast<unsigned>(word >> at & 0xff));
            text += digits;
        }
    }
    return text;
}

TEST(SipHash, EqualsTheReferenceForEachLengthOfTheLastBlock) {
    const SipKey key = SipKey::of(0x0706050403020100, 0x0f0e0d0c0b0a0908);
    for (const Vector& vector : k_vectors) {
        // In memory of exactly its size, so that a sanitizer sees a byte read too many.
        const std::unique_ptr<char[]> text(new char[vector.size]);
        for (std::size_t i = 0; i < vector.size; i++) {
            text[i] = static_cast<char>(i);
        }
        EXPECT_EQ(in_hex(siphash128(key, text.get(), vector.size)), vector.hash) << "length " << vector.size;
    }
}

TEST(SipHash, AnotherKeyGivesAnotherHash) {
    const Hash128 one = siphash128(SipKey::of(1, 2), "demo", 4);
    const Hash128 other = siphash128(SipKey::of(1, 3), "demo", 4);
    EXPECT_NE(one.lo, other.lo);
    EXPECT_NE(one.hi, other.hi);
}

} // namespace
} // namespace billing
