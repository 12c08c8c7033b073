#include "endpoints/portal.hpp"

#include "domain/json.hpp"
#include "endpoints/admission.hpp"
#include "endpoints/customer.hpp"
#include "endpoints/stripe_answer.hpp"

#include <utility>

namespace billing {

namespace {

constexpr std::int64_t k_patience_ms = 12'000; // for all calls together

// The word of `error` is one that applications ask for (C9).
Response no_customer() {
    const Json body = problem_members(404, "NO_CUSTOMER", "No customer",
                                      "This account has bought nothing yet; begin with a checkout");
    put_member(body.get(), "error", "no_customer");
    Response response = problem_response(404, body.get());
    response.code = "NO_CUSTOMER";
    return response;
}

// As CheckoutStart for a checkout: the customer in force, or the way to one.
Task<CheckoutStore::CustomerStart> begin(const Request& request, Services& services, const EndpointSettings& settings) {
    using Outcome = CheckoutStore::CustomerStart::Outcome;
    Contact contact{request.email, request.name};
    CheckoutStore::CustomerStart start = co_await services.checkouts.begin_customer(request.account, contact);
    if (start.outcome != Outcome::unknown_account || !settings.create_accounts) {
        co_return start;
    }
    Fetched fetched = co_await services.accounts.fetch(request.account, AccountStore::Mode::create);
    if (fetched != Fetched::unavailable) {
        start = co_await services.checkouts.begin_customer(request.account, contact);
    }
    co_return start;
}

Task<MadeCustomer> find_or_make(const Request& request, Services& services, const EndpointSettings& settings,
                                std::int64_t until_ms) {
    using Outcome = CheckoutStore::CustomerStart::Outcome;
    MadeCustomer made;
    CheckoutStore::CustomerStart start = co_await begin(request, services, settings);
    if (start.outcome == Outcome::unavailable) {
        made.refusal = state_unavailable();
    } else if (start.outcome == Outcome::unknown_account) {
        made.refusal = no_customer();
    } else if (!start.id.empty()) {
        made.id = std::move(start.id);
    } else {
        made = co_await make_customer(request.account, std::move(start.plan), settings.metadata.account, services,
                                      until_ms);
    }
    co_return made;
}

Task<MadeCustomer> find(const Request& request, Services& services) {
    MadeCustomer found;
    CheckoutStore::Customer customer = co_await services.checkouts.customer_of(request.account);
    if (!customer.known) {
        found.refusal = state_unavailable();
    } else if (customer.id.empty()) {
        found.refusal = no_customer();
    }
    found.id = std::move(customer.id);
    co_return found;
}

// What Stripe says of the call. Each click is an intent of its own: the address is good for a few minutes and one
// visit.
Task<StripeReply> ask(std::string customer, std::string back, Services& services, const EndpointSettings& settings,
                      std::int64_t until_ms) {
    Form form;
    form.add("customer", customer).add("return_url", back);
    if (!settings.portal_configuration.empty()) {
        form.add("configuration", settings.portal_configuration);
    }
    const std::string key = one_time_key("portal");
    co_return co_await services.stripe.post("/v1/billing_portal/sessions", std::move(form), key, until_ms);
}

Response answer(const StripeReply& reply, Services& services, bool redirect) {
    if (!reply) {
        return stripe_problem(reply);
    }
    const std::string url{text_member(reply.json.get(), "url").value_or("")};
    return is_page(url, services.stripe.plain_http()) ? session_answer(url, "portalUrl", redirect)
                                                      : stripe_problem(refused_reply(Refusal::unreadable));
}

} // namespace

Task<Response> open_portal(std::string customer, std::string back, Services& services, const EndpointSettings& settings,
                           bool redirect, std::int64_t until_ms) {
    if (customer.empty()) {
        co_return no_customer();
    }
    StripeReply reply = co_await ask(std::move(customer), std::move(back), services, settings, until_ms);
    co_return reply.refusal == Refusal::missing_customer ? no_customer() : answer(reply, services, redirect);
}

Task<Response> portal(Request request, Services& services, const EndpointSettings& settings) {
    if (!services.stripe.configured()) {
        co_return not_configured();
    }
    Admission admission = co_await admit(request, services, settings);
    if (admission.refusal) {
        co_return *admission.refusal;
    }
    const ReturnPages pages = return_pages(admission.input.text({"returnUrl"}), request.origin, settings.pages);
    const bool redirect = settings.redirect || request.is_form();
    const std::int64_t until_ms = services.reactor.now_ms() + k_patience_ms;
    MadeCustomer customer;
    for (int round = 0; round < 2; ++round) {
        if (settings.portal_makes_customer) {
            customer = co_await find_or_make(request, services, settings, until_ms);
        } else {
            customer = co_await find(request, services);
        }
        if (customer.refusal) {
            co_return *customer.refusal;
        }
        StripeReply reply = co_await ask(customer.id, pages.back, services, settings, until_ms);
        if (reply.refusal != Refusal::missing_customer) {
            co_return answer(reply, services, redirect);
        }
        // Deleted at Stripe, and its event is still on the way.
        Unlinked unlinked = co_await services.checkouts.unlink_customer(request.account, customer.id);
        if (unlinked != Unlinked::gone) {
            co_return unlinked == Unlinked::live ? stripe_problem(reply) : state_unavailable();
        }
    }
    co_return no_customer();
}

} // namespace billing
