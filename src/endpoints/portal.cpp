#include "endpoints/portal.hpp"

#include "domain/json.hpp"
#include "endpoints/input.hpp"
#include "endpoints/stripe_answer.hpp"

namespace billing {

namespace {

Response no_customer() {
    return problem(404, "NO_CUSTOMER", "No customer", "This account has bought nothing yet; begin with a checkout");
}

} // namespace

Task<Response> open_portal(std::string account, Services& services, const EndpointSettings& settings, bool redirect) {
    CheckoutStore::Customer customer = co_await services.checkouts.customer_of(account);
    if (!customer.known) {
        co_return try_later("BILLING_UNAVAILABLE", "The account's state cannot be read at the moment");
    }
    if (customer.id.empty()) {
        co_return no_customer();
    }
    Form form;
    form.add("customer", customer.id).add("return_url", settings.public_url + "/");
    // Each click is an intent of its own: the address is good for a few minutes and one visit.
    StripeReply reply =
        co_await services.stripe.post("/v1/billing_portal/sessions", std::move(form), one_time_key("portal"));
    if (reply.refusal == Refusal::missing_customer) {
        co_await services.checkouts.unlink_customer(account, customer.id);
        co_return no_customer();
    }
    if (!reply) {
        co_return stripe_problem(reply);
    }
    const std::string url{text_member(reply.json.get(), "url").value_or("")};
    if (!is_page(url, services.stripe.plain_http())) {
        co_return stripe_problem(refused_reply(Refusal::unreadable));
    }
    co_return session_answer(url, "portalUrl", redirect);
}

Task<Response> portal(Request request, Services& services, const EndpointSettings& settings) {
    if (!services.stripe.configured()) {
        co_return not_configured();
    }
    if (request.account.empty()) {
        co_return no_account();
    }
    if (is_cross_site(request, settings.public_url)) {
        co_return cross_site();
    }
    const bool redirect = settings.redirect || request.is_form();
    co_return co_await open_portal(request.account, services, settings, redirect);
}

} // namespace billing
