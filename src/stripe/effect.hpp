// From an event of Stripe to what is to be done about it. Pure; called by the job that processes events, and by the
// webhook endpoint, which has to know what nobody will process.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "domain/json.hpp"
#include "domain/result.hpp"
#include "stripe/objects.hpp"

namespace billing {

// Events of all other types are stored and left alone.
bool handles_event(std::string_view type) noexcept;
// All that are not.
std::vector<std::string_view> handled_types();

// Why an event is of another world and changes nothing here: of a connected account (Connect), or of the other mode
// than our key, `livemode`. "" for our own.
const char* foreign_event(std::string_view stripe_account, std::optional<bool> event_livemode, bool livemode) noexcept;

struct EventEffect {
    std::string ignored;        // why nothing is to be done; "": the rest holds
    std::string customer;       // whose event it is; "" if the object names nobody
    std::string account;        // whom a checkout session of ours names
    bool subscriptions = false; // the customer's subscriptions are to be looked at
    Json effect;                // for billing.stripe_apply(), which says what the members are
};

// An error: the object is not what the event's type says.
Result<EventEffect> read_effect(const json_t* event);

// One subscription as billing.stripe_apply() wants it.
Json subscription_facts(const StripeSubscription& subscription);

} // namespace billing
