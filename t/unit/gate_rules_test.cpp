// What a location demands, bound to a catalog: plans by name and by rank, features all or any, overrides; and how a
// refusal is told.
#include "domain/json.hpp"
#include "gate/problem.hpp"
#include "gate/rules.hpp"

#include <gtest/gtest.h>

namespace billing {
namespace {

Catalog catalog() {
    auto read = Catalog::read(R"({"stamp":"0000010000000001","default_plan":1,"features":{"a":0,"b":1,"c":2},)"
                              R"("limits":{"api-calls":{"no":0,"period":"month"}},"plans":[)"
                              R"({"no":1,"key":"free","rank":0,"free":true,"features":[0],"limits":{"0":20}},)"
                              R"({"no":2,"key":"pro","rank":2,"free":false,"features":[0,1],"limits":{"0":1000}},)"
                              R"({"no":3,"key":"max","rank":3,"free":false,"features":[0,1,2],"limits":{"0":null}}]})");
    return std::move(read).value();
}

Rules with_plan(std::vector<std::string> keys, bool at_least) {
    Rules rules;
    rules.plans.push_back({std::move(keys), at_least});
    return rules;
}

Rules with_features(std::vector<std::string> keys, bool any) {
    Rules rules;
    rules.features.push_back({std::move(keys), any});
    return rules;
}

TEST(GateRules, PlansByNameAndByRank) { // G8
    const BoundRules named{with_plan({"free", "max"}, false), catalog()};
    EXPECT_EQ(named.of_plan(1).reason, Reason::allowed);
    EXPECT_EQ(named.of_plan(2).reason, Reason::plan_required);
    EXPECT_EQ(named.of_plan(3).reason, Reason::allowed);
    const BoundRules ranked{with_plan({"pro"}, true), catalog()};
    EXPECT_EQ(ranked.of_plan(1).reason, Reason::plan_required);
    EXPECT_EQ(ranked.of_plan(2).reason, Reason::allowed);
    EXPECT_EQ(ranked.of_plan(3).reason, Reason::allowed);
    EXPECT_EQ(ranked.of_plan(77).reason, Reason::plan_required) << "a plan that the catalog does not have";
}

TEST(GateRules, FeaturesAllOrAnyAndOverridesBeatThePlan) { // G9
    const BoundRules all{with_features({"b", "c"}, false), catalog()};
    EXPECT_EQ(all.of_plan(2).reason, Reason::feature_missing);
    EXPECT_EQ(all.of_plan(3).reason, Reason::allowed);
    EXPECT_EQ(all.with_overrides(2, FeatureSet{4}, {}), Reason::allowed);
    EXPECT_EQ(all.with_overrides(3, {}, FeatureSet{2}), Reason::feature_missing);
    const BoundRules any{with_features({"b", "c"}, true), catalog()};
    EXPECT_EQ(any.of_plan(1).reason, Reason::feature_missing);
    EXPECT_EQ(any.of_plan(2).reason, Reason::allowed);
    EXPECT_EQ(any.with_overrides(1, FeatureSet{2}, {}), Reason::allowed);
}

TEST(GateRules, ANameThatTheCatalogLacksRefusesAndIsReported) {
    const BoundRules all{with_features({"a", "gone"}, false), catalog()};
    EXPECT_EQ(all.of_plan(3).reason, Reason::feature_missing) << "not even the largest plan";
    EXPECT_EQ(all.unknown(), std::vector<std::string>{"feature \"gone\""});
    const BoundRules any{with_features({"a", "gone"}, true), catalog()};
    EXPECT_EQ(any.of_plan(1).reason, Reason::allowed);
    const BoundRules plan{with_plan({"gone"}, true), catalog()};
    EXPECT_EQ(plan.of_plan(3).reason, Reason::plan_required);
    Rules rules;
    rules.quotas.push_back({"gone", 1});
    EXPECT_FALSE((BoundRules{rules, catalog()}.quotas()[0].known));
}

const WaysOut k_ways{"https://app.example.com/checkout", "https://app.example.com/portal"};

Decision at_limit(std::uint64_t limit, std::uint64_t remaining, std::uint8_t plan) {
    Decision decision;
    decision.reason = Reason::limit_reached;
    decision.plan_no = plan;
    decision.meter = {true, false, 0, false, limit, remaining, 1'767'225'600, 5};
    return decision;
}

TEST(GateProblem, ALimitNamesTheQuotaAndTheWayOut) { // G10 G19
    Rules rules;
    rules.quotas.push_back({"api-calls", 5});
    const auto plans = catalog();
    const BoundRules bound{rules, plans};
    const auto body = parse_json(problem_body(at_limit(20, 3, 1), rules, &bound, &plans, 402, k_ways));
    ASSERT_TRUE(body.ok());
    const json_t* root = body.value().get();
    EXPECT_EQ(text_member(root, "code"), "LIMIT_API_CALLS");
    EXPECT_EQ(text_member(root, "resetAt"), "2026-01-01T00:00:00Z");
    EXPECT_EQ(integer_member(root, "used"), 17);
    EXPECT_EQ(integer_member(root, "required"), 5);
    EXPECT_EQ(text_member(root, "requiredPlan"), "pro");
    EXPECT_EQ(text_member(root, "upgradeUrl"), "https://app.example.com/checkout");
    EXPECT_EQ(text_member(root, "portalUrl"), std::nullopt) << "nothing is owed";
    const auto top = parse_json(problem_body(at_limit(1000, 3, 3), rules, &bound, &plans, 429, k_ways));
    EXPECT_FALSE(true_member(top.value().get(), "needsUpgrade")) << "nothing is above the largest plan";
    EXPECT_EQ(integer_member(top.value().get(), "status"), 429);
    EXPECT_EQ(text_member(top.value().get(), "upgradeUrl"), std::nullopt);
    const auto unserved = parse_json(problem_body(at_limit(20, 3, 1), rules, &bound, &plans, 402, {}));
    EXPECT_EQ(text_member(unserved.value().get(), "upgradeUrl"), std::nullopt) << "no checkout is served here";
}

TEST(GateProblem, WhoOwesIsShownThePortal) { // G19
    const auto plans = catalog();
    const BoundRules bound{Rules{}, plans};
    for (const Reason reason : {Reason::maintenance, Reason::billing_enforced, Reason::subscription_inactive}) {
        Decision decision;
        decision.reason = reason;
        decision.plan_no = 1;
        const auto body = parse_json(problem_body(decision, Rules{}, &bound, &plans, 402, k_ways));
        ASSERT_TRUE(body.ok());
        EXPECT_EQ(text_member(body.value().get(), "portalUrl"), "https://app.example.com/portal");
        EXPECT_EQ(text_member(body.value().get(), "upgradeUrl"), std::nullopt);
    }
}

TEST(GateProblem, WaitingIsAdvisedOnlyWhereItHelps) { // G19
    EXPECT_EQ(retry_after(at_limit(20, 0, 1), 1'767'225'590), 10);
    EXPECT_EQ(retry_after(at_limit(0, 0, 1), 1'767'225'590), 0) << "a limit of none";
    auto forever = at_limit(20, 0, 1);
    forever.meter.reset = 0;
    EXPECT_EQ(retry_after(forever, 1'767'225'590), 0) << "a lifetime";
    Decision plan;
    plan.reason = Reason::plan_required;
    EXPECT_EQ(retry_after(plan, 0), 0);
}

TEST(GateProblem, RateLimitFieldsAreThoseOfTheDraft) { // G19
    PeriodClock clock;
    std::string room(rate_limit_room("requests"), '?');
    const Meter meter{true, false, 0, false, 20, 3, 1'767'225'600, 1};
    auto fields = rate_limit_fields(meter, "requests", clock.at(PeriodKind::month, 1'767'225'000), room.data());
    EXPECT_EQ(fields.policy, "\"requests\";q=20;w=2678400");
    EXPECT_EQ(fields.limit, "\"requests\";r=3;t=600");
    fields = rate_limit_fields(meter, "requests", clock.at(PeriodKind::month, 1'767'225'600), room.data());
    EXPECT_EQ(fields.limit, "\"requests\";r=3") << "its period ended while the request waited";
    fields = rate_limit_fields(meter, "requests", clock.at(PeriodKind::lifetime, 0), room.data());
    EXPECT_EQ(fields.policy, "\"requests\";q=20");
    const auto most = ~std::uint64_t{0} - 1;
    PeriodClock::Present longest;
    longest.length = longest.left = {
        {';', 'w', '=', '9', '2', '2', '3', '3', '7', '2', '0', '3', '6', '8', '5', '4', '7', '7', '5', '8', '0', '7'},
        22};
    const std::string quota(64, 'q');
    room.assign(rate_limit_room(quota), '?');
    fields = rate_limit_fields({true, false, 0, false, most, most, 0, 1}, quota, longest, room.data());
    EXPECT_LE(fields.policy.size() + fields.limit.size(), room.size()) << "the longest fit";
    EXPECT_FALSE((Meter{true, true, 0, false, 20, 3, 0, 1}.bounded())) << "an unlimited quota has no fields";
}

TEST(GateProblem, TextsAreEscaped) {
    Rules rules;
    rules.features.push_back({{"a\"b\\c\n\x1f"}, false});
    Decision decision;
    decision.reason = Reason::feature_missing;
    const auto body = parse_json(problem_body(decision, rules, nullptr, nullptr, 403, {}));
    ASSERT_TRUE(body.ok());
    EXPECT_EQ(text_member(body.value().get(), "feature"), "a\"b\\c\n\x1f");
    EXPECT_EQ(text_member(body.value().get(), "needsUpgrade"), std::nullopt) << "nothing is known of plans";
}

} // namespace
} // namespace billing
