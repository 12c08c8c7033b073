#include "stripe/effect.hpp"

#include <algorithm>
#include <array>

#include "stripe/effect_kinds.hpp"
#include "stripe/event.hpp"

namespace billing {

namespace effects {

void put_text(const Json& into, const char* key, std::string_view text) {
    if (!text.empty())
        put_member(into.get(), key, text);
}

void put_number(const Json& into, const char* key, std::optional<std::int64_t> number) {
    if (number)
        put_member(into.get(), key, *number);
}

void put_period(const Json& into, const StripePeriod& period) {
    put_number(into, "period_start", period.start);
    put_number(into, "period_end", period.end);
}

EventEffect effect_of(const char* kind, std::string customer) {
    EventEffect out;
    out.customer = std::move(customer);
    out.effect.reset(json_object());
    put_text(out.effect, "kind", kind);
    return out;
}

EventEffect ignored(const char* reason) {
    EventEffect out;
    out.ignored = reason;
    return out;
}

} // namespace effects

namespace {

using namespace effects;

using Reader = Result<EventEffect> (*)(const json_t* event);

Result<EventEffect> of_subscription(const json_t* event, const char* kind) {
    auto read = read_subscription(event_object(event));
    if (!read)
        return Error{read.error()};
    if (read.value().customer.empty())
        return ignored("a subscription of nobody");
    EventEffect out = effect_of(kind, read.value().customer);
    out.subscriptions = true;
    return out;
}

Result<EventEffect> subscription(const json_t* event) { return of_subscription(event, "subscription"); }

Result<EventEffect> trial_ending(const json_t* event) {
    auto out = of_subscription(event, "trial_ending");
    if (out && out.value().effect)
        put_text(out.value().effect, "subscription", text_member(event_object(event), "id").value_or(""));
    return out;
}

// Most of these events are about what Stripe itself keeps of a customer.
Result<EventEffect> customer_updated(const json_t* event) {
    auto read = read_customer(event_object(event));
    if (!read)
        return Error{read.error()};
    const json_t* const previous = event_previous(event);
    if (previous && !json_object_get(previous, "email") && !json_object_get(previous, "name"))
        return ignored("neither name nor email have changed");
    EventEffect out = effect_of("customer_updated", read.value().id);
    out.look = LookAt::customer;
    return out;
}

// Looked at too: an older look that is still on its way must not come after this.
Result<EventEffect> customer_deleted(const json_t* event) {
    auto read = read_customer(event_object(event));
    if (!read)
        return Error{read.error()};
    EventEffect out = effect_of("customer_deleted", read.value().id);
    out.subscriptions = true;
    return out;
}

Result<EventEffect> entitlements(const json_t* event) {
    auto read = read_entitlements(event_object(event));
    if (!read)
        return Error{read.error()};
    if (read.value().customer.empty())
        return ignored("entitlements of nobody");
    EventEffect out = effect_of("entitlements", read.value().customer);
    out.look = LookAt::entitlements;
    return out;
}

struct Handler {
    std::string_view type;
    Reader read;
};

constexpr std::array<Handler, 26> k_handlers = {{
    {"checkout.session.completed", checkout_completed},
    {"checkout.session.async_payment_succeeded", checkout_completed},
    {"checkout.session.expired", checkout_expired},
    {"checkout.session.async_payment_failed", checkout_failed},
    {"customer.subscription.created", subscription},
    {"customer.subscription.updated", subscription},
    {"customer.subscription.deleted", subscription},
    {"customer.subscription.paused", subscription},
    {"customer.subscription.resumed", subscription},
    {"customer.subscription.trial_will_end", trial_ending},
    {"customer.subscription.pending_update_applied", subscription},
    {"customer.subscription.pending_update_expired", subscription},
    {"invoice.paid", invoice_paid},
    {"invoice.payment_succeeded", invoice_paid},
    {"invoice.payment_failed", invoice_failed},
    {"customer.updated", customer_updated},
    {"customer.deleted", customer_deleted},
    {"entitlements.active_entitlement_summary.updated", entitlements},
    {"charge.refunded", charge_refunded},
    {"charge.refund.updated", refund_changed},
    {"refund.created", refund_changed},
    {"refund.updated", refund_changed},
    {"refund.failed", refund_changed},
    {"charge.dispute.created", dispute_changed},
    {"charge.dispute.updated", dispute_changed},
    {"charge.dispute.closed", dispute_changed},
}};

const Handler* handler_of(std::string_view type) noexcept {
    const auto* const found = std::find_if(k_handlers.begin(), k_handlers.end(),
                                           [type](const Handler& handler) { return handler.type == type; });
    return found == k_handlers.end() ? nullptr : found;
}

} // namespace

const char* foreign_event(std::string_view stripe_account, std::optional<bool> event_livemode, bool livemode) noexcept {
    if (!stripe_account.empty()) {
        return "it belongs to a connected account";
    }
    if (!event_livemode || *event_livemode == livemode) {
        return "";
    }
    return livemode ? "a test event, and the key is a live one" : "a live event, and the key is a test one";
}

bool handles_event(std::string_view type) noexcept { return handler_of(type) != nullptr; }

std::vector<std::string_view> handled_types() {
    std::vector<std::string_view> types(k_handlers.size());
    std::transform(k_handlers.begin(), k_handlers.end(), types.begin(),
                   [](const Handler& handler) { return handler.type; });
    return types;
}

Result<EventEffect> read_effect(const json_t* event) {
    const Handler* const handler = handler_of(text_member(event, "type").value_or(std::string_view()));
    return handler == nullptr ? ignored("a type that changes nothing") : handler->read(event);
}

Json subscription_facts(const StripeSubscription& subscription) {
    Json out{json_object()};
    put_text(out, "id", subscription.id);
    put_text(out, "customer", subscription.customer);
    put_text(out, "status", subscription.status);
    Json items{json_array()};
    std::optional<std::int64_t> quantity;
    for (const StripeSubscriptionItem& item : subscription.items) {
        Json one{json_object()};
        put_text(one, "price", item.price);
        put_period(one, item.period);
        json_array_append_new(items.get(), one.release());
        if (!quantity)
            quantity = item.quantity;
    }
    json_object_set_new(out.get(), "items", items.release());
    put_number(out, "quantity", quantity);
    put_period(out, subscription.legacy_period);
    put_number(out, "cancel_at", subscription.cancel_at);
    put_number(out, "trial_end", subscription.trial_end);
    put_number(out, "anchor", subscription.billing_cycle_anchor);
    put_number(out, "created", subscription.created);
    put_number(out, "ended_at", subscription.ended_at);
    put_text(out, "pause", subscription.pause_behavior);
    if (subscription.livemode == true)
        json_object_set_new(out.get(), "livemode", json_true());
    return out;
}

Json customer_facts(const StripeCustomer& customer) {
    Json out{json_object()};
    put_text(out, "email", customer.email);
    put_text(out, "name", customer.name);
    return out;
}

} // namespace billing
