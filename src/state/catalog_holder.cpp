#include "state/catalog_holder.hpp"

namespace billing {

namespace {

constexpr std::int64_t k_fetch_ms = 3000;
constexpr std::size_t k_max_waiters = 4096;

} // namespace

CatalogHolder::CatalogHolder(Scope& scope, Postgres& postgres, RedisCache* redis, Table& table)
    : scope_(scope), postgres_(postgres), redis_(redis), table_(table), trouble_(scope.reactor()),
      flights_(
          scope, [this](int key) { return fetch_once(key); }, k_max_waiters) {}

bool CatalogHolder::refresh() {
    std::string document;
    std::uint64_t stamp = 0;
    if (table_.catalog_stamp() == stamp_ || !table_.read_catalog(document, stamp)) {
        return catalog_.has_value();
    }
    stamp_ = stamp;
    auto read = Catalog::read(document);
    if (read) {
        catalog_ = std::move(read).value();
    } else {
        trouble_.say(read.error());
    }
    return catalog_.has_value();
}

Task<bool> CatalogHolder::fetch() {
    Joined<bool> joined = co_await flights_.join(0, k_fetch_ms);
    co_return joined&&* joined.value;
}

Task<bool> CatalogHolder::ask() {
    PgResult result = co_await postgres_.query("SELECT billing.catalog_document()");
    if (result && result.rows() == 1) {
        apply(result.text(0, 0));
        co_return true;
    }
    if (result.outcome() == PgOutcome::refused) {
        trouble_.say("PostgreSQL has no catalog to read: " + result.message() + "; has ngx-billing migrate been run?");
    }
    co_return false;
}

Task<bool> CatalogHolder::fetch_once(int) {
    bool told = co_await ask();
    if (told || redis_ == nullptr || table_.catalog_stamp() != 0) {
        co_return refresh();
    }
    std::string cached = co_await redis_->catalog();
    co_return !cached.empty() && apply(cached);
}

bool CatalogHolder::apply(std::string_view document) {
    const auto read = Catalog::read(document);
    if (!read) {
        trouble_.say(read.error() + "; run ngx-billing catalog apply FILE");
        return catalog_.has_value();
    }
    if (document.size() > k_catalog_bytes) {
        trouble_.say("the catalog has " + std::to_string(document.size()) + " bytes, more than the " +
                     std::to_string(k_catalog_bytes) +
                     " that hosts can hold; merge plans or features and apply it again");
        return catalog_.has_value();
    }
    trouble_.settled();
    table_.put_catalog(read.value().stamp(), document);
    return refresh();
}

} // namespace billing
