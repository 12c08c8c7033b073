#include "jobs/publisher.hpp"

#include <algorithm>
#include <vector>

namespace billing {

namespace {

constexpr int k_batch = 500;
constexpr std::int64_t k_beat_ms = 500;
constexpr int k_patient_rounds = 20; // a worker that is being replaced keeps the lock for a moment
// A round that took longer says nothing about now: its watermark would arrive as news although it is old.
constexpr std::int64_t k_slow_round_ms = 2000;

constexpr std::string_view k_claim =
    "SELECT id, account, version, stamp, body, watermark, catalog_stamp FROM billing.publish_claim($1)";
constexpr std::string_view k_done = "SELECT billing.publish_done($1::bigint[], $2::bigint[])";

} // namespace

struct Publisher::Round {
    std::int64_t watermark = 0;
    std::uint64_t catalog_stamp = 0;
    std::vector<std::int64_t> ids;
    std::vector<std::int64_t> versions;
};

Publisher::Publisher(Reactor& reactor, Postgres& postgres, const PgListener& listener, Signal& wake, RedisCache* redis,
                     Table& table, AccountStore& accounts, CatalogHolder& catalogs)
    : reactor_(reactor), postgres_(postgres), listener_(listener), wake_(wake), redis_(redis), table_(table),
      accounts_(accounts), catalogs_(catalogs), trouble_(reactor) {}

Task<void> Publisher::run() {
    for (;;) {
        bool more = may_publish();
        if (more) {
            more = co_await round();
        }
        if (!more) {
            co_await wake_.wait(k_beat_ms);
        }
    }
}

// Without Redis two publishers would split the changes between their hosts: the session lock lets one of them be.
bool Publisher::may_publish() {
    if (redis_ != nullptr || listener_.holds_lock()) {
        rounds_without_lock_ = 0;
        return true;
    }
    if (listener_.listening() && ++rounds_without_lock_ > k_patient_rounds) {
        trouble_.say("another nginx keeps this database's changes to itself; hosts that share a "
                     "database need billing_redis on each of them");
    }
    return false;
}

// True when more is waiting.
Task<bool> Publisher::round() {
    const std::int64_t began = reactor_.now_ms();
    PgParams parameters{k_batch};
    PgResult claimed = co_await postgres_.query(k_claim, std::move(parameters));
    if (!claimed || claimed.rows() == 0) {
        if (claimed.outcome() == PgOutcome::refused) {
            trouble_.say("PostgreSQL refuses to tell changes: " + claimed.message() +
                         "; has ngx-billing migrate been run?");
        }
        co_return false;
    }
    trouble_.settled();
    Round round;
    co_await publish(claimed, round);
    PgParams done{round.ids, round.versions};
    PgResult rest = co_await postgres_.query(k_done, std::move(done));
    if (!rest) {
        co_return false;
    }
    std::int64_t watermark = round.watermark;
    if (!rest.is_null(0, 0)) {
        watermark = std::min(watermark, rest.integer(0, 0));
    }
    if (reactor_.now_ms() - began < k_slow_round_ms) {
        co_await tell(watermark);
    }
    co_return round.ids.size() >= static_cast<std::size_t>(k_batch);
}

// What could not be told keeps its claim, which lapses; one account never holds up another.
Task<void> Publisher::publish(const PgResult& claimed, Round& round) {
    for (int row = 0; row < claimed.rows(); ++row) {
        if (claimed.is_null(row, 0)) {
            round.watermark = claimed.integer(row, 5);
            round.catalog_stamp = static_cast<std::uint64_t>(claimed.integer(row, 6));
            // First: hosts believe accounts only of an epoch that the catalog is of.
            if (round.catalog_stamp > published_catalog_) {
                co_await publish_catalog(round.catalog_stamp);
            }
            continue;
        }
        const std::string account{claimed.text(row, 1)};
        const std::string body{claimed.text(row, 4)};
        const auto stamp = static_cast<std::uint64_t>(claimed.integer(row, 3));
        bool told = true;
        if (redis_ == nullptr) {
            accounts_.apply(body);
        } else {
            // The stream is what hosts follow; the cache is only for those who come later.
            co_await redis_->put_account(account, stamp, body);
            told = co_await redis_->announce_account(account, stamp, body);
        }
        if (told) {
            round.ids.push_back(claimed.integer(row, 0));
            round.versions.push_back(claimed.integer(row, 2));
        }
    }
}

// Where it fails the next round tries again.
Task<void> Publisher::publish_catalog(std::uint64_t stamp) {
    bool known = co_await catalogs_.fetch();
    if (!known) {
        co_return;
    }
    std::string document;
    std::uint64_t held = 0;
    bool told = true;
    if (redis_ != nullptr && table_.read_catalog(document, held)) {
        co_await redis_->put_catalog(held, document);
        told = co_await redis_->announce_catalog(held, document);
    }
    if (told) {
        published_catalog_ = stamp;
    }
}

Task<bool> Publisher::tell(std::int64_t watermark) {
    if (redis_ != nullptr) {
        co_return co_await redis_->heartbeat(watermark);
    }
    table_.put_watermark(static_cast<std::uint64_t>(watermark), static_cast<std::uint64_t>(reactor_.now_ms()));
    co_return true;
}

} // namespace billing
