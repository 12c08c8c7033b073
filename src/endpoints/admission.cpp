#include "endpoints/admission.hpp"

#include "endpoints/own_pages.hpp"

#include "domain/account.hpp"

#include <openssl/crypto.h>

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

// Compared in a time that tells nothing but their lengths.
bool is_one_of(const std::vector<std::string>& tokens, std::string_view token) noexcept {
    bool found = false;
    for (const std::string& known : tokens) {
        found |= known.size() == token.size() && CRYPTO_memcmp(known.data(), token.data(), token.size()) == 0;
    }
    return found;
}

// As who asks says of himself. A refusal: he says it twice, or nonsense.
std::optional<Response> read_named(const Input& input, const AccountFrom& from, Request& request) {
    const std::string_view in_body = from.body.empty() ? std::string_view{} : input.body_text(from.body);
    const std::string_view in_query = from.query.empty() ? std::string_view{} : input.query_text(from.query);
    if (!in_body.empty() && !in_query.empty() && in_body != in_query) {
        return not_yours("account");
    }
    const std::string_view named = in_body.empty() ? in_query : in_body;
    if (!named.empty() && !valid_account_id(named)) {
        return invalid_account();
    }
    request.account = named;
    return std::nullopt;
}

// A refusal where it cannot be told who asks, or nobody does.
std::optional<Response> find_account(const Input& input, const EndpointSettings& settings, Nobody nobody,
                                     Request& request) {
    if (!settings.account_from) {
        return std::nullopt;
    }
    if (auto refusal = read_named(input, *settings.account_from, request)) {
        return refusal;
    }
    return request.account.empty() && nobody == Nobody::refused ? std::optional{no_account()} : std::nullopt;
}

// Before anything is read that the request says.
std::optional<Response> check_caller(const Request& request, const EndpointSettings& settings) {
    if (!settings.account_from) {
        return request.account.empty() ? std::optional{no_account()} : std::nullopt;
    }
    return settings.account_from->guarded && !is_back_end(request, settings) ? std::optional{no_back_end()}
                                                                             : std::nullopt;
}

} // namespace

EndpointSettings for_everybody(const EndpointSettings& settings) {
    EndpointSettings open = settings;
    open.roles.clear();
    open.member_roles.clear();
    return open;
}

bool is_back_end(const Request& request, const EndpointSettings& settings) noexcept {
    constexpr std::string_view k_bearer = "Bearer ";
    const std::string_view field{request.authorization};
    return request.certified ||
           (field.starts_with(k_bearer) && is_one_of(settings.api_tokens, field.substr(k_bearer.size())));
}

Task<Admission> admit(Request& request, Services& services, const EndpointSettings& settings, Nobody nobody) {
    Admission admission;
    admission.refusal = check_caller(request, settings);
    if (admission.refusal) {
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
    admission.refusal = find_account(input.value(), settings, nobody, request);
    if (admission.refusal) {
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
