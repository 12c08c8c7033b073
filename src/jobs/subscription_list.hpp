// A look at Stripe: all subscriptions of a customer, whatever their status, as they are now. Called by the jobs that
// bring accounts to Stripe's state.
#pragma once

#include "jobs/stripe_look.hpp"

namespace billing {

using SubscriptionList = StripeLook; // json: an array of subscription_facts()

// All pages, in bounded time: at most 50 of a list, and none asked for after 25 s.
Task<SubscriptionList> list_subscriptions(Reactor& reactor, StripeApi& stripe, std::string customer);

} // namespace billing
