#include "state/account_store.hpp"

#include "domain/snapshot.hpp"
#include "state/facts.hpp"

#include <unordered_map>

namespace billing {

namespace {

constexpr std::size_t k_batch = 256;
constexpr std::size_t k_max_waiters = 4096;
constexpr std::int64_t k_fetch_ms = 3000;
constexpr std::uint64_t k_leap = 1 << 20; // changes of one account between two that a host has heard of

constexpr std::string_view k_snapshots = "SELECT account, stamp, body FROM billing.snapshots($1::text[], $2::boolean)";

} // namespace

AccountStore::AccountStore(Scope& scope, Postgres& postgres, RedisCache* redis, Table& table)
    : scope_(scope), postgres_(postgres), redis_(redis), table_(table), trouble_(scope.reactor()),
      flights_(
          scope, [this](std::string key) { return fetch_once(std::move(key)); }, k_max_waiters),
      reading_(
          scope, [this](std::vector<std::string> accounts) { return read(std::move(accounts), false); }, k_batch,
          k_max_waiters),
      creating_(
          scope, [this](std::vector<std::string> accounts) { return read(std::move(accounts), true); }, k_batch,
          k_max_waiters) {}

Task<Fetched> AccountStore::fetch(std::string account, Mode mode) {
    // The mode is part of the key: who needs PostgreSQL's word must not share a look into Redis.
    std::string key(1, static_cast<char>('0' + static_cast<int>(mode)));
    key += account;
    Joined<Fetched> joined = co_await flights_.join(std::move(key), k_fetch_ms);
    co_return joined ? *joined.value : Fetched::unavailable;
}

Task<Fetched> AccountStore::fetch_once(std::string key) {
    const Mode mode = static_cast<Mode>(key.front() - '0');
    const std::string account = key.substr(1);
    const std::uint32_t valid_gen = table_.valid_gen();
    if (mode != Mode::truth && redis_ != nullptr) {
        std::string body = co_await redis_->account(account);
        // What another timeline of PostgreSQL had published is not what this one knows.
        std::optional<Snapshot> snapshot = body.empty() ? std::nullopt : read_body(body);
        if (snapshot && epoch_of(snapshot->stamp) == epoch_of(table_.catalog_stamp()) && put(*snapshot, valid_gen)) {
            co_return Fetched::from_redis;
        }
    }
    auto& batch = mode == Mode::create ? creating_ : reading_;
    std::optional<Row> row = co_await batch.join(account);
    if (!row || !row->told) {
        co_return Fetched::unavailable;
    }
    if (!row->known) {
        co_return Fetched::unknown;
    }
    if (!put(row->body, valid_gen)) {
        co_return Fetched::unavailable;
    }
    if (redis_ != nullptr) {
        // Nobody waits for the cache to be filled.
        scope_.spawn([](RedisCache& redis, std::string name, std::uint64_t stamp, std::string body) -> Task<void> {
            co_await redis.put_account(std::move(name), stamp, std::move(body));
        }(*redis_, account, row->stamp, row->body));
    }
    co_return Fetched::from_postgres;
}

Task<std::vector<AccountStore::Row>> AccountStore::read(std::vector<std::string> accounts, bool create) {
    PgParams parameters{accounts, create};
    PgResult result = co_await postgres_.query(k_snapshots, std::move(parameters));
    std::vector<Row> rows;
    if (!result) {
        if (result.outcome() == PgOutcome::refused) {
            trouble_.say("PostgreSQL refuses to read accounts: " + result.message() +
                         "; has ngx-billing migrate been run?");
            if (accounts.size() > 1) {
                co_return co_await read_each(std::move(accounts), create);
            }
        }
        co_return rows;
    }
    trouble_.settled();
    std::unordered_map<std::string_view, int> found;
    for (int row = 0; row < result.rows(); ++row) {
        found[result.text(row, 0)] = row;
    }
    rows.resize(accounts.size());
    for (std::size_t index = 0; index < accounts.size(); ++index) {
        const auto at = found.find(accounts[index]);
        if (at != found.end()) {
            rows[index] = {true, true, static_cast<std::uint64_t>(result.integer(at->second, 1)),
                           std::string{result.text(at->second, 2)}};
        }
    }
    co_return rows;
}

// What one account is in the way of, the others need not wait for.
Task<std::vector<AccountStore::Row>> AccountStore::read_each(std::vector<std::string> accounts, bool create) {
    std::vector<Row> rows;
    for (const std::string& account : accounts) {
        std::vector<std::string> alone(1, account);
        std::vector<Row> row = co_await read(std::move(alone), create);
        Row nothing;
        nothing.told = false;
        rows.push_back(row.empty() ? nothing : std::move(row.front()));
    }
    co_return rows;
}

void AccountStore::apply(std::string_view body) { put(body, table_.valid_gen()); }

bool AccountStore::follow(std::string_view body) {
    const std::optional<Snapshot> snapshot = read_body(body);
    if (!snapshot) {
        return true; // and told
    }
    const std::uint64_t epoch = epoch_of(table_.catalog_stamp());
    AccountView held;
    const bool leaps = table_.find(table_.key_of(snapshot->account), held) && epoch_of(held.stamp) == epoch &&
                       snapshot->stamp > held.stamp + k_leap;
    if (epoch_of(snapshot->stamp) > epoch || leaps) {
        return false;
    }
    if (epoch_of(snapshot->stamp) == epoch) { // of an earlier one: from a primary that was replaced
        put(*snapshot, table_.valid_gen());
    }
    return true;
}

std::optional<Snapshot> AccountStore::read_body(std::string_view body) {
    auto snapshot = read_snapshot(body);
    if (!snapshot) {
        trouble_.say("an account cannot be read: " + snapshot.error());
        return std::nullopt;
    }
    return std::move(snapshot).value();
}

bool AccountStore::put(std::string_view body, std::uint32_t valid_gen) {
    const std::optional<Snapshot> snapshot = read_body(body);
    return snapshot && put(*snapshot, valid_gen);
}

bool AccountStore::put(const Snapshot& snapshot, std::uint32_t valid_gen) {
    const auto decoded = facts_of(snapshot, scope_.reactor().unix_ms() / 1000);
    const AccountKey key = table_.key_of(snapshot.account);
    return table_.put(key, decoded.facts, valid_gen, decoded.amounts, decoded.zone) != Put::no_room;
}

} // namespace billing
