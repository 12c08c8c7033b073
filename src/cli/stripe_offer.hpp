// What is for sale as Stripe is told of it: products, prices and the portal's configuration, as forms. Pure; used by
// `ngx-billing catalog push`.
#pragma once

#include "domain/json.hpp"
#include "stripe/form.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace billing {

struct OfferPrice {
    std::string path;     // in the catalog: plans.pro.price.month
    std::string interval; // month, year; "" = paid once
    std::int64_t amount = 0;
    std::string currency;
    std::string id;          // at Stripe; "" = none yet
    json_t* entry = nullptr; // borrowed of the catalog: where the id is written
};

// A plan or a pack that has a price.
struct Offer {
    std::string kind; // plan, pack
    std::string key;
    std::string name;
    std::string description;
    std::vector<OfferPrice> prices;
    std::string product; // at Stripe; "" = not known yet
    // Under these Stripe knows what we have made, and finds it again.
    std::string own_product() const { return "billing_" + kind + "_" + key; }
    std::string lookup_key(const OfferPrice& price) const;
};

// By rank, the lowest first; then the packs. The document outlives the offers.
std::vector<Offer> offers_of(json_t* catalog);

Form product_form(const Offer& offer);
Form price_form(const Offer& offer, const OfferPrice& price);
// Cancel at the end of the period, with a reason; change between the catalog's recurring prices, prorated; payment
// method, invoices, address.
Form portal_form(const std::vector<Offer>& offers, std::string_view headline);

// What of Stripe's price is not as the catalog has it, or "".
std::string difference(const OfferPrice& price, const json_t* at_stripe);

} // namespace billing
