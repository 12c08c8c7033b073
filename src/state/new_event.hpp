// What is stored of an event beside its bytes, and whether anybody has to process it. Pure; called by the webhook
// endpoint and by the pass that looks for events which never came.
#pragma once

#include "stripe/event.hpp"

#include <cstdint>
#include <optional>
#include <string>

namespace billing {

// An event as it was delivered: the facts of its head.
struct NewEvent {
    std::string stripe_account; // Connect: whose event it is; "" for our own
    std::string id;
    std::string type;
    std::string api_version; // "" if it does not say
    std::string customer;    // "" if it names none
    std::optional<bool> livemode;
    std::optional<std::int64_t> created; // unix seconds
    std::string ignored;                 // why nothing is to be done; "": the job is to process it
};

// `livemode`: of our own key.
NewEvent new_event(const EventHead& head, bool livemode);

} // namespace billing
