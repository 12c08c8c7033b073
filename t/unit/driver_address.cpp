// Promise guarded: what an operator writes as an address is understood or refused in clear words, resolved once, and no
// error text ever contains a password.
#include <gtest/gtest.h>
#include <libpq-fe.h>

#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "drivers/address.hpp"

namespace billing {
namespace {

std::string redis_display(std::string_view text) {
    const auto address = resolve_redis(text);
    return address ? address.value().display() : "error: " + address.error();
}

TEST(DriverAddress, RedisFormsAreUnderstood) {
    EXPECT_EQ(redis_display("unix:/run/redis.sock"), "unix:/run/redis.sock");
    EXPECT_EQ(redis_display("127.0.0.1"), "127.0.0.1:6379");
    EXPECT_EQ(redis_display("127.0.0.1:6380"), "127.0.0.1:6380");
    EXPECT_EQ(redis_display("[::1]:6380"), "[::1]:6380");
    EXPECT_EQ(redis_display("[::1]"), "[::1]:6379");
    EXPECT_EQ(redis_display("localhost:7000"), "127.0.0.1:7000");
    EXPECT_EQ(redis_display("redis://127.0.0.1"), "127.0.0.1:6379");
}

TEST(DriverAddress, RedisUrlCarriesUserPasswordAndDatabase) {
    const auto address = resolve_redis("redis://bob:p%40ss%3Aw%2Frd@[::1]:6380/3");
    ASSERT_TRUE(address.ok()) << address.error();
    EXPECT_EQ(address.value().user, "bob");
    EXPECT_EQ(address.value().password, "p@ss:w/rd");
    EXPECT_EQ(address.value().ip, "::1");
    EXPECT_EQ(address.value().port, 6380);
    EXPECT_EQ(address.value().database, 3);
    EXPECT_EQ(address.value().display(), "[::1]:6380");
    const auto without_user = resolve_redis("redis://:secret@127.0.0.1/");
    ASSERT_TRUE(without_user.ok()) << without_user.error();
    EXPECT_EQ(without_user.value().user, "");
    EXPECT_EQ(without_user.value().password, "secret");
}

TEST(DriverAddress, RedisMistakesAreRefusedWithoutTheirPassword) {
    for (const char* text : {"",
                             "unix:relative",
                             "host:0",
                             "127.0.0.1:65536",
                             "127.0.0.1:x",
                             "::1:6379",
                             "[::1",
                             "[::1]6379",
                             ":6379",
                             "http://127.0.0.1",
                             "redis://secret@127.0.0.1",
                             "redis://u:%zz-secret@127.0.0.1",
                             "redis://u:@127.0.0.1",
                             "redis://u:secret@127.0.0.1/x",
                             "redis://u:secret@127.0.0.1/-1",
                             "redis://u:secret@127.0.0.1:70000",
                             "redis://u:secret@127.0.0.1/1?x",
                             "redis://u:secret@",
                             "u:secret@127.0.0.1",
                             "redis://u:secret@no.such.host.invalid"}) {
        const auto address = resolve_redis(text);
        ASSERT_FALSE(address.ok()) << text;
        EXPECT_EQ(address.error().find("secret"), std::string::npos) << address.error();
    }
    EXPECT_FALSE(resolve_redis("unix:/" + std::string(120, 'x')).ok());
    EXPECT_FALSE(resolve_redis(std::string_view("127.0.0.1\0evil", 14)).ok());
}

TEST(DriverAddress, RedisTlsIsRefusedWithWhatToDoInstead) {
    const auto address = resolve_redis("rediss://u:secret@127.0.0.1");
    ASSERT_FALSE(address.ok());
    EXPECT_NE(address.error().find("stunnel"), std::string::npos);
    EXPECT_EQ(address.error().find("secret"), std::string::npos);
}

std::map<std::string, std::string> options(std::string_view text) {
    std::map<std::string, std::string> out;
    const auto conninfo = resolve_postgres(text);
    EXPECT_TRUE(conninfo.ok()) << conninfo.error();
    if (!conninfo.ok())
        return out;
    const std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> parsed(
        PQconninfoParse(conninfo.value().c_str(), nullptr), &PQconninfoFree);
    EXPECT_NE(parsed, nullptr);
    for (const PQconninfoOption* one = parsed.get(); one && one->keyword; ++one)
        if (one->val)
            out[one->keyword] = one->val;
    return out;
}

TEST(DriverAddress, PostgresHostNamesAreResolvedAndTheNameIsKept) {
    auto got = options("postgresql://bob:p%20'w\\d@localhost:5433/billing");
    EXPECT_EQ(got["host"], "localhost");
    EXPECT_EQ(got["hostaddr"], "127.0.0.1");
    EXPECT_EQ(got["port"], "5433");
    EXPECT_EQ(got["user"], "bob");
    EXPECT_EQ(got["password"], "p 'w\\d");
    EXPECT_EQ(got["dbname"], "billing");
    EXPECT_EQ(got["sslmode"], "disable");
    EXPECT_EQ(got["gssencmode"], "disable");
    EXPECT_EQ(got["connect_timeout"], "5");
}

TEST(DriverAddress, PostgresKeepsWhatTheOperatorGave) {
    auto got = options("host=127.0.0.1 sslmode=verify-full connect_timeout=9 application_name=mine dbname=x");
    EXPECT_EQ(got["sslmode"], "verify-full");
    EXPECT_EQ(got["connect_timeout"], "9");
    EXPECT_EQ(got["application_name"], "mine");
    got = options("hostaddr=127.0.0.1 host=name.which.is.not.looked.up.invalid");
    EXPECT_EQ(got["hostaddr"], "127.0.0.1");
    EXPECT_EQ(got["host"], "name.which.is.not.looked.up.invalid");
}

TEST(DriverAddress, PostgresUnixSocketNeedsNoAddress) {
    auto got = options("host=/run/postgresql user=billing");
    EXPECT_EQ(got["host"], "/run/postgresql");
    EXPECT_EQ(got.count("hostaddr"), 0U);
    got = options("dbname=billing");
    EXPECT_EQ(got.count("hostaddr"), 0U);
}

TEST(DriverAddress, PostgresRefusesWhatWouldBlockOrConnectTwice) {
    for (const char* text : {"host=a,b", "hostaddr=127.0.0.1,127.0.0.2", "postgresql://u:secret@a:1,b:2/x",
                             "service=prod", "host=127.0.0.1 sslmode=prefer password=secret",
                             "host=127.0.0.1 sslmode=allow", "host=127.0.0.1 gssencmode=prefer",
                             "host=127.0.0.1 connect_timeout=0", "host=no.such.host.invalid password=secret"}) {
        const auto conninfo = resolve_postgres(text);
        ASSERT_FALSE(conninfo.ok()) << text;
        EXPECT_EQ(conninfo.error().find("secret"), std::string::npos) << conninfo.error();
    }
}

TEST(DriverAddress, PostgresSyntaxErrorsDoNotShowTheText) {
    for (const char* text : {"", "password=sec secret", "host=x password='secret", "secret=1",
                             "postgresql://u:secret@[::1/x", "postgresql://u:%zzsecret@h/x",
                             "postgresql://u@h/x?secret=1", "postgresql://u:p@h/x?password=secret&y", "secret"}) {
        const auto conninfo = resolve_postgres(text);
        ASSERT_FALSE(conninfo.ok()) << text;
        EXPECT_EQ(conninfo.error().find("secret"), std::string::npos) << conninfo.error();
        EXPECT_FALSE(conninfo.error().empty());
    }
}

} // namespace
} // namespace billing
