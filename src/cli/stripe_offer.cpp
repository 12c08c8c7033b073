#include "cli/stripe_offer.hpp"

#include <algorithm>
#include <utility>

namespace billing {

namespace {

constexpr std::size_t k_most_products = 10; // that the portal takes

OfferPrice price_of(std::string path, std::string interval, json_t* entry) {
    OfferPrice price;
    price.path = std::move(path);
    price.interval = std::move(interval);
    price.amount = integer_member(entry, "amount").value_or(0);
    price.currency = text_member(entry, "currency").value_or("");
    price.id = text_member(entry, "id").value_or("");
    price.entry = entry;
    return price;
}

Offer offer_of(const char* kind, const char* key, const json_t* entry) {
    Offer offer;
    offer.kind = kind;
    offer.key = key;
    offer.name = text_member(entry, "name").value_or(key);
    offer.description = text_member(entry, "description").value_or("");
    return offer;
}

std::string indexed(const std::string& name, std::size_t index) { return name + "[" + std::to_string(index) + "]"; }

void add_changes(Form& form, const std::vector<Offer>& offers) {
    const std::string at = "features[subscription_update]";
    std::size_t count = 0;
    for (const Offer& offer : offers) {
        const bool sells = offer.kind == "plan" && !offer.product.empty() && count < k_most_products;
        if (!sells) {
            continue;
        }
        const std::string product = indexed(at + "[products]", count++);
        form.add(product + "[product]", offer.product);
        for (std::size_t index = 0; index < offer.prices.size(); ++index) {
            form.add(indexed(product + "[prices]", index), offer.prices[index].id);
        }
    }
    form.add(at + "[enabled]", count > 0);
    if (count > 0) {
        form.add(indexed(at + "[default_allowed_updates]", 0), "price");
        form.add(at + "[proration_behavior]", "create_prorations");
    }
}

} // namespace

std::string Offer::lookup_key(const OfferPrice& price) const {
    return own_product() + (price.interval.empty() ? "" : "_" + price.interval);
}

std::vector<Offer> offers_of(json_t* catalog) {
    std::vector<std::pair<std::int64_t, Offer>> plans;
    const char* key = nullptr;
    json_t* entry = nullptr;
    json_object_foreach(json_object_get(catalog, "plans"), key, entry) {
        Offer offer = offer_of("plan", key, entry);
        const char* interval = nullptr;
        json_t* price = nullptr;
        json_object_foreach(json_object_get(entry, "price"), interval, price) {
            const std::string path = "plans." + offer.key + ".price." + interval;
            offer.prices.push_back(price_of(path, interval, price));
        }
        if (!offer.prices.empty()) {
            plans.emplace_back(integer_member(entry, "rank").value_or(0), std::move(offer));
        }
    }
    std::stable_sort(plans.begin(), plans.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<Offer> offers;
    for (auto& [rank, offer] : plans) {
        offers.push_back(std::move(offer));
    }
    json_object_foreach(json_object_get(catalog, "packs"), key, entry) {
        Offer offer = offer_of("pack", key, entry);
        offer.prices.push_back(price_of("packs." + offer.key + ".price", "", json_object_get(entry, "price")));
        offers.push_back(std::move(offer));
    }
    return offers;
}

Form product_form(const Offer& offer) {
    Form form;
    form.add("name", offer.name);
    if (!offer.description.empty()) {
        form.add("description", offer.description);
    }
    form.add("metadata", offer.kind, offer.key);
    return form;
}

Form price_form(const Offer& offer, const OfferPrice& price) {
    Form form;
    form.add("product", offer.product).add("currency", price.currency).add("unit_amount", price.amount);
    if (!price.interval.empty()) {
        form.add("recurring[interval]", price.interval);
    }
    // A price of another amount that has had the key stays for whoever has bought at it.
    form.add("lookup_key", offer.lookup_key(price)).add("transfer_lookup_key", true);
    form.add("metadata", offer.kind, offer.key);
    return form;
}

Form portal_form(const std::vector<Offer>& offers, std::string_view headline) {
    Form form;
    if (!headline.empty()) {
        form.add("business_profile[headline]", headline);
    }
    form.add("features[customer_update][enabled]", true);
    form.add("features[customer_update][allowed_updates][0]", "email");
    form.add("features[customer_update][allowed_updates][1]", "address");
    form.add("features[customer_update][allowed_updates][2]", "tax_id");
    form.add("features[invoice_history][enabled]", true);
    form.add("features[payment_method_update][enabled]", true);
    form.add("features[subscription_cancel][enabled]", true);
    form.add("features[subscription_cancel][mode]", "at_period_end");
    form.add("features[subscription_cancel][cancellation_reason][enabled]", true);
    std::size_t index = 0;
    for (const char* reason : {"too_expensive", "missing_features", "switched_service", "unused", "other"}) {
        form.add(indexed("features[subscription_cancel][cancellation_reason][options]", index++), reason);
    }
    add_changes(form, offers);
    return form;
}

std::string difference(const OfferPrice& price, const json_t* at_stripe) {
    const json_t* const recurring = json_object_get(at_stripe, "recurring");
    const std::string interval{text_member(recurring, "interval").value_or("")};
    const std::int64_t every = integer_member(recurring, "interval_count").value_or(1);
    const std::int64_t amount = integer_member(at_stripe, "unit_amount").value_or(-1);
    const std::string currency{text_member(at_stripe, "currency").value_or("")};
    if (amount != price.amount || currency != price.currency) {
        return "costs " + std::to_string(amount) + " " + currency;
    }
    if (interval != price.interval || every != 1) {
        return interval.empty() ? "is paid once" : "is paid each " + std::to_string(every) + " " + interval;
    }
    return true_member(at_stripe, "active") ? "" : "is archived";
}

} // namespace billing
