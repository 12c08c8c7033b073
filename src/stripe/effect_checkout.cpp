// Checkout sessions: what was begun by us and has ended, one way or the other.
#include <charconv>
#include <cstdint>

#include "stripe/effect_kinds.hpp"
#include "stripe/event.hpp"

namespace billing::effects {

namespace {

constexpr std::int64_t k_most_quantity = 1'000'000;

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

// What somebody has paid, or tried to.
void put_payment(const EventEffect& out, const StripeCheckout& session) {
    put_text(out.effect, "price", session.metadata.find("price"));
    put_text(out.effect, "payment_intent", session.payment_intent);
    put_number(out.effect, "amount", session.amount_total);
    put_text(out.effect, "currency", session.currency);
}

// A session that nothing comes of.
Result<EventEffect> ended(const json_t* event, const char* kind, bool tried) {
    auto read = read_checkout(event_object(event));
    if (!read)
        return Error{read.error()};
    const StripeCheckout& session = read.value();
    EventEffect out = effect_of(kind, session.customer);
    out.account = account_of(session);
    if (out.account.empty())
        return ignored("not a checkout of ours");
    put_text(out.effect, "session", session.id);
    put_text(out.effect, "mode", session.mode);
    if (tried)
        put_payment(out, session);
    return out;
}

} // namespace

Result<EventEffect> checkout_completed(const json_t* event) {
    auto read = read_checkout(event_object(event));
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
    put_number(out.effect, "quantity", quantity_of(session));
    put_payment(out, session);
    return out;
}

Result<EventEffect> checkout_expired(const json_t* event) { return ended(event, "checkout_expired", false); }

Result<EventEffect> checkout_failed(const json_t* event) { return ended(event, "checkout_failed", true); }

} // namespace billing::effects
