#include "endpoints/checkout_form.hpp"

#include "domain/json.hpp"

#include <openssl/sha.h>

#include <array>
#include <charconv>

namespace billing {

namespace {

std::string short_digest(const std::string& text) {
    std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
    SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
    std::uint64_t start = 0;
    for (std::size_t index = 0; index < sizeof start; ++index) {
        start = start << 8 | digest[index];
    }
    return to_hex16(start);
}

void add_metadata(Form& form, const std::string& parent, const std::string& account, const CheckoutStart& start,
                  const CheckoutStyle& style) {
    const MetadataNames& names = style.metadata;
    if (!account.empty()) {
        form.add(parent, names.account, account);
    }
    if (!start.plan.empty()) {
        form.add(parent, names.plan, start.plan);
    }
    if (!start.credit.empty()) {
        form.add(parent, names.credit, start.credit);
        form.add(parent, names.credit_quantity, std::to_string(start.quantity * style.quantity));
    }
}

// Stripe refuses to collect a tax id, or to compute taxes, of a customer whose name and address it may not complete.
void add_options(Form& form, const CheckoutOptions& options, bool has_customer) {
    form.add("allow_promotion_codes", options.allow_promotion_codes);
    form.add("billing_address_collection", options.billing_address_required ? "required" : "auto");
    if (options.tax_id_collection) {
        form.add("tax_id_collection[enabled]", true);
    }
    if (options.tax_id_collection && has_customer) {
        form.add("customer_update[name]", "auto");
    }
    if (options.automatic_tax) {
        form.add("automatic_tax[enabled]", true);
    }
    if (has_customer && (options.tax_id_collection || options.automatic_tax || options.billing_address_required)) {
        form.add("customer_update[address]", "auto");
    }
    if (!options.locale.empty()) {
        form.add("locale", options.locale);
    }
}

} // namespace

std::optional<std::int64_t> read_quantity(std::string_view text) {
    constexpr std::int64_t k_most = 1000;
    std::int64_t quantity = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), quantity);
    const bool digits = problem == std::errc{} && end == text.data() + text.size() && text.front() != '0';
    return digits && quantity >= 1 && quantity <= k_most ? std::optional{quantity} : std::nullopt;
}

std::optional<std::int64_t> QuantityRange::chosen(std::string_view text) const {
    if (most == 1 || text.empty()) {
        return least;
    }
    const auto quantity = read_quantity(text);
    return quantity && *quantity >= least && *quantity <= most ? quantity : std::nullopt;
}

std::string digest_of(const CheckoutStyle& style) {
    Form form;
    add_options(form, style.options, true);
    form.add("trial", style.options.trial_period_days);
    form.add("quantity", style.quantity);
    form.add("success", style.pages.success).add("cancel", style.pages.cancel);
    form.add("names[]", style.metadata.account).add("names[]", style.metadata.plan);
    form.add("names[]", style.metadata.credit).add("names[]", style.metadata.credit_quantity);
    return short_digest(form.text());
}

Form session_form(const std::string& account, const std::string& price, const CheckoutStart& start,
                  const CheckoutStyle& style) {
    const bool subscribes = start.mode == "subscription";
    Form form;
    form.add("mode", start.mode).add("client_reference_id", account.empty() ? "anon" : account);
    if (!start.customer.empty()) {
        form.add("customer", start.customer);
    }
    form.add("line_items[0][price]", price).add("line_items[0][quantity]", style.quantity);
    form.add("success_url", style.pages.success).add("cancel_url", style.pages.cancel);
    add_options(form, style.options, !start.customer.empty());
    add_metadata(form, "metadata", account, start, style);
    form.add("metadata", "price", price);
    form.add("metadata", "quantity", std::to_string(style.quantity));
    add_metadata(form, subscribes ? "subscription_data[metadata]" : "payment_intent_data[metadata]", account, start,
                 style);
    if (subscribes && start.first && style.options.trial_period_days > 0) {
        form.add("subscription_data[trial_period_days]", style.options.trial_period_days);
    }
    return form;
}

std::string idempotency_key(const std::string& intent, const Form& form) {
    return intent + ":" + short_digest(form.text());
}

} // namespace billing
