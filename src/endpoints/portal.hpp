// billing_portal: a session of Stripe's Customer Portal, where the account's owner changes card and plan, cancels, and
// finds invoices. What happens there arrives as events.
#pragma once

#include "async/task.hpp"
#include "endpoints/exchange.hpp"
#include "endpoints/services.hpp"

namespace billing {

// POST. 200 {"url"}, or 303; 401, 403 (a page of another site), 404 for an account without a customer, 503 and 502 for
// Stripe's part.
Task<Response> portal(Request request, Services& services, const EndpointSettings& settings);

// The same for who has been let in already. `redirect`: 303.
Task<Response> open_portal(std::string account, Services& services, const EndpointSettings& settings, bool redirect);

} // namespace billing
