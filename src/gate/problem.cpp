#include "gate/problem.hpp"

#include "domain/json.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstring>

namespace billing {

namespace {

constexpr std::string_view k_quota_exceeded = "https://iana.org/assignments/http-problem-types#quota-exceeded";

struct Words {
    std::string_view title;
    std::string_view detail;
};

constexpr std::array<Words, k_reasons> k_words = {{
    {"Allowed", ""},
    {"Account required", "The request names no account"},
    {"Invalid account", "An account id has 1-128 of A-Z a-z 0-9 _ . @ : | -"},
    {"Invalid cost", "The cost of the request is not a whole number within bounds"},
    {"Unknown account", "This account is not known here"},
    {"Writes disabled", "Changes are switched off for this account"},
    {"Maintenance", "The account is read-only for now"},
    {"Billing enforced", "The time to settle the open payment has passed"},
    {"Subscription inactive", "The plan needs a live subscription"},
    {"Plan required", "The current plan does not include this"},
    {"Feature not in plan", "The current plan does not include this feature"},
    {"Limit reached", ""},
    {"Billing unavailable", "The account's state cannot be read at the moment"},
}};

void put(json_t* body, const char* key, std::string_view text) { put_member(body, key, text); }

void put(json_t* body, const char* key, std::uint64_t number) {
    constexpr std::uint64_t most = INT64_MAX;
    put_member(body, key, static_cast<std::int64_t>(std::min(number, most)));
}

std::string iso_utc(std::int64_t unix_seconds) {
    const std::time_t time = unix_seconds;
    std::tm parts{};
    gmtime_r(&time, &parts);
    std::array<char, 32> text{};
    const auto size = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
    return {text.data(), size};
}

std::string upper(std::string_view text) {
    std::string result{text};
    std::transform(result.begin(), result.end(), result.begin(), [](char c) {
        if (c == '-' || c == '.') {
            return '_';
        }
        return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    });
    return result;
}

// The cheapest plan above the present one for which the location would open.
const Plan* plan_that_would_do(const Decision& decision, const Rules& rules, const Catalog& catalog) {
    const BoundRules bound{rules, catalog};
    const Plan* best = nullptr;
    const Plan* held = catalog.plan(decision.plan_no);
    for (const auto& plan : catalog.plans()) {
        bool fits = bound.of_plan(plan.no).reason == Reason::allowed && (best == nullptr || plan.rank < best->rank) &&
                    (held == nullptr || plan.rank > held->rank);
        if (decision.reason == Reason::limit_reached) {
            const auto& quota = bound.quotas()[decision.meter.quota];
            const auto allowance = plan.allowance(quota.limit_no);
            fits = fits && (allowance.unlimited || static_cast<std::uint64_t>(allowance.amount) > decision.meter.limit);
        }
        if (fits) {
            best = &plan;
        }
    }
    return best;
}

void describe_limit(json_t* body, const Decision& decision, const std::string& quota) {
    const auto& meter = decision.meter;
    const auto used = meter.limit - std::min(meter.limit, meter.remaining);
    put(body, "detail",
        std::to_string(meter.cost) + " " + quota + " needed, " + std::to_string(meter.remaining) + " of " +
            std::to_string(meter.limit) + " left");
    put(body, "quota", quota);
    put(body, "limit", meter.limit);
    put(body, "used", used);
    put(body, "remaining", meter.remaining);
    put(body, "required", std::uint64_t{meter.cost});
    if (meter.reset > 0) {
        put(body, "resetAt", iso_utc(meter.reset));
    }
}

bool owes(Reason reason) noexcept {
    return reason == Reason::maintenance || reason == Reason::billing_enforced ||
           reason == Reason::subscription_inactive;
}

std::string missing_features(const Rules& rules) {
    std::string names;
    for (const auto& rule : rules.features) {
        for (const auto& key : rule.keys) {
            names += (names.empty() ? "" : ", ") + key;
        }
    }
    return names;
}

char* append(char* at, std::string_view text) noexcept {
    std::memcpy(at, text.data(), text.size());
    return at + text.size();
}

char* append(char* at, std::uint64_t number) noexcept { return std::to_chars(at, at + 20, number).ptr; }

} // namespace

std::string reason_code(const Decision& decision, const Rules& rules) {
    std::string code{code_of(decision.reason)};
    if (decision.reason == Reason::limit_reached) {
        code += "_" + upper(rules.quotas[decision.meter.quota].key);
    }
    return code;
}

std::string problem_body(const Decision& decision, const Rules& rules, const Catalog* catalog, int status,
                         const WaysOut& ways) {
    const auto& words = k_words[static_cast<std::size_t>(decision.reason)];
    const bool limit = decision.reason == Reason::limit_reached;
    const Json body{json_object()};
    put(body.get(), "type", limit ? k_quota_exceeded : "about:blank");
    put(body.get(), "title", words.title);
    put(body.get(), "status", static_cast<std::uint64_t>(status));
    put(body.get(), "detail", words.detail);
    put(body.get(), "error", words.title);
    put(body.get(), "code", reason_code(decision, rules));
    if (limit) {
        describe_limit(body.get(), decision, rules.quotas[decision.meter.quota].key);
    }
    if (decision.reason == Reason::feature_missing) {
        put(body.get(), "feature", missing_features(rules));
    }
    const Plan* held = catalog == nullptr ? nullptr : catalog->plan(decision.plan_no);
    if (held != nullptr) {
        put(body.get(), "plan", held->key);
    }
    if (catalog != nullptr &&
        (limit || decision.reason == Reason::plan_required || decision.reason == Reason::feature_missing)) {
        const Plan* better = plan_that_would_do(decision, rules, *catalog);
        json_object_set_new(body.get(), "needsUpgrade", json_boolean(better != nullptr));
        if (better != nullptr) {
            put(body.get(), "requiredPlan", better->key);
            if (!ways.upgrade.empty()) {
                put(body.get(), "upgradeUrl", ways.upgrade);
            }
        }
    }
    if (owes(decision.reason) && !ways.portal.empty()) {
        put(body.get(), "portalUrl", ways.portal);
    }
    return dump_json(body.get());
}

std::int64_t retry_after(const Decision& decision, std::int64_t now) noexcept {
    if (decision.reason == Reason::unavailable) {
        return 1;
    }
    if (decision.reason == Reason::limit_reached && decision.meter.reset > now && decision.meter.limit > 0) {
        return decision.meter.reset - now;
    }
    return 0;
}

bool rate_limit_fields(const Meter& meter, std::string_view quota, PeriodKind period, std::int64_t now,
                       RateLimitFields& fields) noexcept {
    if (!meter.metered || meter.unlimited || quota.size() > 64) {
        return false;
    }
    char* at = append(append(append(fields.policy_text.data(), "\""), quota), "\";q=");
    at = append(at, meter.limit);
    if (meter.reset > 0) {
        const auto length = period_length(period, period_number(period, meter.reset - 1));
        at = append(append(at, ";w="), static_cast<std::uint64_t>(length));
    }
    fields.policy = {fields.policy_text.data(), static_cast<std::size_t>(at - fields.policy_text.data())};
    at = append(append(append(fields.limit_text.data(), "\""), quota), "\";r=");
    at = append(at, meter.remaining);
    if (meter.reset > now) {
        at = append(append(at, ";t="), static_cast<std::uint64_t>(meter.reset - now));
    }
    fields.limit = {fields.limit_text.data(), static_cast<std::size_t>(at - fields.limit_text.data())};
    return true;
}

} // namespace billing
