// billing_settings: the account's own switches, for its own page: overage on or off, where its plan leaves that open.
#pragma once

#include "async/task.hpp"
#include "endpoints/exchange.hpp"
#include "endpoints/services.hpp"

namespace billing {

// GET tells everybody who speaks for the account: 200 {"overage", "switchable", "credits"}. POST {"overage": true |
// false} sets it, for those who may (see admission.hpp), and answers the same; 400, 401, 403, 409 where the plan does
// not leave it open, 503.
Task<Response> switches(Request request, Services& services, const EndpointSettings& settings);

} // namespace billing
