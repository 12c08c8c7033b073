// What a location demands, by the operator's names, and the same bound to a catalog so that a request needs no look-up
// by name. Rules are made at configuration and never change; each worker binds them anew when the catalog changes.
#pragma once

#include "domain/catalog.hpp"
#include "gate/decision.hpp"
#include "state/table.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace billing {

// `billing_plan pro agency;` or `billing_plan >=pro;`
struct PlanRule {
    std::vector<std::string> keys;
    bool at_least = false; // then keys has one entry and its rank counts
};

// `billing_feature a b;` (all) or `billing_feature a b match=any;`
struct FeatureRule {
    std::vector<std::string> keys;
    bool any = false;
};

// `billing_quota requests cost=2 warn=80%;` A cost from a variable is evaluated by nginx/ for each request.
struct QuotaRule {
    std::string key; // the limit's: NAME, or NAME:WINDOW of a quota with several windows
    std::uint32_t cost = 1;
    std::vector<std::uint8_t> warns{}; // percent of what the account has of it, ascending

    std::string_view name() const noexcept { return std::string_view{key}.substr(0, key.find(':')); }
    std::string_view window() const noexcept {
        return std::string_view{key}.substr(std::min(key.size(), name().size() + 1));
    }
};

// `billing_rate chatbot hosts=2`
struct RateRule {
    std::string key;
    std::uint32_t hosts = 1; // that share the traffic evenly: each lets its part through
};

// `billing_credits logo 4 hold=10m`. Units from a variable are evaluated by nginx/ for each request.
struct CreditRule {
    std::string key;
    std::uint32_t units = 1;
    std::uint32_t hold_seconds = 3600; // a request whose end nobody has told by then gets its units back
};

// `billing_stock projects create 2` or `delete`
struct StockRule {
    std::string key;
    std::uint32_t units = 1;
    bool removes = false;
    std::uint32_t hold_seconds = 3600; // as of credits
};

// The largest cost of one request, in units.
inline constexpr std::uint32_t k_max_cost = 1'000'000;
// The digits of a whole number from 1 to k_max_cost; 0 for anything else.
std::uint32_t parse_cost(std::string_view text) noexcept;

// Quotas on one location.
inline constexpr std::size_t k_max_quotas = 4;
// What each of them takes, in units.
using Costs = std::array<std::uint32_t, k_max_quotas>;

// Types of credits on one location.
inline constexpr std::size_t k_max_credit_rules = 4;
using CreditUnits = std::array<std::uint32_t, k_max_credit_rules>;

// Stocks on one location.
inline constexpr std::size_t k_max_stock_rules = 4;

// Rates on one location.
inline constexpr std::size_t k_max_rate_rules = 4;
inline constexpr std::uint32_t k_max_hosts = 1000;

// What becomes of an account that PostgreSQL does not know.
enum class UnknownAccount : std::uint8_t { create, free, deny };

// What to do when neither cache nor database can tell.
struct ErrorPolicy {
    std::uint64_t stale_ms = 15 * 60 * 1000; // what was known not longer ago than this still decides
    bool allow = false;                      // else 503

    bool operator==(const ErrorPolicy&) const = default;
};

struct Rules {
    std::vector<PlanRule> plans; // empty or one
    std::vector<FeatureRule> features;
    std::vector<QuotaRule> quotas;
    std::vector<RateRule> rates;
    std::vector<CreditRule> credits;
    std::vector<StockRule> stock;
    bool keyed = false; // requests may carry a key of their client's

    // What one request may have to remember of them.
    std::size_t takings() const noexcept { return quotas.size() + rates.size(); }
    std::size_t durable_takings() const noexcept { return credits.size() + stock.size() + (keyed ? 1 : 0); }
};

struct BoundQuota {
    bool known = false; // false: the catalog has no such quota, so nothing can be counted
    std::uint8_t limit_no = 0;
    PeriodKind period = PeriodKind::month;
    bool own = false;                                 // each account has its own period
    bool overage = false;                             // some plan lets take more than it gives
    std::int64_t length = 0;                          // of a sliding window, seconds
    std::array<std::uint64_t, k_max_plans> by_plan{}; // units for each period; k_unlimited = no bound
};

struct BoundRate {
    bool known = false; // false: the catalog has no such rate, so nothing is held back
    std::uint8_t rate_no = 0;
    std::array<RateShape, k_max_plans> by_plan{};
};

struct BoundCredit {
    bool known = false; // false: the catalog has no such type, so nobody has any
    std::uint8_t credit_no = 0;
    std::array<std::int64_t, k_max_plans> by_plan{}; // units that a plan gives for each period
};

struct BoundStock {
    bool known = false; // false: the catalog has no such stock, so nobody may have any
    std::uint8_t stock_no = 0;
    std::array<std::uint64_t, k_max_plans> by_plan{}; // things at a time; k_unlimited = no bound
};

// What a request may have to take. Plain: units of quotas whose periods are the calendar's. Durable: credits and places
// of a stock, which PostgreSQL alone can give.
enum class Takes : std::uint8_t { nothing, plain, special, durable };

class BoundRules {
public:
    // A name that the catalog does not know can only refuse: such a location is listed in unknown().
    BoundRules(const Rules& rules, const Catalog& catalog);

    struct PlanVerdict {
        Reason reason = Reason::plan_required;
        bool free = false;  // needs no live subscription
        bool known = false; // the catalog has this plan
    };

    // For an account without overrides this is the whole answer on plan and features.
    const PlanVerdict& of_plan(std::uint8_t plan_no) const noexcept { return by_plan_[plan_no]; }
    // With overrides: on beats the plan, off beats both.
    Reason with_overrides(std::uint8_t plan_no, const FeatureSet& on, const FeatureSet& off) const noexcept;

    const std::vector<BoundQuota>& quotas() const noexcept { return quotas_; }
    const std::vector<BoundRate>& rates() const noexcept { return rates_; }
    const std::vector<BoundCredit>& credits() const noexcept { return credits_; }
    const std::vector<BoundStock>& stock() const noexcept { return stock_; }
    Takes takes() const noexcept { return takes_; }
    // The numbers of the plans that may come here, the cheapest first.
    const std::vector<std::uint8_t>& open_to() const noexcept { return open_to_; }
    const std::vector<std::string>& unknown() const noexcept { return unknown_; }

private:
    Reason judge(bool plan_fits, const FeatureSet& features) const noexcept;

    struct FeatureNeed {
        FeatureSet features;
        bool any;
    };

    std::array<PlanVerdict, k_max_plans> by_plan_{};
    std::array<FeatureSet, k_max_plans> features_{};
    std::array<bool, k_max_plans> fits_{};
    std::vector<FeatureNeed> needs_;
    std::vector<BoundQuota> quotas_;
    std::vector<BoundRate> rates_;
    std::vector<BoundCredit> credits_;
    std::vector<BoundStock> stock_;
    std::vector<std::uint8_t> open_to_;
    std::vector<std::string> unknown_;
    Takes takes_ = Takes::nothing;
};

} // namespace billing
