// A look at Stripe: all subscriptions of a customer, whatever their status, as they are now. Called by the jobs that
// bring accounts to Stripe's state.
#pragma once

#include "async/task.hpp"
#include "drivers/stripe_api.hpp"

#include <cstdint>
#include <string>

namespace billing {

struct SubscriptionList {
    enum class Outcome : std::uint8_t {
        ok,
        later,       // Stripe could not be reached, or was too slow
        credentials, // the key may not do this
        failed,      // an answer that cannot be right: another look will hardly bring a better one
    };
    Outcome outcome = Outcome::ok;
    std::string problem;  // unless ok: what, fit for the log
    std::string json;     // of ok: an array of subscription_facts()
    bool missing = false; // of ok: Stripe does not know the customer, who so has none
};

// All pages, in bounded time: at most 50 of a list, and none asked for after 25 s.
Task<SubscriptionList> list_subscriptions(Reactor& reactor, StripeApi& stripe, std::string customer);

} // namespace billing
