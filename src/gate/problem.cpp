#include "gate/problem.hpp"

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
    {"Invalid token", "The bearer token is not valid here, or no longer"},
    {"Invalid API key", "The API key is unknown, revoked or expired"},
    {"Invalid account", "An account id has 1-128 of A-Z a-z 0-9 _ . @ : | -"},
    {"Invalid cost", "The cost of the request is not a whole number within bounds"},
    {"Invalid Idempotency-Key", "An Idempotency-Key has 1-255 printable characters, without spaces"},
    {"Unknown account", "This account is not known here"},
    {"Writes disabled", "Changes are switched off for this account"},
    {"Maintenance", "The account is read-only for now"},
    {"Billing enforced", "The time to settle the open payment has passed"},
    {"Subscription inactive", "The plan needs a live subscription"},
    {"Plan required", "The current plan does not include this"},
    {"Feature not in plan", "The current plan does not include this feature"},
    {"Request outstanding", "A request with this Idempotency-Key is under way; ask again when it is over"},
    {"Idempotency-Key reused", "This Idempotency-Key was used for another request"},
    {"Limit reached", ""},
    {"Too many requests", "More requests in a short time than the plan allows"},
    {"Insufficient credits", ""},
    {"Limit reached", ""},
    {"Billing unavailable", "The account's state cannot be read at the moment"},
}};

// A JSON object, written member by member. Names are ours and need no escapes.
class Body {
public:
    Body() { text_.reserve(512); }

    // For our own words.
    void plain(std::string_view name, std::string_view value) {
        begin(name);
        ((text_ += '"') += value) += '"';
    }
    void text(std::string_view name, std::string_view value) {
        if (std::none_of(value.begin(), value.end(), needs_escape)) {
            plain(name, value);
            return;
        }
        begin(name);
        text_ += '"';
        for (const char c : value) {
            append_escaped(c);
        }
        text_ += '"';
    }
    void number(std::string_view name, std::uint64_t value) {
        begin(name);
        text_ += std::to_string(std::min(value, std::uint64_t{INT64_MAX}));
    }
    void flag(std::string_view name, bool value) {
        begin(name);
        text_ += value ? "true" : "false";
    }
    std::string take() && { return std::move(text_ += '}'); }

private:
    static constexpr std::string_view k_hex = "0123456789abcdef";

    static bool needs_escape(char c) noexcept { return static_cast<unsigned char>(c) < ' ' || c == '"' || c == '\\'; }
    void append_escaped(char c) {
        if (static_cast<unsigned char>(c) < ' ') {
            ((text_ += "\\u00") += k_hex[static_cast<unsigned char>(c) >> 4]) += k_hex[c & 15];
            return;
        }
        if (needs_escape(c)) {
            text_ += '\\';
        }
        text_ += c;
    }
    void begin(std::string_view name) {
        text_ += text_.empty() ? "{\"" : ",\"";
        text_ += name;
        text_ += "\":";
    }

    std::string text_;
};

std::string iso_utc(std::int64_t unix_seconds) {
    const std::chrono::sys_seconds time{std::chrono::seconds{unix_seconds}};
    const auto day = std::chrono::floor<std::chrono::days>(time);
    const std::chrono::year_month_day date{day};
    const std::chrono::hh_mm_ss clock{time - day};
    std::string text = "0000-00-00T00:00:00Z";
    const auto put = [&text](std::size_t last, std::int64_t value) {
        for (; value > 0; value /= 10) {
            text[last--] = static_cast<char>('0' + value % 10);
        }
    };
    put(3, static_cast<int>(date.year()));
    put(6, static_cast<unsigned>(date.month()));
    put(9, static_cast<unsigned>(date.day()));
    put(12, clock.hours().count());
    put(15, clock.minutes().count());
    put(18, clock.seconds().count());
    return text;
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
const Plan* plan_that_would_do(const Decision& decision, const BoundRules& bound, const Catalog& catalog) {
    const Plan* held = catalog.plan(decision.plan_no);
    for (const std::uint8_t no : bound.open_to()) {
        const Plan* plan = catalog.plan(no);
        if (plan == nullptr || (held != nullptr && plan->rank <= held->rank)) {
            continue;
        }
        if (decision.reason == Reason::rate_exceeded) {
            const auto& rates = bound.rates()[decision.meter.quota].by_plan;
            if (rates[no].interval_us < rates[decision.plan_no].interval_us) {
                return plan;
            }
            continue;
        }
        if (decision.reason == Reason::credits_short) {
            const auto& units = bound.credits()[decision.meter.quota].by_plan;
            if (units[no] > units[decision.plan_no] && units[no] >= decision.meter.cost) {
                return plan;
            }
            continue;
        }
        if (decision.reason == Reason::stock_full) {
            if (bound.stock()[decision.meter.quota].by_plan[no] >= decision.meter.remaining + decision.meter.cost) {
                return plan;
            }
            continue;
        }
        if (decision.reason != Reason::limit_reached ||
            bound.quotas()[decision.meter.quota].by_plan[no] > decision.meter.limit) {
            return plan;
        }
    }
    return nullptr;
}

std::string credits_detail(const Meter& meter, std::string_view type) {
    return std::to_string(meter.cost) + " " + std::string{type} + " credits needed, " +
           std::to_string(meter.remaining) + " left";
}

void describe_credits(Body& body, const Meter& meter, const CreditRule& rule) {
    body.text("creditType", rule.key);
    body.number("remaining", meter.remaining);
    body.number("required", meter.cost);
    body.number("limit", meter.limit);
    if (meter.reset > 0) {
        body.plain("resetAt", iso_utc(meter.reset));
    }
}

std::string limit_detail(const Meter& meter, std::string_view quota) {
    return std::to_string(meter.cost) + " " + std::string{quota} + " needed, " + std::to_string(meter.remaining) +
           " of " + std::to_string(meter.limit) + " left";
}

void describe_limit(Body& body, const Meter& meter, const QuotaRule& rule) {
    body.text("quota", rule.name());
    if (!rule.window().empty()) {
        body.text("window", rule.window());
    }
    body.number("limit", meter.limit);
    body.number("used", meter.limit - std::min(meter.limit, meter.remaining));
    body.number("remaining", meter.remaining);
    body.number("required", meter.cost);
    if (meter.reset > 0) {
        body.plain("resetAt", iso_utc(meter.reset));
    }
}

std::string stock_detail(const Meter& meter, std::string_view stock) {
    return std::to_string(meter.cost) + " " + std::string{stock} + " needed, there are " +
           std::to_string(meter.remaining) + " of " + std::to_string(meter.limit);
}

void describe_stock(Body& body, const Meter& meter, const StockRule& rule) {
    body.text("stock", rule.key);
    body.number("limit", meter.limit);
    body.number("current", meter.remaining);
    body.number("remaining", meter.limit - std::min(meter.limit, meter.remaining));
    body.number("required", meter.cost);
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

std::string_view title_of(Reason reason) noexcept { return k_words[static_cast<std::size_t>(reason)].title; }

std::string_view detail_of(Reason reason) noexcept { return k_words[static_cast<std::size_t>(reason)].detail; }

std::string reason_code(const Decision& decision, const Rules& rules) {
    std::string code{code_of(decision.reason)};
    if (decision.reason == Reason::limit_reached) {
        code += "_" + upper(rules.quotas[decision.meter.quota].name());
    }
    if (decision.reason == Reason::rate_exceeded) {
        code += "_" + upper(rules.rates[decision.meter.quota].key);
    }
    if (decision.reason == Reason::stock_full) {
        code += "_" + upper(rules.stock[decision.meter.quota].key);
    }
    return code;
}

std::string problem_body(const Decision& decision, const Rules& rules, const BoundRules* bound, const Catalog* catalog,
                         int status, const WaysOut& ways) {
    const auto& words = k_words[static_cast<std::size_t>(decision.reason)];
    const bool limit = decision.reason == Reason::limit_reached;
    const bool rate = decision.reason == Reason::rate_exceeded;
    const bool credits = decision.reason == Reason::credits_short;
    const bool stock = decision.reason == Reason::stock_full;
    Body body;
    body.plain("type", limit || credits || stock ? k_quota_exceeded : "about:blank");
    body.plain("title", words.title);
    body.number("status", static_cast<std::uint64_t>(status));
    if (limit) {
        body.text("detail", limit_detail(decision.meter, rules.quotas[decision.meter.quota].name()));
    } else if (credits) {
        body.text("detail", credits_detail(decision.meter, rules.credits[decision.meter.quota].key));
    } else if (stock) {
        body.text("detail", stock_detail(decision.meter, rules.stock[decision.meter.quota].key));
    } else {
        body.plain("detail", words.detail);
    }
    body.plain("error", words.title);
    body.text("code", reason_code(decision, rules));
    if (limit) {
        describe_limit(body, decision.meter, rules.quotas[decision.meter.quota]);
    }
    if (credits) {
        describe_credits(body, decision.meter, rules.credits[decision.meter.quota]);
    }
    if (stock) {
        describe_stock(body, decision.meter, rules.stock[decision.meter.quota]);
    }
    if (rate) {
        body.text("rate", rules.rates[decision.meter.quota].key);
    }
    if (decision.reason == Reason::feature_missing) {
        body.text("feature", missing_features(rules));
    }
    const Plan* held = catalog == nullptr ? nullptr : catalog->plan(decision.plan_no);
    if (held != nullptr) {
        body.text("plan", held->key);
    }
    if (catalog != nullptr && bound != nullptr &&
        (limit || rate || credits || stock || decision.reason == Reason::plan_required ||
         decision.reason == Reason::feature_missing)) {
        const Plan* better = plan_that_would_do(decision, *bound, *catalog);
        body.flag("needsUpgrade", better != nullptr);
        if (better != nullptr) {
            body.text("requiredPlan", better->key);
        }
        if ((better != nullptr || credits) && !ways.upgrade.empty()) { // credits can be bought without another plan
            body.text("upgradeUrl", ways.upgrade);
        }
    }
    if (owes(decision.reason) && !ways.portal.empty()) {
        body.text("portalUrl", ways.portal);
    }
    return std::move(body).take();
}

std::int64_t retry_after(const Decision& decision, std::int64_t now) noexcept {
    if (decision.reason == Reason::unavailable) {
        return 1;
    }
    if (decision.reason == Reason::rate_exceeded) {
        return std::max<std::int64_t>(decision.meter.reset - now, decision.meter.reset == 0 ? 0 : 1);
    }
    if (decision.reason == Reason::limit_reached && decision.meter.reset > now && decision.meter.limit > 0) {
        return decision.meter.reset - now;
    }
    return 0;
}

RateLimitFields rate_limit_fields(const Meter& meter, std::string_view quota, const PeriodClock::Present& period,
                                  char* room) noexcept {
    char* at = append(append(append(room, "\""), quota), "\";q=");
    at = append(append(at, meter.limit), period.length);
    char* const middle = at;
    at = append(append(append(at, "\""), quota), "\";r=");
    at = append(at, meter.remaining);
    if (meter.reset == period.end) { // else it has ended since the decision
        at = append(at, period.left);
    }
    return {{room, static_cast<std::size_t>(middle - room)}, {middle, static_cast<std::size_t>(at - middle)}};
}

} // namespace billing
