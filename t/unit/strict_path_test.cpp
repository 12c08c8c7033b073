// Promise: under billing_strict_path a path passes only if nobody behind nginx can read another one out of it.
#include "gate/strict_path.hpp"

#include <gtest/gtest.h>

#include <string>

namespace billing {
namespace {

TEST(StrictPath, LetsThroughWhatAllReadAlike) {
    for (const char* target :
         {"/", "/api", "/api/", "/api/x.svg", "/a..b/c.", "/api?x=%2f;..//", "/a%20b", "/caf%C3%A9", "/caf\xc3\xa9",
          "/a+b~c@d:e,f=g&h", "/%E2%82%AC", "/%F0%9F%92%B6", "/%ed%9f%bf", "/.well-known/x", "/...", "/x#;y"}) {
        EXPECT_TRUE(is_plain_path(target)) << target;
    }
}

TEST(StrictPath, RefusesWhatSomebodyMayReadAnotherWay) {
    for (const char* target : {"",
                               "api",
                               "*",
                               "http://x/api",
                               "//api",
                               "/api//x",
                               "/./api",
                               "/free/../api",
                               "/free/..",
                               "/free/.",
                               "/api;v=1/x",
                               "/free/..;/api/x",
                               "/free/..%5capi",
                               "/free\\api",
                               "/api%2fx",
                               "/api%2Fx",
                               "/%252fapi",
                               "/%25",
                               "/%2e%2e/api",
                               "/free/%2E%2e/api",
                               "/%3bx",
                               "/%00",
                               "/a%0ab",
                               "/a\x01",
                               "/%7f",
                               "/%c0%af",
                               "/%c1%81",
                               "/%e0%80%af",
                               "/%ed%a0%80",
                               "/%f0%80%80%af",
                               "/%f4%90%80%80",
                               "/%f5%80%80%80",
                               "/%80",
                               "/%c3",
                               "/%c3x",
                               "/%e2%82",
                               "\xc0\xaf",
                               "/\xff",
                               "/%",
                               "/%2",
                               "/%zz"}) {
        EXPECT_FALSE(is_plain_path(target)) << target;
    }
}

TEST(StrictPath, JudgesEachByteWrittenEitherWayAlike) {
    const std::string refused = "/\\;";
    for (int byte = 0x21; byte < 0x7f; ++byte) {
        const char c = static_cast<char>(byte);
        const std::string digits = "0123456789ABCDEF";
        const std::string encoded = std::string{"/a%"} + digits[static_cast<std::size_t>(byte >> 4)] +
                                    digits[static_cast<std::size_t>(byte & 15)] + "b";
        const bool special = refused.find(c) != std::string::npos || c == '.' || c == '%';
        EXPECT_EQ(is_plain_path(encoded), !special) << encoded;
    }
}

} // namespace
} // namespace billing
