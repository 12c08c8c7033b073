// Who may use checkout and portal. The account comes from billing_account alone; what a client writes about itself is
// only compared with it.
#pragma once

#include "async/task.hpp"
#include "endpoints/exchange.hpp"
#include "endpoints/input.hpp"
#include "endpoints/services.hpp"

#include <optional>

namespace billing {

struct Admission {
    Input input;
    std::optional<Response> refusal; // 400, 401, 403, 503; then there is no input
};

// Who may only look needs no role.
EndpointSettings for_everybody(const EndpointSettings& settings);

// A form of another site, somebody without the role that is asked for, another account's or customer's id in body or
// query: all refused.
Task<Admission> admit(const Request& request, Services& services, const EndpointSettings& settings);

} // namespace billing
