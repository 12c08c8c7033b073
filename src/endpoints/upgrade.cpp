#include "endpoints/upgrade.hpp"

#include "domain/json.hpp"
#include "endpoints/admission.hpp"

namespace billing {

namespace {

Response answer(PlanSet outcome) {
    const Json body{json_object()};
    switch (outcome) {
    case PlanSet::ok:
        json_object_set_new(body.get(), "ok", json_true());
        return json_response(200, body.get());
    case PlanSet::unknown_plan:
        return problem(400, "UNKNOWN_PLAN", "Unknown plan", "Write plan, tier or planKey of the catalog");
    case PlanSet::unknown_account:
        return problem(403, "UNKNOWN_ACCOUNT", "Unknown account", "This account is not known here");
    case PlanSet::live:
        return problem(403, "LIVE", "Not for development", "This database has taken live events");
    case PlanSet::unavailable:
        break;
    }
    return state_unavailable();
}

} // namespace

Task<Response> upgrade(Request request, Services& services, const EndpointSettings& settings) {
    if (!request.is_local) {
        co_return not_found();
    }
    Admission admission = co_await admit(request, services, settings);
    if (admission.refusal) {
        co_return *admission.refusal;
    }
    const std::string plan{admission.input.text({"plan", "tier", "planKey"})};
    PlanSet set = co_await services.checkouts.set_plan(request.account, plan);
    if (set == PlanSet::unknown_account && settings.create_accounts) {
        Fetched fetched = co_await services.accounts.fetch(request.account, AccountStore::Mode::create);
        if (fetched != Fetched::unavailable) {
            set = co_await services.checkouts.set_plan(request.account, plan);
        }
    }
    co_return answer(set);
}

} // namespace billing
