// The verdicts, and all of it as JSON. The text for people is in explanation_text.cpp.
#include "cli/explanation.hpp"

#include "domain/snapshot.hpp"
#include "gate/gate.hpp"
#include "gate/problem.hpp"
#include "state/facts.hpp"

namespace billing {

namespace {

using Kind = RuleVerdict::Kind;

// Judges as the gate does; what the gate asks the zone for, units, is asked of PostgreSQL's numbers.
class Judge {
public:
    Judge(const Explanation& explanation, std::int64_t now)
        : explanation_(explanation), facts_(facts_of(explanation.snapshot, now).facts), now_(now) {}

    RuleVerdict of(Kind kind, std::string name) const {
        Rules rules;
        if (kind == Kind::plan) {
            rules.plans.push_back({{name}, false});
        } else if (kind == Kind::feature) {
            rules.features.push_back({{name}, false});
        } else if (kind == Kind::quota) {
            rules.quotas.push_back({name, 1});
        }
        RuleVerdict verdict;
        verdict.kind = kind;
        verdict.reading = decide(rules, false);
        verdict.writing = decide(rules, true);
        verdict.name = std::move(name);
        return verdict;
    }

private:
    Verdict decide(const Rules& rules, bool write) const {
        Ask ask;
        ask.now = now_;
        ask.write = write;
        Decision decision;
        decision.reason = Gate::judge(facts_, BoundRules{rules, explanation_.catalog}, ask);
        if (decision.allows() && !rules.quotas.empty() && is_used_up(rules.quotas.front().key)) {
            decision.reason = Reason::limit_reached;
        }
        return {decision.reason, decision.allows() ? "" : reason_code(decision, rules)};
    }

    bool is_used_up(const std::string& quota) const noexcept {
        const json_t* limit = json_object_get(json_object_get(explanation_.account(), "limits"), quota.c_str());
        const auto amount = integer_member(limit, "amount");
        const std::int64_t beyond = integer_member(limit, "overage").value_or(0);
        return amount && integer_member(limit, "used").value_or(0) - beyond >= *amount;
    }

    const Explanation& explanation_;
    AccountFacts facts_;
    std::int64_t now_;
};

std::vector<RuleVerdict> judge_all(const Explanation& explanation, const json_t* document, std::int64_t now) {
    const Judge judge{explanation, now};
    std::vector<RuleVerdict> rules{judge.of(Kind::none, "")};
    for (const Plan& plan : explanation.catalog.plans()) {
        rules.push_back(judge.of(Kind::plan, plan.key));
    }
    const char* key = nullptr;
    json_t* value = nullptr;
    json_object_foreach(json_object_get(document, "features"), key, value) {
        rules.push_back(judge.of(Kind::feature, key));
    }
    json_object_foreach(json_object_get(document, "limits"), key, value) {
        rules.push_back(judge.of(Kind::quota, key));
    }
    return rules;
}

Json verdict_json(const Verdict& verdict) {
    Json json{json_object()};
    json_object_set_new(json.get(), "allowed", json_boolean(verdict.allows()));
    if (!verdict.allows()) {
        put_member(json.get(), "status", default_status(verdict.reason));
        put_member(json.get(), "code", verdict.code);
    }
    return json;
}

Json both_json(const RuleVerdict& rule) {
    Json json{json_object()};
    json_object_set_new(json.get(), "read", verdict_json(rule.reading).release());
    json_object_set_new(json.get(), "write", verdict_json(rule.writing).release());
    return json;
}

Json verdicts_json(const std::vector<RuleVerdict>& rules) {
    Json json{json_object()};
    for (const char* group : {"plans", "features", "quotas"}) {
        json_object_set_new(json.get(), group, json_object());
    }
    for (const RuleVerdict& rule : rules) {
        if (rule.kind == Kind::none) {
            json_object_set_new(json.get(), "no_rule", both_json(rule).release());
            continue;
        }
        const char* group = rule.kind == Kind::plan ? "plans" : rule.kind == Kind::feature ? "features" : "quotas";
        json_object_set_new(json_object_get(json.get(), group), rule.name.c_str(), both_json(rule).release());
    }
    return json;
}

Json cache_json(const CacheLook& cache) {
    Json json{json_object()};
    put_member(json.get(), "address", cache.where);
    json_object_set_new(json.get(), "answers", json_boolean(cache.held.told));
    json_object_set_new(json.get(), "stamp",
                        cache.held.stamp == 0 ? json_null() : json_text(to_hex16(cache.held.stamp)).release());
    json_object_set_new(json.get(), "trusted", json_boolean(cache.held.trusted));
    return json;
}

} // namespace

std::string Verdict::text() const { return allows() ? "allowed" : std::to_string(default_status(reason)) + " " + code; }

Result<Explanation> explain(std::string_view known) {
    Explanation explanation;
    auto parsed = parse_json(known);
    if (!parsed) {
        return Error{"PostgreSQL's answer is not JSON: " + parsed.error()};
    }
    explanation.known = std::move(parsed).value();
    json_t* root = explanation.known.get();
    auto snapshot = read_snapshot(text_member(root, "snapshot").value_or(""));
    if (!snapshot) {
        return Error{snapshot.error()};
    }
    explanation.snapshot = std::move(snapshot).value();
    auto document = parse_json(text_member(root, "catalog").value_or(""));
    auto catalog = Catalog::read(text_member(root, "catalog").value_or(""));
    if (!document || !catalog) {
        return Error{catalog ? document.error() : catalog.error()};
    }
    explanation.catalog = std::move(catalog).value();
    explanation.rules = judge_all(explanation, document.value().get(), integer_member(root, "now").value_or(0));
    json_object_del(root, "catalog"); // read; too long to show
    return explanation;
}

std::string explanation_json(const Explanation& explanation, const std::optional<CacheLook>& cache) {
    const Json json{json_deep_copy(explanation.known.get())};
    json_object_set_new(json.get(), "verdicts", verdicts_json(explanation.rules).release());
    if (cache) {
        json_object_set_new(json.get(), "cache", cache_json(*cache).release());
    }
    return dump_json(json.get());
}

} // namespace billing
