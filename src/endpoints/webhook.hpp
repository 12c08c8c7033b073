// billing_webhook: takes Stripe's events. A verified event is in PostgreSQL before the 200, once; what it changes is
// the matter of jobs/inbox, on whichever host.
#pragma once

#include "async/task.hpp"
#include "endpoints/exchange.hpp"
#include "endpoints/services.hpp"

#include <cstddef>

namespace billing {

// Longest body, bytes. Events with long invoices have a few hundred thousand.
inline constexpr std::size_t k_max_event_bytes = std::size_t{512} * 1024;

// 200 {"received":true}, for a repeat with "duplicate":true; 400 for what is not signed by a known secret within the
// tolerance, or no event; 503 where it cannot be stored, so that Stripe sends it again.
Task<Response> webhook(Request request, Services& services, const EndpointSettings& settings);

} // namespace billing
