// billing_portal: a session of Stripe's Customer Portal, where the account's owner changes card and plan, cancels, and
// finds invoices. What happens there arrives as events.
#pragma once

#include "async/task.hpp"
#include "endpoints/exchange.hpp"
#include "endpoints/services.hpp"

#include <cstdint>
#include <string>

namespace billing {

// POST {returnUrl}. 200 {"url"}, or 303; 401, 403 (see admission.hpp), 404 for an account without a customer where none
// is made, 503 and 502 for Stripe's part.
Task<Response> portal(Request request, Services& services, const EndpointSettings& settings);

// The same for who has been let in already, and for a customer that may be gone: then 404. `back`: where its way out
// leads. `redirect`: 303. until_ms: of the reactor's clock, when its caller's patience ends.
Task<Response> open_portal(std::string customer, std::string back, Services& services, const EndpointSettings& settings,
                           bool redirect, std::int64_t until_ms);

} // namespace billing
