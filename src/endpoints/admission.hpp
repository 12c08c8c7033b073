// Who may use checkout and portal. The account comes from billing_account alone, and what a client writes about itself
// is only compared with it, but where billing_account_from believes it.
#pragma once

#include "async/task.hpp"
#include "endpoints/exchange.hpp"
#include "endpoints/input.hpp"
#include "endpoints/services.hpp"

#include <cstdint>
#include <optional>

namespace billing {

struct Admission {
    Input input;
    std::optional<Response> refusal; // 400, 401, 403, 503; then there is no input
};

// Who may only look needs no role.
EndpointSettings for_everybody(const EndpointSettings& settings);

// The application's own back end: it has one of the tokens, or a certificate that nginx has verified.
bool is_back_end(const Request& request, const EndpointSettings& settings) noexcept;

enum class Nobody : std::uint8_t { refused, admitted };

// A form of another site, somebody without the role that is asked for, another account's or customer's id in body or
// query: all refused. With billing_account_from it fills in the request's account; only there may it stay empty, where
// nobody is admitted.
Task<Admission> admit(Request& request, Services& services, const EndpointSettings& settings,
                      Nobody nobody = Nobody::refused);

} // namespace billing
