// What the endpoints of a worker share, and what a location's settings say. Services live as long as the worker;
// settings as long as the configuration that the worker serves.
#pragma once

#include "async/complaint.hpp"
#include "async/reactor.hpp"
#include "async/turns.hpp"
#include "drivers/stripe_api.hpp"
#include "state/account_store.hpp"
#include "state/checkout_store.hpp"
#include "state/event_inbox.hpp"
#include "state/host_gauges.hpp"
#include "state/table.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace billing {

struct Services {
    Reactor& reactor;
    StripeApi& stripe;
    AccountStore& accounts;
    CheckoutStore& checkouts;
    EventInbox& inbox;
    Turns& turns; // one checkout at a time for each account
    Table& table;
    HostGauges& gauges;
    bool livemode;          // of Stripe's key
    std::string_view nginx; // its version
    Complaint webhook_trouble;
};

struct EndpointSettings {
    std::string public_url;  // of our pages, as https://app.example.com, without a slash at its end
    std::string success_url; // whole; may hold {CHECKOUT_SESSION_ID}
    std::string cancel_url;
    std::string portal_url;           // of the location that has billing_portal; "" if there is none
    bool redirect = false;            // 303 for everybody, not only for forms
    bool create_accounts = true;      // for who has never been here
    std::vector<std::string> secrets; // of webhooks
    std::int64_t tolerance_seconds = 300;
};

} // namespace billing
