#include "endpoints/admission.hpp"

#include "endpoints/own_pages.hpp"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

namespace billing {

namespace {

Response not_yours(std::string_view what) {
    return problem(403, "NOT_YOURS", "Not yours",
                   std::string{"The "} + std::string{what} + " in the request is not that of the account that asks");
}

Response role_required() {
    return problem(403, "ROLE_REQUIRED", "Role required", "Your role in this account may not change its billing");
}

// Ids that a client may write beside what it wants, as older front ends do.
bool names_another(const Input& input, const Request& request) {
    for (const char* name : {"user_id", "userId", "account_id", "accountId"}) {
        const std::string_view id = input.text({name});
        if (!id.empty() && id != request.account && id != request.subject) {
            return true;
        }
    }
    return false;
}

std::string_view customer_named(const Input& input) { return input.text({"customer_id", "customerId", "customer"}); }

// Nothing: the role will do, or none is asked for.
Task<std::optional<Response>> check_role(const Request& request, Services& services, const EndpointSettings& settings) {
    const bool asks_members = request.role.empty() && !settings.member_roles.empty() && !request.subject.empty();
    const auto& enough = asks_members ? settings.member_roles : settings.roles;
    if (settings.roles.empty() && settings.member_roles.empty()) {
        co_return std::nullopt;
    }
    std::string role = request.role;
    if (asks_members) {
        std::optional<std::string> stored = co_await services.checkouts.member_role(request.account, request.subject);
        if (!stored) {
            co_return state_unavailable();
        }
        role = std::move(*stored);
    }
    const bool may = std::find(enough.begin(), enough.end(), role) != enough.end();
    co_return may ? std::nullopt : std::optional{role_required()};
}

Task<std::optional<Response>> check_customer(std::string named, const Request& request, Services& services) {
    if (named.empty()) {
        co_return std::nullopt;
    }
    CheckoutStore::Customer own = co_await services.checkouts.customer_of(request.account);
    if (!own.known) {
        co_return state_unavailable();
    }
    co_return own.id == named ? std::nullopt : std::optional{not_yours("customer")};
}

} // namespace

EndpointSettings for_everybody(const EndpointSettings& settings) {
    EndpointSettings open = settings;
    open.roles.clear();
    open.member_roles.clear();
    return open;
}

Task<Admission> admit(const Request& request, Services& services, const EndpointSettings& settings) {
    Admission admission;
    if (request.account.empty()) {
        admission.refusal = no_account();
        co_return admission;
    }
    if (is_cross_site(request, settings.pages)) {
        admission.refusal = cross_site();
        co_return admission;
    }
    auto input = Input::read(request);
    if (!input) {
        admission.refusal = problem(400, "INVALID_BODY", "Invalid request", input.error());
        co_return admission;
    }
    if (names_another(input.value(), request)) {
        admission.refusal = not_yours("account");
        co_return admission;
    }
    admission.refusal = co_await check_role(request, services, settings);
    if (!admission.refusal) {
        const std::string customer{customer_named(input.value())};
        admission.refusal = co_await check_customer(customer, request, services);
    }
    admission.input = std::move(input).value();
    co_return admission;
}

} // namespace billing
