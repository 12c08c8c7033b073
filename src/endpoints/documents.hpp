// billing_status and billing_entitlements: what an account's own page and application read about it.
#pragma once

#include "async/task.hpp"
#include "endpoints/exchange.hpp"
#include "endpoints/services.hpp"

namespace billing {

// GET, for everybody who speaks for the account: 200 with the document; 401, 403 (an account that is not known, where
// strangers are refused, or not one's own), 503.
Task<Response> status_document(Request request, Services& services, const EndpointSettings& settings);
Task<Response> entitlements_document(Request request, Services& services, const EndpointSettings& settings);

} // namespace billing
