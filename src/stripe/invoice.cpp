// Invoices: what changed most between Stripe's layouts. Until 2025-03-31 (acacia) an invoice names its subscription and
// a line its price and proration directly; since then they stand under `parent` and `pricing`.
#include <algorithm>

#include "stripe/fields.hpp"
#include "stripe/objects.hpp"

namespace billing {

using namespace fields;

namespace {

// parent.<type>_details, if `parent` is of that type (or does not say).
const json_t* parent_details(const json_t* object, const char* type, const char* details) noexcept {
    const json_t* const parent = child(object, "parent");
    const auto said = text_member(parent, "type");
    return !said || *said == type ? child(parent, details) : nullptr;
}

std::string first_of(std::string first, std::string second) {
    return first.empty() ? std::move(second) : std::move(first);
}

void read_lines(const json_t* object, StripeInvoice& into) {
    std::size_t index = 0;
    const json_t* line = nullptr;
    json_array_foreach(list_data(object, "lines"), index, line) {
        if (json_is_object(line))
            into.lines.push_back(read_invoice_line(line));
    }
    into.more_lines = list_cut(object, "lines");
}

// The payment which went through, else the first one.
void read_payments(const json_t* object, StripeInvoice& into) {
    std::size_t index = 0;
    const json_t* entry = nullptr;
    json_array_foreach(list_data(object, "payments"), index, entry) {
        const json_t* const payment = child(entry, "payment");
        const bool paid = text(entry, "status") == "paid";
        if (!payment || (!paid && index != 0))
            continue;
        into.payment_intent = first_of(id(payment, "payment_intent"), std::move(into.payment_intent));
        into.charge = first_of(id(payment, "charge"), std::move(into.charge));
        if (paid)
            return;
    }
}

} // namespace

StripeInvoiceLine read_invoice_line(const json_t* object) {
    const json_t* const item = parent_details(object, "subscription_item_details", "subscription_item_details");
    const json_t* const one_off = parent_details(object, "invoice_item_details", "invoice_item_details");
    const std::string legacy_type = text(object, "type");
    StripeInvoiceLine line;
    line.price = first_of(id(child(child(object, "pricing"), "price_details"), "price"), price(object));
    line.subscription =
        first_of(id(item, "subscription"), first_of(id(one_off, "subscription"), id(object, "subscription")));
    line.period = period(child(object, "period"), "start", "end");
    line.proration =
        true_member(item, "proration") || true_member(one_off, "proration") || true_member(object, "proration");
    line.of_subscription = item ? true : !one_off && legacy_type != "invoiceitem";
    line.amount = amount(object, "amount");
    line.quantity = integer_member(object, "quantity");
    return line;
}

Result<StripeInvoice> read_invoice(const json_t* object) {
    if (auto checked = check(object, "invoice", false); !checked)
        return Error{checked.error()};
    StripeInvoice out;
    const json_t* const parent = parent_details(object, "subscription_details", "subscription_details");
    out.id = text(object, "id");
    out.customer = id(object, "customer");
    out.billing_reason = text(object, "billing_reason");
    out.status = text(object, "status");
    out.paid = out.status.empty() ? true_member(object, "paid") : out.status == "paid";
    out.attempt_count = amount(object, "attempt_count");
    out.next_payment_attempt = time(object, "next_payment_attempt");
    out.created = time(object, "created");
    out.amount_paid = amount(object, "amount_paid");
    out.amount_due = amount(object, "amount_due");
    out.currency = text(object, "currency");
    out.payment_intent = id(object, "payment_intent");
    out.charge = id(object, "charge");
    read_payments(object, out);
    out.livemode = flag(object, "livemode");
    out.subscription_metadata = metadata(parent ? parent : child(object, "subscription_details"), "metadata");
    read_lines(object, out);
    out.subscription = first_of(id(parent, "subscription"), id(object, "subscription"));
    const auto line = std::find_if(out.lines.begin(), out.lines.end(),
                                   [](const StripeInvoiceLine& one) { return !one.subscription.empty(); });
    if (out.subscription.empty() && line != out.lines.end())
        out.subscription = line->subscription;
    return out;
}

const StripeInvoiceLine* StripeInvoice::service_line(std::string_view price) const noexcept {
    const StripeInvoiceLine* best = nullptr;
    for (const StripeInvoiceLine& line : lines)
        if (!line.proration && line.of_subscription && line.period.end && (price.empty() || line.price == price) &&
            (!best || *line.period.end > *best->period.end))
            best = &line;
    return best;
}

} // namespace billing
