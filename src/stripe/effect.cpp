#include "stripe/effect.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>

#include "stripe/event.hpp"

namespace billing {

namespace {

using Reader = Result<EventEffect> (*)(const json_t* object);

constexpr std::int64_t k_most_quantity = 1'000'000;

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

// Ours say whose they are twice. client_reference_id alone proves nothing: it can be set in the address of a payment
// link.
std::string account_of(const StripeCheckout& session) {
    const std::string_view named = session.metadata.find("account");
    return named == session.client_reference_id ? std::string(named) : std::string();
}

std::optional<std::int64_t> quantity_of(const StripeCheckout& session) {
    const std::string_view text = session.metadata.find("quantity");
    std::int64_t quantity = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), quantity);
    const bool whole = problem == std::errc() && end == text.data() + text.size();
    return whole && quantity >= 1 && quantity <= k_most_quantity ? std::optional(quantity) : std::nullopt;
}

Result<EventEffect> checkout_completed(const json_t* object) {
    auto read = read_checkout(object);
    if (!read)
        return Error{read.error()};
    const StripeCheckout& session = read.value();
    const std::string account = account_of(session);
    const bool subscribes = session.mode == "subscription";
    if (!subscribes && session.mode != "payment")
        return ignored("a checkout that sells nothing");
    if (account.empty() && (!subscribes || session.customer.empty()))
        return ignored("not a checkout of ours");
    if (account.empty()) {
        // Somebody else's, yet a customer of ours may have bought a plan by it: Stripe will say.
        EventEffect out = effect_of("subscription", session.customer);
        out.subscriptions = true;
        return out;
    }
    EventEffect out = effect_of("checkout_completed", session.customer);
    out.account = account;
    out.subscriptions = true;
    put_text(out.effect, "session", session.id);
    put_text(out.effect, "mode", session.mode);
    put_text(out.effect, "customer", session.customer);
    put_text(out.effect, "payment_status", session.payment_status);
    put_text(out.effect, "payment_intent", session.payment_intent);
    put_text(out.effect, "price", session.metadata.find("price"));
    put_number(out.effect, "quantity", quantity_of(session));
    return out;
}

Result<EventEffect> checkout_expired(const json_t* object) {
    auto read = read_checkout(object);
    if (!read)
        return Error{read.error()};
    const StripeCheckout& session = read.value();
    EventEffect out = effect_of("checkout_expired", session.customer);
    out.account = account_of(session);
    if (out.account.empty())
        return ignored("not a checkout of ours");
    put_text(out.effect, "session", session.id);
    put_text(out.effect, "mode", session.mode);
    return out;
}

Result<EventEffect> subscription(const json_t* object) {
    auto read = read_subscription(object);
    if (!read)
        return Error{read.error()};
    if (read.value().customer.empty())
        return ignored("a subscription of nobody");
    EventEffect out = effect_of("subscription", read.value().customer);
    out.subscriptions = true;
    return out;
}

Result<EventEffect> invoice(const json_t* object, bool paid) {
    auto read = read_invoice(object);
    if (!read)
        return Error{read.error()};
    const StripeInvoice& one = read.value();
    if (one.id.empty())
        return Error{"invoice: it has no id"};
    if (one.customer.empty())
        return ignored("an invoice of nobody");
    EventEffect out = effect_of(paid ? "invoice_paid" : "invoice_failed", one.customer);
    out.subscriptions = true;
    put_text(out.effect, "invoice", one.id);
    put_text(out.effect, "subscription", one.subscription);
    put_text(out.effect, "billing_reason", one.billing_reason);
    if (const StripeInvoiceLine* line = one.service_line()) {
        put_text(out.effect, "price", line->price);
        put_period(out.effect, line->period);
    }
    put_number(out.effect, "amount", paid ? one.amount_paid : one.amount_due);
    put_text(out.effect, "currency", one.currency);
    put_text(out.effect, "payment_intent", one.payment_intent);
    put_number(out.effect, "attempt", one.attempt_count);
    if (!paid)
        put_number(out.effect, "next_attempt", one.next_payment_attempt);
    return out;
}

Result<EventEffect> invoice_paid(const json_t* object) { return invoice(object, true); }

Result<EventEffect> invoice_failed(const json_t* object) { return invoice(object, false); }

Result<EventEffect> customer_updated(const json_t* object) {
    auto read = read_customer(object);
    if (!read)
        return Error{read.error()};
    EventEffect out = effect_of("customer_updated", read.value().id);
    put_text(out.effect, "email", read.value().email);
    put_text(out.effect, "name", read.value().name);
    return out;
}

// Looked at too: an older look that is still on its way must not come after this.
Result<EventEffect> customer_deleted(const json_t* object) {
    auto read = read_customer(object);
    if (!read)
        return Error{read.error()};
    EventEffect out = effect_of("customer_deleted", read.value().id);
    out.subscriptions = true;
    return out;
}

struct Handler {
    std::string_view type;
    Reader read;
};

constexpr std::array<Handler, 17> k_handlers = {{
    {"checkout.session.completed", checkout_completed},
    {"checkout.session.async_payment_succeeded", checkout_completed},
    {"checkout.session.expired", checkout_expired},
    {"checkout.session.async_payment_failed", checkout_expired},
    {"customer.subscription.created", subscription},
    {"customer.subscription.updated", subscription},
    {"customer.subscription.deleted", subscription},
    {"customer.subscription.paused", subscription},
    {"customer.subscription.resumed", subscription},
    {"customer.subscription.trial_will_end", subscription},
    {"customer.subscription.pending_update_applied", subscription},
    {"customer.subscription.pending_update_expired", subscription},
    {"invoice.paid", invoice_paid},
    {"invoice.payment_succeeded", invoice_paid},
    {"invoice.payment_failed", invoice_failed},
    {"customer.updated", customer_updated},
    {"customer.deleted", customer_deleted},
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
    std::vector<std::string_view> types;
    for (const Handler& handler : k_handlers)
        types.push_back(handler.type);
    return types;
}

Result<EventEffect> read_effect(const json_t* event) {
    const Handler* const handler = handler_of(text_member(event, "type").value_or(std::string_view()));
    return handler == nullptr ? ignored("a type that changes nothing") : handler->read(event_object(event));
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
    return out;
}

} // namespace billing
