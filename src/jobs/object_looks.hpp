// Looks at Stripe for what is no subscription: whatever an event was about, as it is now. Called by the jobs that bring
// accounts to Stripe's state.
#pragma once

#include "jobs/stripe_look.hpp"
#include "stripe/effect.hpp"

namespace billing {

// What the event is about, with `customer` for what is asked for by customer. json: what stands under "seen" in the
// effect; "" where there is nothing to look at, or where the customer is no more.
Task<StripeLook> look_at(Reactor& reactor, StripeApi& stripe, const EventEffect& effect, std::string customer);

// The lines that the event does not show of its cut_invoice; they are put into the effect.
Task<StripeLook> look_at_lines(Reactor& reactor, StripeApi& stripe, EventEffect& effect);

// Whose charge it is. json: the customer's id itself, or "": nobody's.
Task<StripeLook> customer_of_charge(Reactor& reactor, StripeApi& stripe, std::string charge);

} // namespace billing
