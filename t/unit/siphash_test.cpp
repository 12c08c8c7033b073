// Promise: account ids are hashed by SipHash-2-4 with 128 bits as its authors define it, for every length of the last
// block. Expected values are the reference's (key 00 01 ... 0f, input 00 01 02 ...).
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
    {0, "a3817f04ba25a8e66df67214c7550293"},  {1, "da87c1d86b99af44347659119b22fc45"},
    {2, "8177228da4a45dc7fca38bdef60affe4"},  {3, "9c70b60c5267a94e5f33b6b02985ed51"},
    {4, "f88164c12d9c8faf7d0f6e7c7bcd5579"},  {5, "1368875980776f8854527a07690e9627"},
    {6, "14eeca338b208613485ea0308fd7a15e"},  {7, "a1f1ebbed8dbc153c0b84aa61ff08239"},
    {8, "3b62a9ba6258f5610f83e264f31497b4"},  {9, "264499060ad9baabc47f8b02bb6d71ed"},
    {10, "00110dc378146956c95447d3f3d0fbba"}, {11, "0151c568386b6677a2b4dc6f81e5dc18"},
    {12, "d626b266905ef35882634df68532c125"}, {13, "9869e247e9c08b10d029934fc4b952f7"},
    {14, "31fcefac66d7de9c7ec7485fe4494902"}, {15, "5493e99933b0a8117e08ec0f97cfc3d9"},
    {16, "6ee2a4ca67b054bbfd3315bf85230577"}, {17, "473d06e8738db89854c066c47ae47740"},
    {18, "a426e5e423bf4885294da481feaef723"}, {19, "78017731cf65fab074d5208952512eb1"},
    {20, "9e25fc833f2290733e9344a5e83839eb"}, {21, "568e495abe525a218a2214cd3e071d12"},
    {22, "4a29b54552d16b9a469c10528eff0aae"}, {23, "c9d184ddd5a9f5e0cf8ce29a9abf691c"},
    {24, "2db479ae78bd50d8882a8a178a6132ad"}, {31, "2939b0183223fafc1723de4f52c43d35"},
    {32, "7c3956ca5eeafc3e363e9d556546eb68"}, {63, "5150d1772f50834a503e069a973fbd7c"},
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
