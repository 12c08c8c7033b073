#include "cli/command.hpp"

#include "async/poll_reactor.hpp"

#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>
#include <fstream>
#include <iterator>

namespace billing {

namespace {

Result<std::string> read_setting(const std::string& given) {
    if (given.starts_with("env:")) {
        const char* value = std::getenv(given.c_str() + 4);
        if (value == nullptr) {
            return Error{"the environment has no " + given.substr(4)};
        }
        return std::string{value};
    }
    if (given.starts_with("file:")) {
        std::ifstream stream{given.substr(5)};
        if (!stream) {
            return Error{"cannot read " + given.substr(5)};
        }
        std::string text{std::istreambuf_iterator<char>{stream}, {}};
        text.erase(text.find_last_not_of(" \r\n\t") + 1);
        return text;
    }
    return given;
}

void complain(LogLevel level, std::string_view text) {
    if (level >= LogLevel::warn) {
        fmt::print(stderr, "ngx-billing: {}\n", text);
    }
}

PgConfig postgres_config(const std::string& conninfo) {
    PgConfig config;
    config.conninfo = conninfo;
    config.connections = 1;
    config.timeout_ms = 30'000;
    return config;
}

} // namespace

int fail(ExitCode code, const std::string& what) {
    fmt::print(stderr, "ngx-billing: {}\n", what);
    return code;
}

std::string conninfo_of(const CommandOptions& options) {
    const char* environment = std::getenv("BILLING_POSTGRES");
    const std::string given = !options.dsn.empty() ? options.dsn : environment != nullptr ? environment : "";
    if (given.empty()) {
        fail(k_exit_usage, "no database; write --dsn 'host=... dbname=...' or set BILLING_POSTGRES");
        return {};
    }
    auto text = read_setting(given);
    if (!text) {
        fail(k_exit_usage, text.error());
        return {};
    }
    auto resolved = resolve_postgres(text.value());
    if (!resolved) {
        fail(k_exit_usage, resolved.error());
        return {};
    }
    return std::move(resolved).value();
}

std::optional<RedisAddress> redis_of(const std::string& given) {
    auto text = read_setting(given);
    auto address = text ? resolve_redis(text.value()) : Result<RedisAddress>{Error{text.error()}};
    if (!address) {
        fail(k_exit_usage, address.error());
        return std::nullopt;
    }
    return std::move(address).value();
}

int with_postgres(const CommandOptions& options, const std::function<Task<int>(Postgres&)>& work) {
    return with_stores(options, std::nullopt, [&work](Postgres& postgres, RedisCache*) { return work(postgres); });
}

int with_stores(const CommandOptions& options, const std::optional<RedisAddress>& address,
                const std::function<Task<int>(Postgres&, RedisCache*)>& work) {
    const std::string conninfo = conninfo_of(options);
    if (conninfo.empty()) {
        return k_exit_usage;
    }
    PollReactor reactor{complain};
    Postgres postgres{reactor, postgres_config(conninfo)};
    std::optional<Redis> redis;
    std::optional<RedisCache> cache;
    if (address) {
        RedisConfig redis_config;
        redis_config.address = *address;
        cache.emplace(reactor, redis.emplace(reactor, redis_config));
        redis->start();
    }
    postgres.start();
    const int code = run(reactor, work(postgres, cache ? &*cache : nullptr));
    postgres.stop();
    if (redis) {
        redis->stop();
    }
    return code;
}

int explain_failure(const PgResult& result) {
    if (result.outcome() != PgOutcome::refused) {
        return fail(k_exit_unreachable, "no answer from PostgreSQL: " + result.message());
    }
    const bool no_schema = result.sqlstate() == "3F000" || result.sqlstate() == "42P01" || result.sqlstate() == "42883";
    if (no_schema) {
        return fail(k_exit_failed, result.message() + "; run: ngx-billing migrate");
    }
    return fail(k_exit_failed, result.message());
}

} // namespace billing
