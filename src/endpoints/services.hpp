// What the endpoints of a worker share, and what a location's settings say. Services live as long as the worker;
// settings as long as the configuration that the worker serves.
#pragma once

#include "async/complaint.hpp"
#include "async/reactor.hpp"
#include "async/turns.hpp"
#include "drivers/stripe_api.hpp"
#include "endpoints/checkout_form.hpp"
#include "endpoints/own_pages.hpp"
#include "state/account_documents.hpp"
#include "state/account_store.hpp"
#include "state/checkout_store.hpp"
#include "state/credit_calls.hpp"
#include "state/event_writer.hpp"
#include "state/host_gauges.hpp"
#include "state/table.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace billing {

struct Services {
    Reactor& reactor;
    StripeApi& stripe;
    AccountStore& accounts;
    CheckoutStore& checkouts;
    CreditCalls& credits;
    AccountDocuments& documents;
    EventWriter& events;
    Turns& turns; // one checkout at a time for each account
    Table& table;
    HostGauges& gauges;
    bool livemode;          // of Stripe's key
    std::string_view nginx; // its version
    Complaint webhook_trouble;
};

// What billing_entitlements tells of; "": nothing of it.
struct EntitlementNames {
    std::string limit;   // a quota's, or a window's of it
    std::string feature; // for "previewAllowed"
};

// `billing_account_from`: under which names callers without an identity name their account; "" for none there.
struct AccountFrom {
    std::string body;
    std::string query;
    bool guarded = false; // believed with one of api_tokens, or a certificate
};

struct EndpointSettings {
    std::optional<AccountFrom> account_from;
    PageSettings pages;
    CheckoutOptions checkout;
    MetadataNames metadata;
    QuantityRange packs;                // how many a checkout may name
    QuantityRange seats;                // of a subscription
    std::string default_plan;           // for a checkout that names none; "": it has to
    std::string portal_url;             // of the location that has billing_portal; "" if there is none
    std::string portal_configuration;   // bpc_...; "": the account's default at Stripe
    bool portal_makes_customer = false; // for who has bought nothing yet
    bool redirect = false;              // 303 for everybody, not only for forms
    bool create_accounts = true;        // for who has never been here
    // Who may, by the role that billing_role tells, and by that of account_members where it tells none; both empty:
    // everybody who speaks for the account.
    std::vector<std::string> roles;
    std::vector<std::string> member_roles;
    EntitlementNames entitlements;
    std::vector<std::string> secrets;    // of webhooks
    std::vector<std::string> api_tokens; // of billing_credits_api and billing_account_from
    std::int64_t tolerance_seconds = 300;
};

} // namespace billing
