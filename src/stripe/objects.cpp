// Everything but invoices, which have a file of their own.
#include "stripe/objects.hpp"

#include <algorithm>

#include "stripe/fields.hpp"

namespace billing {

using namespace fields;

namespace {

void widen(StripePeriod& whole, const StripePeriod& part) noexcept {
    if (part.start && (!whole.start || *part.start < *whole.start))
        whole.start = part.start;
    if (part.end && (!whole.end || *part.end > *whole.end))
        whole.end = part.end;
}

void read_items(const json_t* object, StripeSubscription& into) {
    std::size_t index = 0;
    const json_t* item = nullptr;
    json_array_foreach(list_data(object, "items"), index, item) {
        if (json_is_object(item))
            into.items.push_back(read_subscription_item(item));
    }
    into.more_items = list_cut(object, "items");
    const std::string plan = id(object, "plan");
    if (!into.items.empty() || plan.empty())
        return;
    StripeSubscriptionItem only; // a subscription of one plan, as they once were
    only.price = plan;
    only.product = id(child(object, "plan"), "product");
    only.quantity = integer_member(object, "quantity");
    into.items.push_back(std::move(only));
}

} // namespace

StripePeriod StripeSubscription::period(std::string_view price) const {
    StripePeriod whole;
    for (const StripeSubscriptionItem& item : items) {
        if (!price.empty() && item.price == price && item.period.end)
            return item.period;
        widen(whole, item.period);
    }
    return whole.end ? whole : legacy_period;
}

StripeSubscriptionItem read_subscription_item(const json_t* object) {
    StripeSubscriptionItem item;
    item.id = text(object, "id");
    item.price = price(object);
    const json_t* const priced = child(object, "price");
    item.product = id(priced ? priced : child(object, "plan"), "product");
    item.quantity = integer_member(object, "quantity");
    item.period = period(object, "current_period_start", "current_period_end");
    return item;
}

Result<StripeSubscription> read_subscription(const json_t* object) {
    if (auto checked = check(object, "subscription"); !checked)
        return Error{checked.error()};
    StripeSubscription out;
    out.id = text(object, "id");
    out.customer = id(object, "customer");
    out.status = text(object, "status");
    read_items(object, out);
    out.legacy_period = fields::period(object, "current_period_start", "current_period_end");
    out.cancel_at = time(object, "cancel_at");
    const bool at_period_end = true_member(object, "cancel_at_period_end");
    out.pending_cancel = at_period_end || out.cancel_at;
    if (at_period_end && !out.cancel_at)
        out.cancel_at = out.period().end;
    out.trial_start = time(object, "trial_start");
    out.trial_end = time(object, "trial_end");
    out.created = time(object, "created");
    out.ended_at = time(object, "ended_at");
    out.billing_cycle_anchor = time(object, "billing_cycle_anchor");
    const json_t* const pause = child(object, "pause_collection");
    out.pause_behavior = text(pause, "behavior");
    out.pause_until = time(pause, "resumes_at");
    out.latest_invoice = id(object, "latest_invoice");
    out.livemode = flag(object, "livemode");
    out.metadata = metadata(object, "metadata");
    return out;
}

Result<StripeCheckout> read_checkout(const json_t* object) {
    if (auto checked = check(object, "checkout.session"); !checked)
        return Error{checked.error()};
    StripeCheckout out;
    out.id = text(object, "id");
    out.mode = text(object, "mode");
    out.status = text(object, "status");
    out.payment_status = text(object, "payment_status");
    out.customer = id(object, "customer");
    out.subscription = id(object, "subscription");
    out.payment_intent = id(object, "payment_intent");
    out.invoice = id(object, "invoice");
    out.client_reference_id = text(object, "client_reference_id");
    out.url = text(object, "url");
    out.amount_total = integer_member(object, "amount_total");
    out.currency = text(object, "currency");
    out.created = time(object, "created");
    out.expires_at = time(object, "expires_at");
    out.livemode = flag(object, "livemode");
    out.metadata = metadata(object, "metadata");
    return out;
}

Result<StripeCustomer> read_customer(const json_t* object) {
    if (auto checked = check(object, "customer"); !checked)
        return Error{checked.error()};
    StripeCustomer out;
    out.id = text(object, "id");
    out.email = text(object, "email");
    out.name = text(object, "name");
    out.deleted = true_member(object, "deleted");
    out.livemode = flag(object, "livemode");
    out.metadata = metadata(object, "metadata");
    return out;
}

Result<StripeRefund> read_refund(const json_t* object) {
    if (auto checked = check(object, "refund"); !checked)
        return Error{checked.error()};
    StripeRefund out;
    out.id = text(object, "id");
    out.charge = id(object, "charge");
    out.payment_intent = id(object, "payment_intent");
    out.amount = amount(object, "amount");
    out.currency = text(object, "currency");
    out.status = text(object, "status");
    return out;
}

Result<StripeCharge> read_charge(const json_t* object) {
    if (auto checked = check(object, "charge"); !checked)
        return Error{checked.error()};
    StripeCharge out;
    out.id = text(object, "id");
    out.customer = id(object, "customer");
    out.payment_intent = id(object, "payment_intent");
    out.invoice = id(object, "invoice");
    out.amount = amount(object, "amount");
    out.amount_refunded = amount(object, "amount_refunded");
    out.refunded = true_member(object, "refunded");
    out.disputed = true_member(object, "disputed");
    out.currency = text(object, "currency");
    out.metadata = metadata(object, "metadata");
    std::size_t index = 0;
    const json_t* one = nullptr;
    json_array_foreach(list_data(object, "refunds"), index, one) {
        if (auto refund = read_refund(one); refund)
            out.refunds.push_back(std::move(refund).value());
    }
    return out;
}

Result<StripeDispute> read_dispute(const json_t* object) {
    if (auto checked = check(object, "dispute"); !checked)
        return Error{checked.error()};
    StripeDispute out;
    out.id = text(object, "id");
    out.charge = id(object, "charge");
    out.payment_intent = id(object, "payment_intent");
    out.status = text(object, "status");
    out.reason = text(object, "reason");
    out.amount = amount(object, "amount");
    out.currency = text(object, "currency");
    return out;
}

Result<StripeEntitlements> read_entitlements(const json_t* object) {
    if (auto checked = check(object, "entitlements.active_entitlement_summary", false); !checked)
        return Error{checked.error()};
    StripeEntitlements out;
    out.customer = id(object, "customer");
    std::size_t index = 0;
    const json_t* one = nullptr;
    json_array_foreach(list_data(object, "entitlements"), index, one) {
        std::string key = text(one, "lookup_key");
        if (!key.empty())
            out.lookup_keys.push_back(std::move(key));
    }
    out.more = list_cut(object, "entitlements");
    return out;
}

Result<StripePage> read_page(const json_t* object) {
    if (auto checked = check(object, "list", false); !checked)
        return Error{checked.error()};
    StripePage out;
    const json_t* const data = json_object_get(object, "data");
    if (!json_is_array(data))
        return Error{"list: it has no data"};
    std::size_t index = 0;
    const json_t* one = nullptr;
    json_array_foreach(data, index, one) { out.data.push_back(one); }
    out.last_id = out.data.empty() ? std::string() : text(out.data.back(), "id");
    out.more = true_member(object, "has_more") && !out.last_id.empty();
    return out;
}

} // namespace billing
