// From an event of Stripe to what is to be done about it. Pure; called by the job that processes events, and by the
// webhook endpoint, which has to know what nobody will process.
#pragma once

#include <cstdint>
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

// What an event is about besides subscriptions: only as Stripe has it now does it count.
enum class LookAt : std::uint8_t {
    nothing,
    customer,
    entitlements, // of the customer
    charge,       // and all of its refunds
    dispute,      // and its charge
};

struct EventEffect {
    std::string ignored;        // why nothing is to be done; "": the rest holds
    std::string customer;       // whose event it is; "" if the object names nobody
    std::string account;        // whom a checkout session of ours names
    std::string payment;        // the payment intent that it is about
    std::string charge;         // the charge that it is about
    std::string dispute;        // the dispute that it is about
    std::string cut_invoice;    // the event shows only the first lines of this invoice; see put_invoice_lines()
    bool subscriptions = false; // the customer's subscriptions are to be looked at
    LookAt look = LookAt::nothing;
    Json effect; // for billing.stripe_apply(), which says what the members are; "seen" is what the look saw
};

// An error: the object is not what the event's type says.
Result<EventEffect> read_effect(const json_t* event);

// All lines of the event's cut_invoice, in place of those that it shows.
void put_invoice_lines(EventEffect& into, std::vector<StripeInvoiceLine> lines);

// What looks saw, as billing.stripe_apply() wants it: one subscription, a customer, a charge, a dispute.
Json subscription_facts(const StripeSubscription& subscription);
Json customer_facts(const StripeCustomer& customer);
Json charge_facts(const StripeCharge& charge);
Json dispute_facts(const StripeDispute& dispute, const StripeCharge& charge);

} // namespace billing
