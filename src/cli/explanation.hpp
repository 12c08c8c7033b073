// Why an account is let through or refused: what PostgreSQL knows of it, judged by the same code as requests are. Pure;
// for ngx-billing account explain.
#pragma once

#include "domain/account.hpp"
#include "domain/catalog.hpp"
#include "domain/json.hpp"
#include "domain/result.hpp"
#include "gate/decision.hpp"
#include "state/redis_cache.hpp"

#include <optional>
#include <string>
#include <vector>

namespace billing {

// What nginx answers, unless billing_codes says otherwise.
struct Verdict {
    Reason reason = Reason::allowed;
    std::string code; // as in the body of the refusal

    bool operator==(const Verdict&) const = default;
    bool allows() const noexcept { return reason == Reason::allowed; }
    std::string text() const; // "allowed", or "402 MAINTENANCE"
};

// Of a location that has this one rule.
struct RuleVerdict {
    enum class Kind : std::uint8_t { none, plan, feature, quota };
    Kind kind = Kind::none;
    std::string name;
    Verdict reading;
    Verdict writing;
};

struct Explanation {
    Json known; // billing.account_explain()
    Snapshot snapshot;
    Catalog catalog;
    std::vector<RuleVerdict> rules; // none, then plans, features, quotas in the catalog's order

    const json_t* account() const noexcept { return json_object_get(known.get(), "account"); }
};

// What Redis has of the account.
struct CacheLook {
    std::string where; // its address, without a password
    RedisCache::Held held;
};

// From what billing.account_explain() has answered.
Result<Explanation> explain(std::string_view known);

std::string explanation_json(const Explanation& explanation, const std::optional<CacheLook>& cache);
// For people: a screen.
std::string explanation_text(const Explanation& explanation, const std::optional<CacheLook>& cache);

} // namespace billing
