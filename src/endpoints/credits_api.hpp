// billing_credits_api: credits for the application's own back ends, as a job that takes some, works for an hour, and
// gives them back when it fails. Never for the public: who asks has a token of the operator's, or a certificate that
// nginx has verified.
#pragma once

#include "async/task.hpp"
#include "endpoints/exchange.hpp"
#include "endpoints/services.hpp"

namespace billing {

// POST .../check | take | commit | refund | grant | adjust with {account, credit, quantity, key, hold, job, reason},
// and .../stock with {account, stock, current, key, reason}.
// 200 with what PostgreSQL says; 400 for what cannot be meant so, 401, 402 for too few credits, 404 for an account, an
// action or a taking that there is not, 409 for a taking that was given back, 503.
Task<Response> credits_api(Request request, Services& services, const EndpointSettings& settings);

} // namespace billing
