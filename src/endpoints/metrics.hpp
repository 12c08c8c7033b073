// billing_metrics: how the host is, for Prometheus. Any worker answers for all of them. For the inside: it tells
// nothing of an account, but how much is going on.
#pragma once

#include "async/task.hpp"
#include "endpoints/exchange.hpp"
#include "endpoints/services.hpp"

namespace billing {

// GET. 200, whatever is missing; within about a second.
Task<Response> metrics(Request request, Services& services, const EndpointSettings& settings);

} // namespace billing
