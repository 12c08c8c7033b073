#include "endpoints/checkout.hpp"

#include "domain/json.hpp"
#include "endpoints/admission.hpp"
#include "endpoints/checkout_form.hpp"
#include "endpoints/customer.hpp"
#include "endpoints/portal.hpp"
#include "endpoints/stripe_answer.hpp"
#include "stripe/objects.hpp"

#include <optional>
#include <utility>

namespace billing {

namespace {

// Somebody else opens or ends a checkout of this account at the same time; more than this is no coincidence.
constexpr int k_rounds = 6;

// What one purchase may bring: no balance gets near the end of its range by it.
constexpr std::int64_t k_most_units = 1'000'000'000'000'000;

// A checkout waits for its turn and calls Stripe for this long.
constexpr std::int64_t k_patience_ms = 12'000;

Response busy() { return try_later("CHECKOUT_BUSY", "Other checkouts of this account are being started; try again"); }

Response paid_already() {
    return problem(409, "CHECKOUT_COMPLETE", "Checkout complete",
                   "A checkout of this account has just been paid; wait for its confirmation");
}

std::string session_path(const std::string& session) { return "/v1/checkout/sessions/" + session; }

Response not_for_sale(PriceAnswer::Outcome outcome) {
    if (outcome == PriceAnswer::Outcome::no_price) {
        return problem(400, "NO_PRICE", "No price", "This plan cannot be bought");
    }
    return problem(400, "UNKNOWN_PLAN", "Unknown plan", "Write plan, tier, planKey or priceId of what is for sale");
}

Response wrong_quantity(const QuantityRange& range) {
    return problem(400, "INVALID_QUANTITY", "Invalid quantity",
                   "Write a whole number from " + std::to_string(range.least) + " to " + std::to_string(range.most));
}

// Who names no account: nothing is stored, and nothing is granted until an import links the customer that Stripe makes.
// Credits would have nowhere to go.
Task<Response> checkout_of_nobody(PriceAnswer price, CheckoutStyle style, bool redirect, Services& services) {
    if (price.mode != "subscription") {
        co_return no_account();
    }
    CheckoutStart start;
    start.mode = price.mode;
    start.plan = std::move(price.plan);
    Form form = session_form("", price.price, start, style);
    const std::string key = one_time_key("anon");
    const std::int64_t until_ms = services.reactor.now_ms() + k_patience_ms;
    StripeReply reply = co_await services.stripe.post("/v1/checkout/sessions", std::move(form), key, until_ms);
    if (!reply) {
        co_return stripe_problem(reply);
    }
    const auto session = read_checkout(reply.json.get());
    co_return session&& is_page(session.value().url, services.stripe.plain_http())
        ? session_answer(session.value().url, "checkoutUrl", redirect)
        : stripe_problem(refused_reply(Refusal::unreadable));
}

// One client's way to one session.
class Checkout {
public:
    Checkout(const Request& request, std::string price, CheckoutStyle style, std::int64_t until_ms, Services& services,
             const EndpointSettings& settings)
        : account_(request.account), price_(std::move(price)), contact_{request.email, request.name},
          style_(std::move(style)), style_name_(digest_of(style_)), redirect_(settings.redirect || request.is_form()),
          services_(services), settings_(settings), until_ms_(until_ms) {}

    Task<Response> run() {
        for (int round = 0; round < k_rounds; ++round) {
            start_ = co_await services_.checkouts.begin(account_, price_, style_name_, contact_);
            if (start_.outcome == CheckoutStart::Outcome::unknown_account && settings_.create_accounts) {
                Fetched fetched = co_await services_.accounts.fetch(account_, AccountStore::Mode::create);
                if (fetched == Fetched::unavailable) {
                    co_return state_unavailable();
                }
                start_ = co_await services_.checkouts.begin(account_, price_, style_name_, contact_);
            }
            std::optional<Response> response = co_await go_on();
            if (response) {
                co_return *response;
            }
        }
        co_return busy();
    }

private:
    // Nothing: begin anew.
    Task<std::optional<Response>> go_on() {
        switch (start_.outcome) {
        case CheckoutStart::Outcome::unavailable:
            co_return state_unavailable();
        case CheckoutStart::Outcome::unknown_account:
            co_return problem(403, "UNKNOWN_ACCOUNT", "Unknown account", "This account is not known here");
        case CheckoutStart::Outcome::unknown_price:
            co_return not_for_sale(PriceAnswer::Outcome::unknown);
        case CheckoutStart::Outcome::subscribed:
            co_return co_await send_to_portal();
        case CheckoutStart::Outcome::reuse:
            co_return session_answer(start_.url, "checkoutUrl", redirect_);
        case CheckoutStart::Outcome::paid:
            co_return paid_already();
        case CheckoutStart::Outcome::replace: {
            std::optional<Response> refusal = co_await expire(start_.session);
            if (refusal) {
                co_return refusal;
            }
            break;
        }
        case CheckoutStart::Outcome::create:
            break;
        }
        if (start_.quantity > k_most_units / style_.quantity) {
            co_return wrong_quantity(settings_.packs);
        }
        if (start_.customer.empty()) {
            // Linked before the session is made: whatever the session brings then finds its account.
            MadeCustomer made =
                co_await make_customer(account_, start_.customer_plan, style_.metadata.account, services_, until_ms_);
            if (made.refusal) {
                co_return made.refusal;
            }
            start_.customer = std::move(made.id);
        }
        co_return co_await make_session();
    }

    Task<Response> send_to_portal() {
        if (redirect_) {
            co_return co_await open_portal(start_.customer, style_.pages.back, services_, settings_, true, until_ms_);
        }
        constexpr std::string_view k_words = "This account has a subscription; change it in the portal";
        const Json body = problem_members(409, "ALREADY_SUBSCRIBED", "Already subscribed", k_words);
        put_member(body.get(), "message", k_words); // applications show it under either name
        put_member(body.get(), "currentTier", start_.current_plan);
        put_member(body.get(), "currentStatus", start_.current_status);
        if (!settings_.portal_url.empty()) {
            put_member(body.get(), "portalUrl", settings_.portal_url);
        }
        co_return problem_response(409, body.get());
    }

    Task<std::optional<Response>> make_session() {
        Form form = session_form(account_, price_, start_, style_);
        const std::string key = idempotency_key(start_.intent, form);
        StripeReply reply = co_await services_.stripe.post("/v1/checkout/sessions", std::move(form), key, until_ms_);
        if (reply.refusal == Refusal::missing_customer) {
            co_return co_await drop_customer(reply);
        }
        if (!reply) {
            co_return co_await give_up(start_.intent, reply, services_);
        }
        if (reply.replayed) { // as it was when it was made; what is it now?
            const auto made = read_checkout(reply.json.get());
            const std::string path = session_path(made ? made.value().id : "");
            Form nothing;
            reply = co_await services_.stripe.get(path, nothing, until_ms_);
            if (!reply) {
                co_return stripe_problem(reply);
            }
        }
        const auto session = read_checkout(reply.json.get());
        if (!session ||
            (session.value().status == "open" && !is_page(session.value().url, services_.stripe.plain_http()))) {
            co_return stripe_problem(refused_reply(Refusal::unreadable));
        }
        co_return co_await store(session.value());
    }

    // Deleted at Stripe, and its event is still on the way.
    Task<std::optional<Response>> drop_customer(const StripeReply& reply) {
        co_await services_.checkouts.failed(start_.intent);
        Unlinked unlinked = co_await services_.checkouts.unlink_customer(account_, start_.customer);
        if (unlinked == Unlinked::gone) {
            co_return std::nullopt;
        }
        co_return unlinked == Unlinked::live ? stripe_problem(reply) : state_unavailable();
    }

    Task<std::optional<Response>> store(const StripeCheckout& session) {
        SessionStored stored = co_await services_.checkouts.opened(account_, start_.intent, session.id, session.url,
                                                                   session.expires_at.value_or(0));
        if (stored == SessionStored::unavailable) { // nobody has seen it; the same intent will bring it again
            co_return state_unavailable();
        }
        if (stored == SessionStored::superseded) {
            co_return co_await expire(session.id);
        }
        if (stored == SessionStored::open && session.status == "open") {
            co_return session_answer(session.url, "checkoutUrl", redirect_);
        }
        if (stored == SessionStored::open) {
            co_return co_await close(session);
        }
        co_return std::nullopt;
    }

    // Nobody may hold two sessions that can be paid. Nothing: it is over, and was not paid.
    Task<std::optional<Response>> expire(std::string session) {
        Form nothing;
        // A key of its own for each try: expiring twice does no harm, a failure that Stripe keeps for a key would.
        StripeReply reply = co_await services_.stripe.post(session_path(session) + "/expire", nothing,
                                                           one_time_key("expire"), until_ms_);
        if (reply.refusal == Refusal::already) { // over before; how?
            reply = co_await services_.stripe.get(session_path(session), nothing, until_ms_);
        }
        if (reply.refusal == Refusal::missing_object) {
            co_await services_.checkouts.closed(session, "expired");
            co_return std::nullopt;
        }
        const auto seen = read_checkout(reply.json.get());
        if (!reply) {
            co_return stripe_problem(reply);
        }
        if (!seen) {
            co_return stripe_problem(refused_reply(Refusal::unreadable));
        }
        co_return co_await close(seen.value());
    }

    // A session that is no longer open.
    Task<std::optional<Response>> close(const StripeCheckout& session) {
        const bool paid = session.status == "complete";
        std::string status = paid ? "paid" : "expired";
        co_await services_.checkouts.closed(session.id, std::move(status));
        if (paid) {
            co_return paid_already();
        }
        co_return std::nullopt;
    }

    std::string account_;
    std::string price_;
    Contact contact_;
    CheckoutStyle style_;
    std::string style_name_;
    bool redirect_;
    Services& services_;
    const EndpointSettings& settings_;
    std::int64_t until_ms_;
    CheckoutStart start_;
};

} // namespace

Task<Response> checkout(Request request, Services& services, const EndpointSettings& settings) {
    if (!services.stripe.configured()) {
        co_return not_configured();
    }
    Admission admission = co_await admit(request, services, settings, Nobody::admitted);
    if (admission.refusal) {
        co_return *admission.refusal;
    }
    const Input& input = admission.input;
    std::string name{input.text({"plan", "tier", "planKey", "priceId"})};
    if (name.empty()) {
        name = settings.default_plan;
    }
    const std::string interval{input.text({"interval"})};
    PriceAnswer price = co_await services.checkouts.resolve_price(name, interval, services.livemode);
    if (price.outcome == PriceAnswer::Outcome::unavailable) {
        co_return state_unavailable();
    }
    if (price.outcome != PriceAnswer::Outcome::ok) {
        co_return not_for_sale(price.outcome);
    }
    const QuantityRange& range = price.mode == "payment" ? settings.packs : settings.seats;
    const auto quantity = range.chosen(input.text({"quantity"}));
    if (!quantity) {
        co_return wrong_quantity(range);
    }
    ReturnPages pages = return_pages(input.text({"returnUrl"}), request.origin, settings.pages);
    CheckoutStyle style{settings.checkout, settings.metadata, std::move(pages), *quantity};
    if (request.account.empty()) {
        const bool redirect = settings.redirect || request.is_form();
        co_return co_await checkout_of_nobody(std::move(price), std::move(style), redirect, services);
    }
    const std::int64_t until_ms = services.reactor.now_ms() + k_patience_ms;
    Turn turn = co_await services.turns.take(request.account);
    if (!turn || services.reactor.now_ms() >= until_ms) {
        co_return busy();
    }
    Checkout way{request, price.price, std::move(style), until_ms, services, settings};
    co_return co_await way.run();
}

} // namespace billing
