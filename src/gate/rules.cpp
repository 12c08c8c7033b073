#include "gate/rules.hpp"

#include <algorithm>
#include <charconv>

namespace billing {

namespace {

bool plan_fits(const Rules& rules, const Catalog& catalog, const Plan& plan) {
    return std::all_of(rules.plans.begin(), rules.plans.end(), [&](const PlanRule& rule) {
        if (rule.at_least) {
            const Plan* least = catalog.plan(rule.keys.front());
            return least != nullptr && plan.rank >= least->rank;
        }
        return std::find(rule.keys.begin(), rule.keys.end(), plan.key) != rule.keys.end();
    });
}

std::uint64_t units_of(const Allowance& allowance) noexcept {
    return allowance.unlimited ? k_unlimited : static_cast<std::uint64_t>(std::max<std::int64_t>(allowance.amount, 0));
}

BoundQuota bind_quota(const QuotaRule& rule, const Catalog& catalog) {
    BoundQuota quota;
    const Limit* limit = catalog.limit(rule.key);
    if (limit == nullptr) {
        return quota;
    }
    quota.known = true;
    quota.limit_no = limit->no;
    quota.period = limit->period;
    quota.own = limit->period > PeriodKind::lifetime;
    quota.length = limit->length;
    quota.overage = limit->overage;
    for (const auto& plan : catalog.plans()) {
        quota.by_plan[plan.no] = units_of(plan.allowance(limit->no));
    }
    return quota;
}

// The interval is rounded up, never to more than the rate; of several hosts each has its part.
RateShape shape_of(const RateAmount& rate, std::uint32_t hosts) noexcept {
    constexpr std::int64_t k_us = 1'000'000;
    if (rate.count <= 0) {
        return {RateShape::k_never, 0};
    }
    const std::int64_t interval = (rate.seconds * k_us + rate.count - 1) / rate.count * hosts;
    return {static_cast<std::uint64_t>(interval),
            static_cast<std::uint64_t>(interval * std::max<std::int64_t>(1, rate.count / hosts))};
}

BoundRate bind_rate(const RateRule& rule, const Catalog& catalog) {
    BoundRate bound;
    const Rate* rate = catalog.rate(rule.key);
    if (rate == nullptr) {
        return bound;
    }
    bound.known = true;
    bound.rate_no = rate->no;
    for (const auto& plan : catalog.plans()) {
        const auto amount = plan.rates.find(rate->no);
        if (amount != plan.rates.end()) {
            bound.by_plan[plan.no] = shape_of(amount->second, rule.hosts);
        }
    }
    return bound;
}

BoundCredit bind_credit(const CreditRule& rule, const Catalog& catalog) {
    BoundCredit bound;
    const Credit* credit = catalog.credit(rule.key);
    if (credit == nullptr) {
        return bound;
    }
    bound.known = true;
    bound.credit_no = credit->no;
    for (const auto& plan : catalog.plans()) {
        const auto units = plan.credits.find(credit->no);
        bound.by_plan[plan.no] = units == plan.credits.end() ? 0 : units->second;
    }
    return bound;
}

BoundStock bind_stock(const StockRule& rule, const Catalog& catalog) {
    BoundStock bound;
    const Stock* stock = catalog.stock(rule.key);
    if (stock == nullptr) {
        return bound;
    }
    bound.known = true;
    bound.stock_no = stock->no;
    for (const auto& plan : catalog.plans()) {
        const auto amount = plan.stock.find(stock->no);
        bound.by_plan[plan.no] = amount == plan.stock.end() ? 0 : units_of(amount->second);
    }
    return bound;
}

} // namespace

std::uint32_t parse_cost(std::string_view text) noexcept {
    std::uint32_t cost = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), cost);
    const bool whole = problem == std::errc{} && end == text.data() + text.size();
    return whole && cost <= k_max_cost ? cost : 0;
}

BoundRules::BoundRules(const Rules& rules, const Catalog& catalog) {
    for (const auto& rule : rules.plans) {
        for (const auto& key : rule.keys) {
            if (catalog.plan(key) == nullptr) {
                unknown_.push_back("plan \"" + key + "\"");
            }
        }
    }
    for (const auto& rule : rules.features) {
        FeatureNeed need{{}, rule.any};
        for (const auto& key : rule.keys) {
            if (const auto number = catalog.feature(key)) {
                need.features.set(*number);
            } else {
                unknown_.push_back("feature \"" + key + "\"");
                // Nobody has it: an impossible need for "all", no help for "any".
                need.features = rule.any ? need.features : FeatureSet{}.set();
            }
        }
        needs_.push_back(need);
    }
    for (const auto& rule : rules.quotas) {
        quotas_.push_back(bind_quota(rule, catalog));
        if (!quotas_.back().known) {
            unknown_.push_back("quota \"" + rule.key + "\"");
        }
    }
    for (const auto& rule : rules.rates) {
        rates_.push_back(bind_rate(rule, catalog));
        if (!rates_.back().known) {
            unknown_.push_back("rate \"" + rule.key + "\"");
        }
    }
    for (const auto& rule : rules.credits) {
        credits_.push_back(bind_credit(rule, catalog));
        if (!credits_.back().known) {
            unknown_.push_back("credit \"" + rule.key + "\"");
        }
    }
    for (const auto& rule : rules.stock) {
        stock_.push_back(bind_stock(rule, catalog));
        if (!stock_.back().known) {
            unknown_.push_back("stock \"" + rule.key + "\"");
        }
    }
    const bool special =
        std::any_of(quotas_.begin(), quotas_.end(), [](const BoundQuota& quota) { return quota.own || quota.overage; });
    const bool warns = std::any_of(rules.quotas.begin(), rules.quotas.end(),
                                   [](const QuotaRule& rule) { return !rule.warns.empty(); });
    takes_ = !credits_.empty() || !stock_.empty()  ? Takes::durable
             : special || warns || !rates_.empty() ? Takes::special
             : quotas_.empty()                     ? Takes::nothing
                                                   : Takes::plain;
    for (const auto& plan : catalog.plans()) {
        fits_[plan.no] = plan_fits(rules, catalog, plan);
        features_[plan.no] = plan.features;
        by_plan_[plan.no] = {judge(fits_[plan.no], plan.features), plan.free, true};
        if (by_plan_[plan.no].reason == Reason::allowed) {
            open_to_.push_back(plan.no);
        }
    }
    std::stable_sort(open_to_.begin(), open_to_.end(),
                     [&](std::uint8_t a, std::uint8_t b) { return catalog.plan(a)->rank < catalog.plan(b)->rank; });
}

Reason BoundRules::with_overrides(std::uint8_t plan_no, const FeatureSet& on, const FeatureSet& off) const noexcept {
    return judge(fits_[plan_no], (features_[plan_no] | on) & ~off);
}

Reason BoundRules::judge(bool fits, const FeatureSet& features) const noexcept {
    if (!fits) {
        return Reason::plan_required;
    }
    for (const auto& need : needs_) {
        const FeatureSet held = need.features & features;
        if (need.any ? held.none() : held != need.features) {
            return Reason::feature_missing;
        }
    }
    return Reason::allowed;
}

} // namespace billing
