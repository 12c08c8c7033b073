// ngx-billing account explain
#include "cli/command.hpp"
#include "cli/explanation.hpp"

#include <fmt/format.h>

namespace billing {

namespace {

Task<int> look(Postgres& postgres, RedisCache* redis, std::string account, std::string where, bool json) {
    PgParams parameters{account};
    PgResult result = co_await postgres.query("SELECT billing.account_explain($1)", std::move(parameters));
    if (!result) {
        co_return explain_failure(result);
    }
    if (result.rows() != 1 || result.is_null(0, 0)) {
        co_return fail(k_exit_failed, "no account \"" + account + "\"");
    }
    const auto explanation = explain(result.text(0, 0));
    if (!explanation) {
        co_return fail(k_exit_failed, explanation.error());
    }
    std::optional<CacheLook> cache;
    if (redis != nullptr) {
        cache.emplace();
        cache->where = where;
        cache->held = co_await redis->held(account);
    }
    fmt::print("{}", json ? explanation_json(explanation.value(), cache) + "\n"
                          : explanation_text(explanation.value(), cache));
    co_return k_exit_ok;
}

} // namespace

int account_explain(const CommandOptions& options, const std::string& account, const std::string& redis) {
    std::optional<RedisAddress> address;
    if (!redis.empty()) {
        address = redis_of(redis);
        if (!address) {
            return k_exit_usage;
        }
    }
    const std::string where = address ? address->display() : "";
    return with_stores(options, address, [&](Postgres& postgres, RedisCache* cache) {
        return look(postgres, cache, account, where, options.json);
    });
}

} // namespace billing
