#include "state/redis_cache.hpp"

#include "domain/json.hpp"

#include <algorithm>
#include <random>

namespace billing {

namespace {

// The server's identity is short: enough to tell two lives apart.
constexpr std::size_t k_life_bytes = 12;
constexpr std::string_view k_catalog_key = "billing:catalog";
constexpr std::string_view k_life_key = "billing:life";

// Sixteen hex digits sort as the numbers do. An equal stamp is written again: its body is the same, its run may be a
// new one.
constexpr std::string_view k_put = R"(
local held = redis.call('HGET', KEYS[1], 'stamp')
if not held or held <= ARGV[1] then
    redis.call('HSET', KEYS[1], 'stamp', ARGV[1], 'run', ARGV[2], 'body', ARGV[3])
end
return 1
)";

const RedisScript& put_script() {
    static const RedisScript script{k_put};
    return script;
}

std::string account_key(std::string_view account) { return "billing:account:{" + std::string{account} + "}"; }

RedisArgs entry(std::string_view kind) {
    return RedisArgs{"XADD", k_changes_key, "MAXLEN", "~", "200000", "*", "kind", kind};
}

} // namespace

Task<std::string> RedisCache::account(std::string account) { return body_of(account_key(account)); }

Task<std::string> RedisCache::catalog() { return body_of(std::string{k_catalog_key}); }

Task<std::string> RedisCache::body_of(std::string key) {
    const std::string run = co_await run_id();
    RedisArgs command{"HMGET", key, "run", "body"};
    RedisReply reply = co_await redis_.command(std::move(command));
    look_at(reply, key);
    const bool trusted = reply.is_array() && !run.empty() && reply[0].text() == run;
    co_return trusted ? reply[1].text() : std::string{};
}

Task<RedisCache::Held> RedisCache::held(std::string account) {
    const std::string key = account_key(account);
    const std::string run = co_await run_id();
    RedisArgs command{"HMGET", key, "run", "stamp"};
    RedisReply reply = co_await redis_.command(std::move(command));
    look_at(reply, key);
    Held held;
    held.told = reply.is_array() && !run.empty();
    if (held.told) {
        held.stamp = from_hex16(reply[1].text()).value_or(0);
        held.trusted = reply[0].text() == run;
    }
    co_return held;
}

Task<std::string> RedisCache::run_id() {
    const std::uint64_t connection = redis_.counters().connects;
    if (!run_id_.empty() && run_id_of_ == connection) {
        co_return run_id_;
    }
    RedisArgs command{"INFO", "server"};
    RedisReply reply = co_await redis_.command(std::move(command));
    look_at(reply, "INFO");
    constexpr std::string_view k_name = "run_id:";
    const auto at = reply.ok() ? reply.text().find(k_name) : std::string::npos;
    run_id_ = at == std::string::npos ? "" : reply.text().substr(at + k_name.size(), k_life_bytes);
    run_id_of_ = redis_.counters().connects;
    co_return run_id_;
}

Task<std::string> RedisCache::life() {
    const std::string run = co_await run_id();
    if (run.empty()) {
        co_return run;
    }
    // A flush loses the mark; whoever looks first makes a new one.
    RedisArgs mark{"SET", k_life_key, to_hex16(std::random_device{}()), "NX", "GET"};
    RedisReply held = co_await redis_.command(std::move(mark));
    look_at(held, k_life_key);
    if (!held.ok()) {
        co_return std::string{};
    }
    if (held.is_nil()) {
        RedisArgs again{"GET", k_life_key};
        held = co_await redis_.command(std::move(again));
    }
    std::string mark_text = held.text().substr(0, 16);
    std::replace(mark_text.begin(), mark_text.end(), ' ', '_'); // a place in the stream is stored before a blank
    co_return held.kind() == RedisKind::string ? run + mark_text : std::string{};
}

Task<bool> RedisCache::put_account(std::string account, std::uint64_t stamp, std::string body) {
    return put(account_key(account), stamp, std::move(body));
}

Task<bool> RedisCache::put_catalog(std::uint64_t stamp, std::string body) {
    return put(std::string{k_catalog_key}, stamp, std::move(body));
}

Task<bool> RedisCache::put(std::string key, std::uint64_t stamp, std::string body) {
    std::vector<std::string> keys;
    keys.push_back(std::move(key));
    const std::string run = co_await run_id();
    std::vector<std::string> arguments(1, to_hex16(stamp));
    arguments.push_back(run);
    arguments.push_back(std::move(body));
    const std::string where = keys.front();
    RedisReply reply = co_await redis_.eval(put_script(), std::move(keys), std::move(arguments));
    look_at(reply, where);
    co_return reply.ok();
}

Task<bool> RedisCache::announce_account(std::string account, std::uint64_t stamp, std::string body) {
    RedisArgs change = entry("account");
    change.add("account").add(account).add("stamp").add(to_hex16(stamp)).add("body").add(body);
    return announce(std::move(change));
}

Task<bool> RedisCache::announce_catalog(std::uint64_t stamp, std::string body) {
    RedisArgs change = entry("catalog");
    change.add("stamp").add(to_hex16(stamp)).add("body").add(body);
    return announce(std::move(change));
}

Task<bool> RedisCache::heartbeat(std::int64_t watermark) {
    RedisArgs change = entry("heartbeat");
    change.add("watermark").add(watermark);
    return announce(std::move(change));
}

Task<bool> RedisCache::announce(RedisArgs change) {
    RedisReply reply = co_await redis_.command(std::move(change));
    look_at(reply, k_changes_key);
    co_return reply.ok();
}

void RedisCache::look_at(const RedisReply& reply, std::string_view what) {
    if (reply.is_error()) {
        trouble_.say("Redis refuses " + std::string{what} + ": " + reply.text());
    }
}

} // namespace billing
