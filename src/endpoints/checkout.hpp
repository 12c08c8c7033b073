// billing_checkout: a Checkout Session at Stripe for what the account wants to buy. Starting one changes nothing that
// decides: only a verified event does. Runs in the worker's scope, so that a client who leaves does not cut it in the
// middle; any process serves any tab of any account.
#pragma once

#include "async/task.hpp"
#include "endpoints/exchange.hpp"
#include "endpoints/services.hpp"

namespace billing {

// POST {plan | tier | planKey | priceId, interval}, as JSON, form or query. 200 {"url"}, or 303; 400 for what is not
// for sale, 401, 403 (a page of another site), 409 {"currentTier"} for who has a subscription, 503 and 502 for Stripe's
// part.
Task<Response> checkout(Request request, Services& services, const EndpointSettings& settings);

} // namespace billing
