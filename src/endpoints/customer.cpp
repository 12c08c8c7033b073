#include "endpoints/customer.hpp"

#include "endpoints/checkout_form.hpp"
#include "endpoints/stripe_answer.hpp"
#include "stripe/objects.hpp"

#include <utility>

namespace billing {

// All of the form is stored with the account: who asks at the same time sends the same under the same key.
Task<MadeCustomer> make_customer(std::string account, CustomerPlan plan, std::string metadata_name, Services& services,
                                 std::int64_t until_ms) {
    MadeCustomer made;
    Form form;
    if (!plan.email.empty()) {
        form.add("email", plan.email);
    }
    if (!plan.name.empty()) {
        form.add("name", plan.name);
    }
    form.add("metadata", metadata_name, account);
    const std::string key = idempotency_key(plan.intent, form);
    StripeReply reply = co_await services.stripe.post("/v1/customers", std::move(form), key, until_ms);
    if (!reply) {
        made.refusal = co_await give_up(plan.intent, reply, services);
        co_return made;
    }
    const auto customer = read_customer(reply.json.get());
    if (!customer) {
        made.refusal = stripe_problem(refused_reply(Refusal::unreadable));
        co_return made;
    }
    made.id = co_await services.checkouts.link_customer(account, customer.value().id);
    if (made.id.empty()) {
        made.refusal = state_unavailable();
    }
    co_return made;
}

Task<Response> give_up(std::string intent, const StripeReply& reply, Services& services) {
    Response response = stripe_problem(reply);
    if (reply.replayed || (reply.kind == ReplyKind::refused && !reply.uncertain)) {
        co_await services.checkouts.failed(std::move(intent));
    }
    co_return response;
}

} // namespace billing
