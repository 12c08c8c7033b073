#include "identity/api_keys.hpp"

#include "identity/api_key.hpp"

#include <unordered_map>

namespace billing {

namespace {

constexpr std::size_t k_batch = 256;
constexpr std::size_t k_max_waiters = 2048;
constexpr std::uint64_t k_bad_ms = 10'000;
// Without news of the host's accounts a key is confirmed anew as often as this.
constexpr std::uint64_t k_fresh_ms = 5000;
// And this often where shared memory does not hold the account, so that no news of it would be noticed.
constexpr std::uint64_t k_unwatched_ms = 500;

constexpr std::string_view k_find = "SELECT digest, account, stamp, expires FROM billing.api_keys_find($1::text[])";

} // namespace

ApiKeys::ApiKeys(Scope& scope, Postgres& postgres, Table& table)
    : reactor_(scope.reactor()), postgres_(postgres), table_(table), trouble_(reactor_),
      asking_(
          scope, [this](std::vector<std::string> digests) { return read(std::move(digests)); }, k_batch, k_max_waiters),
      good_(k_good_sets), bad_(k_bad_sets) {}

std::uint64_t ApiKeys::now_ms() const noexcept { return static_cast<std::uint64_t>(reactor_.now_ms()); }

bool ApiKeys::expired(const Good& known) const noexcept {
    return known.expires != 0 && reactor_.unix_ms() / 1000 >= known.expires;
}

// The account has changed since PostgreSQL was asked; perhaps it was the key.
bool ApiKeys::superseded(const Good& known) const noexcept {
    AccountView view;
    return table_.find(table_.key_of(known.account), view) && view.stamp > known.stamp;
}

// Nothing has happened to the key that this host would not have heard of.
bool ApiKeys::vouched_for(const Good& known) const noexcept {
    const std::uint64_t now = now_ms();
    const std::uint64_t age = now - known.confirmed_ms;
    AccountView view;
    if (!table_.find(table_.key_of(known.account), view)) {
        return age < k_unwatched_ms;
    }
    const std::uint64_t news = table_.watermark_arrival();
    const bool in_touch = news != 0 && now <= news + k_fresh_ms;
    return view.stamp <= known.stamp && known.valid_gen == table_.valid_gen() && (in_touch || age < k_fresh_ms);
}

std::optional<KeyAnswer> ApiKeys::look(std::string_view key) {
    if (!valid_api_key(key)) {
        return KeyAnswer{KeyVerdict::bad, {}};
    }
    const Hash128 hash = good_.hash(key);
    if (const Good* known = good_.find(hash); known != nullptr && !expired(*known) && vouched_for(*known)) {
        return KeyAnswer{KeyVerdict::good, known->account};
    }
    if (const std::uint64_t* until = bad_.find(bad_.hash(key)); until != nullptr && now_ms() < *until) {
        return KeyAnswer{KeyVerdict::bad, {}};
    }
    return std::nullopt;
}

Task<KeyAnswer> ApiKeys::resolve(std::string key, std::uint64_t stale_ms) {
    const std::uint32_t valid_gen = table_.valid_gen();
    const Hash128 hash = good_.hash(key);
    std::string digest = api_key_digest(key);
    std::optional<Row> row = co_await asking_.join(std::move(digest));
    KeyAnswer answer;
    if (!row || !row->told) {
        const Good* known = good_.find(hash);
        if (known != nullptr && !expired(*known) && !superseded(*known) && now_ms() - known->confirmed_ms <= stale_ms) {
            answer = {KeyVerdict::good, known->account};
        }
        co_return answer;
    }
    if (row->account.empty()) {
        good_.forget(hash);
        bad_.put(bad_.hash(key), now_ms() + k_bad_ms);
        answer.verdict = KeyVerdict::bad;
        co_return answer;
    }
    bad_.forget(bad_.hash(key));
    answer = {KeyVerdict::good, row->account};
    good_.put(hash, {row->account, row->stamp, row->expires, now_ms(), valid_gen});
    co_return answer;
}

Task<std::vector<ApiKeys::Row>> ApiKeys::read(std::vector<std::string> digests) {
    PgParams parameters{digests};
    PgResult result = co_await postgres_.query(k_find, std::move(parameters));
    std::vector<Row> rows;
    if (!result) {
        if (result.outcome() == PgOutcome::refused) {
            trouble_.say("PostgreSQL refuses to look up API keys: " + result.message() +
                         "; has ngx-billing migrate been run?");
        }
        co_return rows;
    }
    trouble_.settled();
    std::unordered_map<std::string_view, int> found;
    for (int row = 0; row < result.rows(); ++row) {
        found[result.text(row, 0)] = row;
    }
    rows.resize(digests.size());
    for (std::size_t index = 0; index < digests.size(); ++index) {
        const auto at = found.find(digests[index]);
        if (at != found.end()) {
            const int row = at->second;
            rows[index] = {true, std::string{result.text(row, 1)}, static_cast<std::uint64_t>(result.integer(row, 2)),
                           result.is_null(row, 3) ? 0 : result.integer(row, 3)};
        }
    }
    co_return rows;
}

} // namespace billing
