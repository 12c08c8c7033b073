// An explanation as people read it: the answer first, then what it rests on.
#include "cli/explanation.hpp"

#include "gate/rules.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <utility>

namespace billing {

namespace {

using Kind = RuleVerdict::Kind;

// "" where it is absent or null.
std::string text_of(const json_t* object, const char* key) {
    return std::string{text_member(object, key).value_or("")};
}

std::string joined(const std::vector<std::string>& parts, const char* between) {
    std::string text;
    for (const auto& part : parts) {
        text += (text.empty() ? "" : between) + part;
    }
    return text;
}

// Lines under a heading, which stands before the first of them only.
class Section {
public:
    Section(std::string& out, const char* heading) : out_(out), heading_(heading) {}

    void line(const std::string& text) {
        fmt::format_to(std::back_inserter(out_), "{:<14}{}\n", first_ ? heading_ : "", text);
        first_ = false;
    }

private:
    std::string& out_;
    const char* heading_;
    bool first_ = true;
};

std::string with_moment(const char* words, const std::string& moment, const char* otherwise) {
    return moment.empty() ? otherwise : words + moment;
}

std::string why_inactive(const Explanation& explanation) {
    const Snapshot& snapshot = explanation.snapshot;
    const json_t* account = explanation.account();
    if (!contains(k_live_statuses, snapshot.status)) {
        return "plan " + text_of(account, "plan") + " needs a live subscription, and the status is " +
               std::string{to_text(snapshot.status)};
    }
    if (snapshot.status == Status::past_due) {
        return "a payment is due" + with_moment(", and the time to pay it ended at ", text_of(account, "grace_until"),
                                                ", and there is no grace");
    }
    const auto now = integer_member(explanation.known.get(), "now").value_or(0);
    if (snapshot.cancel_at && *snapshot.cancel_at <= now) {
        return "the subscription was canceled as of " + text_of(account, "cancel_at");
    }
    const char* end = snapshot.status == Status::trialing ? "trial_end" : "period_end";
    return "what was paid for ended at " + text_of(account, end) + ", and no renewal has been seen";
}

std::string why(const Explanation& explanation, Reason reason) {
    const json_t* account = explanation.account();
    switch (reason) {
    case Reason::write_disabled:
        return "its writes are switched off (account set --writes on)";
    case Reason::maintenance:
        return explanation.snapshot.maintenance == Maintenance::payment
                   ? "a payment has failed: reading goes on, writing does not until it is paid"
                   : "an operator has made it read-only (account set --maintenance none)";
    case Reason::unknown_account:
        return "the account is deleted";
    case Reason::billing_enforced:
        return "billing is enforced, the status is " + text_of(account, "status") +
               with_moment(", and the grace ended at ", text_of(account, "grace_until"), ", and there is no grace");
    case Reason::subscription_inactive:
        return why_inactive(explanation);
    default:
        return {};
    }
}

// The first lines: what a location without rules says, and which quotas are used up.
void add_answer(std::string& out, const Explanation& explanation) {
    const RuleVerdict& plain = explanation.rules.front();
    const auto out_it = std::back_inserter(out);
    const std::string& name = explanation.snapshot.account;
    if (plain.reading == plain.writing) {
        fmt::format_to(out_it, "{}: {}\n", name,
                       plain.reading.allows() ? "allowed" : "refused with " + plain.reading.text());
    } else {
        fmt::format_to(out_it, "{}: reading is {}, writing is refused with {}\n", name,
                       plain.reading.allows() ? "allowed" : "refused with " + plain.reading.text(),
                       plain.writing.text());
    }
    std::vector<std::string> reasons{why(explanation, plain.writing.reason)};
    if (plain.reading.reason != plain.writing.reason) {
        reasons.push_back(why(explanation, plain.reading.reason));
    }
    for (const RuleVerdict& rule : explanation.rules) {
        if (rule.kind == Kind::quota && rule.reading.reason == Reason::limit_reached) {
            const json_t* limit = json_object_get(json_object_get(explanation.account(), "limits"), rule.name.c_str());
            reasons.push_back("quota " + rule.name + " is used up: " + rule.reading.text() +
                              with_moment(" until ", text_of(limit, "ends"), ", for good"));
        }
    }
    for (const auto& reason : reasons) {
        if (!reason.empty()) {
            fmt::format_to(out_it, "  {}\n", reason);
        }
    }
    out += "\n";
}

void add_account(std::string& out, const Explanation& explanation) {
    Section section{out, "account"};
    const json_t* account = explanation.account();
    std::string first = "plan " + text_of(account, "plan") + ", status " + text_of(account, "status");
    first += explanation.snapshot.enforced ? ", billing enforced" : "";
    first += explanation.snapshot.write_enabled ? "" : ", writes off";
    first += explanation.snapshot.maintenance == Maintenance::none
                 ? ""
                 : ", maintenance (" + text_of(account, "maintenance") + ")";
    section.line(first + (explanation.snapshot.deleted ? ", deleted" : ""));
    std::vector<std::string> moments;
    for (const auto& [key, words] :
         std::initializer_list<std::pair<const char*, const char*>>{{"trial_end", "trial until "},
                                                                    {"period_end", "paid until "},
                                                                    {"grace_until", "grace until "},
                                                                    {"cancel_at", "ends at "}}) {
        if (const std::string at = text_of(account, key); !at.empty()) {
            moments.push_back(words + at);
        }
    }
    if (!moments.empty()) {
        section.line(joined(moments, ", "));
    }
    section.line(
        "stamp " + text_of(account, "stamp") + ", changed at " + text_of(account, "changed_at") +
        with_moment(", not published since ", text_of(explanation.known.get(), "unpublished_since"), ", published"));
}

std::string until(const json_t* object) { return with_moment(" until ", text_of(object, "until"), ""); }

void add_exceptions(std::string& out, const json_t* account) {
    Section section{out, "exceptions"};
    const char* key = nullptr;
    json_t* value = nullptr;
    json_object_foreach(json_object_get(account, "features"), key, value) {
        if (text_of(value, "origin") == "override") {
            section.line(fmt::format("feature {} {}{}", key, true_member(value, "on") ? "on" : "off", until(value)));
        }
    }
    json_object_foreach(json_object_get(account, "limits"), key, value) {
        if (text_of(value, "origin") == "override") {
            const auto amount = integer_member(value, "amount");
            section.line(
                fmt::format("quota {} {}{}", key, amount ? std::to_string(*amount) : "unlimited", until(value)));
        }
    }
    json_object_foreach(json_object_get(account, "stock"), key, value) {
        if (text_of(value, "origin") == "override") {
            const auto amount = integer_member(value, "amount");
            section.line(
                fmt::format("stock {} {}{}", key, amount ? std::to_string(*amount) : "unlimited", until(value)));
        }
    }
}

const char* word_of(Kind kind) noexcept {
    switch (kind) {
    case Kind::plan:
        return "billing_plan ";
    case Kind::feature:
        return "billing_feature ";
    case Kind::quota:
        return "billing_quota ";
    case Kind::none:
        break;
    }
    return "no rule";
}

// A window's limit as a rule names it.
std::string as_written(const RuleVerdict& rule) {
    const QuotaRule quota{rule.name, 1};
    const bool window = rule.kind == Kind::quota && !quota.window().empty();
    return window ? std::string{quota.name()} + " window=" + std::string{quota.window()} : rule.name;
}

// Rules of a kind that are answered alike share a line.
void add_rules(std::string& out, const Explanation& explanation) {
    Section section{out, "a location"};
    std::vector<std::pair<const RuleVerdict*, std::vector<std::string>>> lines;
    for (const RuleVerdict& rule : explanation.rules) {
        const auto same = [&](const auto& line) {
            return line.first->kind == rule.kind && line.first->reading == rule.reading &&
                   line.first->writing == rule.writing;
        };
        auto line = std::find_if(lines.begin(), lines.end(), same);
        if (line == lines.end()) {
            line = lines.insert(line, {&rule, {}});
        }
        line->second.push_back(as_written(rule));
    }
    section.line(fmt::format("{:<28}{:<28}{}", "to read", "to write", "which says"));
    for (const auto& [rule, names] : lines) {
        section.line(fmt::format("{:<28}{:<28}{}{}", rule->reading.text(), rule->writing.text(), word_of(rule->kind),
                                 joined(names, " | ")));
    }
}

bool add_quotas(std::string& out, const json_t* account) {
    Section section{out, "quotas"};
    bool any_out = false;
    const char* key = nullptr;
    json_t* value = nullptr;
    json_object_foreach(json_object_get(account, "limits"), key, value) {
        const auto amount = integer_member(value, "amount");
        const auto used = integer_member(value, "used").value_or(0);
        const auto held = integer_member(value, "issued").value_or(0) - used;
        any_out = any_out || held > 0;
        const bool beyond = integer_member(value, "overage").value_or(0) > 0;
        section.line(fmt::format("{}: {} of {}{} used ({}){}, {} with hosts", key, used,
                                 amount ? std::to_string(*amount) : "unlimited", beyond ? ", and overage," : "",
                                 text_of(value, "period"), with_moment(" until ", text_of(value, "ends"), ""), held));
    }
    return any_out;
}

void add_credits(std::string& out, const json_t* account) {
    Section section{out, "credits"};
    const char* key = nullptr;
    json_t* value = nullptr;
    json_object_foreach(json_object_get(account, "credits"), key, value) {
        const auto overage = integer_member(value, "overage").value_or(0);
        section.line(fmt::format("{}: {} left, {} used{}", key, integer_member(value, "remaining").value_or(0),
                                 integer_member(value, "used").value_or(0),
                                 overage == 0 ? "" : ", " + std::to_string(overage) + " beyond the plan"));
    }
}

void add_stock(std::string& out, const json_t* account) {
    Section section{out, "stock"};
    const char* key = nullptr;
    json_t* value = nullptr;
    json_object_foreach(json_object_get(account, "stock"), key, value) {
        const auto amount = integer_member(value, "amount");
        const auto reserved = integer_member(value, "reserved").value_or(0);
        section.line(fmt::format("{}: {} of {}{}", key, integer_member(value, "current").value_or(0),
                                 amount ? std::to_string(*amount) : "unlimited",
                                 reserved == 0 ? "" : ", " + std::to_string(reserved) + " being made"));
    }
}

void add_hosts(std::string& out, const json_t* known) {
    Section section{out, "hosts"};
    std::size_t index = 0;
    json_t* value = nullptr;
    json_array_foreach(json_object_get(known, "instances"), index, value) {
        section.line(text_of(value, "host") + " reported last at " + text_of(value, "reported_at"));
    }
}

std::string subscription_line(const json_t* subscription) {
    std::string line = text_of(subscription, "id") + " " + text_of(subscription, "status");
    line += with_moment(", plan ", text_of(subscription, "plan"), ", of no plan in the catalog");
    line += with_moment(" by ", text_of(subscription, "price"), "");
    for (const auto& [key, words] :
         std::initializer_list<std::pair<const char*, const char*>>{{"trial_end", ", trial until "},
                                                                    {"period_end", ", paid until "},
                                                                    {"cancel_at", ", ends at "},
                                                                    {"past_due_since", ", owes since "},
                                                                    {"grace_until", ", grace until "},
                                                                    {"ended_at", ", ended at "}}) {
        line += with_moment(words, text_of(subscription, key), "");
    }
    return line;
}

void add_stripe(std::string& out, const json_t* known) {
    Section customer{out, "customer"};
    customer.line(with_moment("", text_of(known, "customer"), "none is linked"));
    if (const json_t* checkout = json_object_get(known, "checkout"); json_is_object(checkout)) {
        customer.line("an open checkout of " + text_of(checkout, "price") +
                      with_moment(" until ", text_of(checkout, "expires_at"), ""));
    }
    std::size_t index = 0;
    json_t* value = nullptr;
    Section subscriptions{out, "subscriptions"};
    json_array_foreach(json_object_get(known, "subscriptions"), index, value) {
        subscriptions.line(subscription_line(value));
    }
    Section events{out, "events"};
    json_array_foreach(json_object_get(known, "events"), index, value) {
        events.line(text_of(value, "received_at") + " " + text_of(value, "id") + " " + text_of(value, "type") + ": " +
                    text_of(value, "status") + with_moment(", ", text_of(value, "trouble"), "") +
                    with_moment(", again at ", text_of(value, "next_try_at"), ""));
    }
}

void add_cache(std::string& out, const CacheLook& cache, std::uint64_t stamp) {
    Section section{out, "cache"};
    const auto& held = cache.held;
    if (!held.told) {
        section.line("Redis at " + cache.where + " does not answer");
    } else if (held.stamp == 0) {
        section.line("Redis at " + cache.where + " holds nothing of it: the next host that needs it asks PostgreSQL");
    } else {
        const char* age = held.stamp == stamp  ? ", PostgreSQL's own"
                          : held.stamp < stamp ? ", older than PostgreSQL's"
                                               : ", newer than PostgreSQL's";
        section.line("Redis at " + cache.where + " holds stamp " + to_hex16(held.stamp) + age +
                     (held.trusted ? "; trusted" : "; not trusted, it is from before a restart of Redis"));
    }
}

} // namespace

std::string explanation_text(const Explanation& explanation, const std::optional<CacheLook>& cache) {
    std::string out;
    const json_t* known = explanation.known.get();
    add_answer(out, explanation);
    add_account(out, explanation);
    add_exceptions(out, explanation.account());
    add_rules(out, explanation);
    if (add_quotas(out, explanation.account())) {
        add_hosts(out, known);
    }
    add_credits(out, explanation.account());
    add_stock(out, explanation.account());
    add_stripe(out, known);
    if (cache) {
        add_cache(out, *cache, explanation.snapshot.stamp);
    }
    return out;
}

} // namespace billing
