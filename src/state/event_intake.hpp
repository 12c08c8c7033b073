// What is stored of an event, and whether anybody has to process it. Pure; called by the webhook endpoint and by the
// pass that looks for events which never came.
#pragma once

#include "state/event_inbox.hpp"
#include "stripe/event.hpp"

namespace billing {

// `livemode`: of our own key.
NewEvent new_event(const EventHead& head, bool livemode);

} // namespace billing
