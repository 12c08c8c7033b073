// billing_upgrade: a plan without paying, for development. nginx -t refuses it without billing_dev_mode and beside a
// live key, PostgreSQL where a live event was ever taken, and this handler to all who are not on this machine.
#pragma once

#include "async/task.hpp"
#include "endpoints/exchange.hpp"
#include "endpoints/services.hpp"

namespace billing {

// POST {plan | tier | planKey}. 200 {"ok":true}; 400 for an unknown plan, 401, 403 (see admission.hpp), 404 from
// elsewhere, 503.
Task<Response> upgrade(Request request, Services& services, const EndpointSettings& settings);

} // namespace billing
