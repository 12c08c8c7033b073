#include "cli/command.hpp"

#include "async/poll_reactor.hpp"
#include "stripe/names.hpp"

#include <sys/stat.h>

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

// Whoever can read a live key can move money.
void warn_if_open(const std::string& setting) {
    struct stat file {};
    if (setting.starts_with("file:") && ::stat(setting.c_str() + 5, &file) == 0 && (file.st_mode & S_IRWXO) != 0) {
        fmt::print(stderr, "ngx-billing: {} can be read by everybody; chmod 600 it\n", setting.substr(5));
    }
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

std::optional<StripeConfig> stripe_of(const StripeOptions& options) {
    // What was given is not repeated: it may be a key.
    if (!options.key.starts_with("env:") && !options.key.starts_with("file:")) {
        fail(k_exit_usage, "--stripe-key names where the key is: env:NAME or file:PATH; a key on the command line is "
                           "seen by every user of the machine");
        return std::nullopt;
    }
    const auto key = read_setting(options.key);
    if (!key) {
        fail(k_exit_usage, "no key of Stripe: " + key.error() + "; set it, or write --stripe-key file:PATH");
        return std::nullopt;
    }
    warn_if_open(options.key);
    StripeConfig config;
    config.key = trim_secret(key.value());
    config.base_url = options.api;
    config.retries = 3; // nobody waits, and a pass over all customers should not end for a hiccup
    config.total_ms = 30'000;
    while (config.base_url.ends_with('/')) {
        config.base_url.pop_back();
    }
    const KeyMode mode = key_mode(config.key);
    if (mode == KeyMode::unknown) {
        fail(k_exit_usage, "in " + options.key +
                               " is no secret key of Stripe (sk_live_..., sk_test_..., rk_live_..., "
                               "rk_test_...)");
        return std::nullopt;
    }
    if (mode == KeyMode::live && !config.base_url.starts_with("https://")) {
        fail(k_exit_usage, "a live key is only sent over https; correct --stripe-api");
        return std::nullopt;
    }
    return config;
}

int with_stripe(const CommandOptions& options, const StripeOptions& stripe,
                const std::function<Task<int>(StripeWork)>& work) {
    auto config = stripe_of(stripe);
    const std::string conninfo = config ? conninfo_of(options) : "";
    if (conninfo.empty()) {
        return k_exit_usage;
    }
    const bool livemode = key_mode(config->key) == KeyMode::live;
    PollReactor reactor{complain};
    Postgres postgres{reactor, postgres_config(conninfo)};
    StripeApi api{reactor, std::move(*config)};
    postgres.start();
    const int code = run(reactor, work(StripeWork{reactor, postgres, api, livemode}));
    api.stop();
    postgres.stop();
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
