// What a Checkout Session is made of: the parameters of POST /v1/checkout/sessions
// (https://docs.stripe.com/api/checkout/sessions/create). Pure. All of it follows from what is stored and configured,
// so that who comes again with the same intent sends the same.
#pragma once

#include "endpoints/own_pages.hpp"
#include "state/checkout_store.hpp"
#include "stripe/form.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace billing {

// `billing_checkout_session`, in Stripe's words. payment_method_types is never sent: what is offered is set at Stripe.
struct CheckoutOptions {
    bool allow_promotion_codes = true;
    bool billing_address_required = false; // else Stripe asks where it needs one
    bool tax_id_collection = true;
    bool automatic_tax = false;
    int trial_period_days = 0; // 0-730, of an account's first subscription
    std::string locale;        // "": as the browser says
};

// Under which names what was bought is written into metadata: `billing_metadata`. price and quantity are ours.
struct MetadataNames {
    std::string account = "account";
    std::string plan = "plan";
    std::string credit = "credit";
    std::string credit_quantity = "creditQty";
};

// How many of one thing a client may ask for. Where there is no choice, what it asks is of no account.
struct QuantityRange {
    std::int64_t least = 1; // also where it asks for none
    std::int64_t most = 1;

    // "": none. Nothing: it may not.
    std::optional<std::int64_t> chosen(std::string_view text) const;
};

// 1 to 1000, in digits alone.
std::optional<std::int64_t> read_quantity(std::string_view text);

// What does not follow from an intent: two checkouts of one plan with different ones are two sessions.
struct CheckoutStyle {
    CheckoutOptions options;
    MetadataNames metadata;
    ReturnPages pages;
    std::int64_t quantity = 1;
};

// A short name of the style, to compare it with that of an open session.
std::string digest_of(const CheckoutStyle& style);

// `start`: of an account that has a customer; without either for nobody, whose customer Stripe makes.
Form session_form(const std::string& account, const std::string& price, const CheckoutStart& start,
                  const CheckoutStyle& style);

// The same intent with another form (another location, another configuration during a reload) is another call: Stripe
// refuses a key that comes with other parameters.
std::string idempotency_key(const std::string& intent, const Form& form);

} // namespace billing
