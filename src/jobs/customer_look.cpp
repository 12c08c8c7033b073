#include "jobs/customer_look.hpp"

#include "jobs/subscription_list.hpp"

#include <utility>

namespace billing {

namespace {

Looked without(Looked::Outcome outcome, std::string problem) {
    Looked looked;
    looked.outcome = outcome;
    looked.problem = std::move(problem);
    return looked;
}

Looked unseen(const SubscriptionList& seen) {
    switch (seen.outcome) {
    case SubscriptionList::Outcome::ok:
        return without(Looked::Outcome::missing, "Stripe does not know its customer");
    case SubscriptionList::Outcome::later:
        return without(Looked::Outcome::later, seen.problem);
    case SubscriptionList::Outcome::credentials:
        return without(Looked::Outcome::refused, "the secret key may not list subscriptions");
    case SubscriptionList::Outcome::failed:
        break;
    }
    return without(Looked::Outcome::failed, seen.problem);
}

} // namespace

CustomerLook::CustomerLook(Reactor& reactor, Postgres& postgres, StripeApi& stripe, LookSettings settings)
    : reactor_(reactor), stripe_(stripe), settings_(std::move(settings)), queue_(reactor, postgres), store_(postgres) {}

Task<Looked> CustomerLook::run(LinkedCustomer whose) {
    std::optional<std::int64_t> ticket;
    if (!settings_.dry) {
        // The ticket is taken before the look begins, as the inbox does it.
        CustomerTicket taken = co_await queue_.ticket(whose.customer, whose.account, "");
        if (taken.outcome == CustomerTicket::Outcome::unanswered) { // somebody may hold its row
            co_return without(Looked::Outcome::failed, "PostgreSQL did not answer");
        }
        if (taken.outcome != CustomerTicket::Outcome::known || taken.former) {
            co_return without(Looked::Outcome::failed, "its link has changed meanwhile");
        }
        ticket = taken.ticket;
    }
    SubscriptionList seen = co_await list_subscriptions(reactor_, stripe_, whose.customer);
    if (seen.outcome != SubscriptionList::Outcome::ok || seen.missing) {
        co_return unseen(seen);
    }
    LookToApply look;
    look.whose = std::move(whose);
    look.ticket = ticket;
    look.subscriptions = std::move(seen.json);
    look.why = settings_.why;
    look.payment_policy = settings_.payment_policy;
    look.grace_seconds = settings_.grace_seconds;
    look.actor = settings_.actor;
    Asked<Json> applied = co_await store_.apply_look(look);
    if (!applied) {
        const bool refused = applied.outcome == Asked<Json>::Outcome::refused;
        co_return without(refused ? Looked::Outcome::failed : Looked::Outcome::later, applied.problem);
    }
    Looked looked;
    looked.outcome = Looked::Outcome::ok;
    looked.answer = std::move(applied.value);
    co_return looked;
}

} // namespace billing
