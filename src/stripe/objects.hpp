// Stripe's objects as this project sees them: the few fields that matter, out of every layout since 2019. Which layout
// an object has is seen from its shape, new place first, then the old one; null, missing and wrongly typed are all
// absent:
// "" for texts, nullopt for the rest. Pure; used by the jobs which process events and answers.
//
// Times are in seconds since 1970, amounts in the currency's smallest unit. Readers fail on what has no id or says that
// it is something else. Free texts have lost their NUL bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "domain/json.hpp"
#include "domain/result.hpp"

namespace billing {

using StripeTime = std::optional<std::int64_t>; // never 0 or below

class StripeMetadata {
public:
    // The text under that name, or "".
    std::string_view find(std::string_view name) const noexcept;
    const std::vector<std::pair<std::string, std::string>>& all() const noexcept { return all_; }
    void add(std::string name, std::string value) { all_.emplace_back(std::move(name), std::move(value)); }

private:
    std::vector<std::pair<std::string, std::string>> all_;
};

struct StripePeriod {
    StripeTime start;
    StripeTime end;
};

struct StripeSubscriptionItem {
    std::string id;
    std::string price; // or the plan's id, before there were prices
    std::string product;
    std::optional<std::int64_t> quantity; // metered prices have none
    StripePeriod period;                  // since 2025-03-31
};

struct StripeSubscription {
    std::string id;
    std::string customer;
    std::string status; // as Stripe says it; may be one which is not known yet
    std::vector<StripeSubscriptionItem> items;
    bool more_items = false;    // the list was cut: ask for /v1/subscription_items?subscription=
    StripePeriod legacy_period; // of the subscription itself, before 2025-03-31; see period()
    // When it will end, if that is settled: cancel_at, or the end of the period if it is to be cancelled then (flexible
    // billing says the one, classic billing the other).
    StripeTime cancel_at;
    bool pending_cancel = false; // true even if the time is not known
    StripeTime trial_start;
    StripeTime trial_end;
    StripeTime created;
    StripeTime ended_at;
    StripeTime billing_cycle_anchor;
    std::string pause_behavior; // "": collection is not paused. Status says nothing about it.
    StripeTime pause_until;
    std::string latest_invoice;
    std::optional<bool> livemode;
    StripeMetadata metadata;

    // Of the item with that price; else from the earliest start to the latest end of all items; else the old place.
    // Nothing known: keep what was known before.
    StripePeriod period(std::string_view price = {}) const;
};

struct StripeInvoiceLine {
    std::string price;
    std::string subscription;
    StripePeriod period; // of the service
    bool proration = false;
    bool of_subscription = true; // false: a one-off item
    std::int64_t amount = 0;
    std::optional<std::int64_t> quantity;
};

struct StripeInvoice {
    std::string id; // "" in invoice.upcoming
    std::string customer;
    std::string subscription;
    std::string billing_reason;
    std::string status;
    bool paid = false; // by status
    std::int64_t attempt_count = 0;
    StripeTime next_payment_attempt;
    StripeTime created;
    std::int64_t amount_paid = 0;
    std::int64_t amount_due = 0;
    std::string currency;
    std::string payment_intent; // old place, or of an expanded payment
    std::string charge;
    std::optional<bool> livemode;
    StripeMetadata subscription_metadata; // as it was when the invoice was made
    std::vector<StripeInvoiceLine> lines;
    bool more_lines = false; // the list was cut: ask for /v1/invoices/<id>/lines

    // The line which pays for the coming period: of those which are no proration and belong to a subscription, the one
    // whose period ends last (metered lines are about the past). Of that price only, if one is given. nullptr: none.
    const StripeInvoiceLine* service_line(std::string_view price = {}) const noexcept;
};

struct StripeCheckout {
    std::string id;
    std::string mode;           // payment, setup, subscription
    std::string status;         // open, complete, expired
    std::string payment_status; // paid, unpaid, no_payment_required
    std::string customer;
    std::string subscription;
    std::string payment_intent;
    std::string invoice;
    std::string client_reference_id;
    std::string url; // bearer: never log it
    std::optional<std::int64_t> amount_total;
    std::string currency;
    StripeTime created;
    StripeTime expires_at;
    std::optional<bool> livemode;
    StripeMetadata metadata;

    // Something may be granted: paid, or nothing to pay. Not so for a session which does not say.
    bool settled() const noexcept { return payment_status == "paid" || payment_status == "no_payment_required"; }
};

struct StripeCustomer {
    std::string id;
    std::string email;
    std::string name;
    bool deleted = false;
    std::optional<bool> livemode;
    StripeMetadata metadata;
};

struct StripeRefund {
    std::string id;
    std::string charge;
    std::string payment_intent;
    std::int64_t amount = 0;
    std::string currency;
    std::string status; // pending, succeeded, failed, canceled, requires_action
};

struct StripeCharge {
    std::string id;
    std::string customer;
    std::string payment_intent;
    std::string invoice; // until 2025-03-31
    std::int64_t amount = 0;
    std::int64_t amount_refunded = 0; // of all refunds together
    bool refunded = false;            // wholly
    bool disputed = false;
    std::string currency;
    std::vector<StripeRefund> refunds; // listed only when expanded, or long ago
    StripeMetadata metadata;
};

struct StripeDispute {
    std::string id;
    std::string charge;
    std::string payment_intent;
    std::string status; // ..., won, lost
    std::string reason;
    std::int64_t amount = 0;
    std::string currency;
};

// entitlements.active_entitlement_summary
struct StripeEntitlements {
    std::string customer;
    std::vector<std::string> lookup_keys;
    bool more = false; // ask for /v1/entitlements/active_entitlements?customer=
};

// A page of a list; the elements are borrowed from it.
struct StripePage {
    std::vector<const json_t*> data;
    bool more = false;
    std::string last_id; // starting_after of the next page
};

Result<StripeSubscription> read_subscription(const json_t* object);
StripeSubscriptionItem read_subscription_item(const json_t* object);
Result<StripeInvoice> read_invoice(const json_t* object);
StripeInvoiceLine read_invoice_line(const json_t* object);
Result<StripeCheckout> read_checkout(const json_t* object);
Result<StripeCustomer> read_customer(const json_t* object);
Result<StripeCharge> read_charge(const json_t* object);
Result<StripeRefund> read_refund(const json_t* object);
Result<StripeDispute> read_dispute(const json_t* object);
Result<StripeEntitlements> read_entitlements(const json_t* object);
Result<StripePage> read_page(const json_t* object);

} // namespace billing
