// Money: invoices that were paid or not, and charges of which something goes back or is contested.
#include "stripe/effect_kinds.hpp"
#include "stripe/event.hpp"

namespace billing {

namespace effects {

namespace {

// Whoever paid, for whatever: the charge is to be looked at, or its dispute.
EventEffect of_charge(const char* kind, LookAt look, std::string charge, std::string payment) {
    EventEffect out = effect_of(kind, {});
    out.look = look;
    out.charge = std::move(charge);
    out.payment = std::move(payment);
    return out;
}

// What is paid for. Of several items: which of them is the plan's, the catalog knows.
void put_lines(const Json& into, const StripeInvoice& invoice) {
    if (const StripeInvoiceLine* line = invoice.service_line()) {
        put_text(into, "price", line->price);
        put_period(into, line->period);
    }
    Json lines{json_array()};
    for (const StripeInvoiceLine& line : invoice.lines) {
        if (line.proration || !line.of_subscription || !line.period.end)
            continue;
        Json one{json_object()};
        put_text(one, "price", line.price);
        put_period(one, line.period);
        json_array_append_new(lines.get(), one.release());
    }
    if (json_array_size(lines.get()) > 1)
        json_object_set_new(into.get(), "lines", lines.release());
}

Result<EventEffect> invoice(const json_t* event, bool paid) {
    auto read = read_invoice(event_object(event));
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
    put_lines(out.effect, one);
    if (one.more_lines)
        out.cut_invoice = one.id;
    put_number(out.effect, "amount", paid ? one.amount_paid : one.amount_due);
    put_text(out.effect, "currency", one.currency);
    put_text(out.effect, "payment_intent", one.payment_intent);
    put_number(out.effect, "attempt", one.attempt_count);
    if (!paid)
        put_number(out.effect, "next_attempt", one.next_payment_attempt);
    return out;
}

} // namespace

Result<EventEffect> invoice_paid(const json_t* event) { return invoice(event, true); }

Result<EventEffect> invoice_failed(const json_t* event) { return invoice(event, false); }

Result<EventEffect> charge_refunded(const json_t* event) {
    auto read = read_charge(event_object(event));
    if (!read)
        return Error{read.error()};
    EventEffect out = of_charge("charge", LookAt::charge, read.value().id, read.value().payment_intent);
    out.customer = read.value().customer;
    return out;
}

Result<EventEffect> refund_changed(const json_t* event) {
    auto read = read_refund(event_object(event));
    if (!read)
        return Error{read.error()};
    if (read.value().charge.empty())
        return ignored("a refund of no charge");
    return of_charge("charge", LookAt::charge, read.value().charge, read.value().payment_intent);
}

Result<EventEffect> dispute_changed(const json_t* event) {
    auto read = read_dispute(event_object(event));
    if (!read)
        return Error{read.error()};
    if (read.value().charge.empty())
        return ignored("a dispute about no charge");
    EventEffect out = of_charge("dispute", LookAt::dispute, read.value().charge, read.value().payment_intent);
    out.dispute = read.value().id;
    return out;
}

} // namespace effects

void put_invoice_lines(EventEffect& into, std::vector<StripeInvoiceLine> lines) {
    StripeInvoice whole;
    whole.lines = std::move(lines);
    effects::put_lines(into.effect, whole);
}

Json charge_facts(const StripeCharge& charge) {
    using namespace effects;
    Json out{json_object()};
    put_text(out, "id", charge.id);
    put_text(out, "payment_intent", charge.payment_intent);
    put_text(out, "invoice", charge.invoice);
    put_number(out, "amount", charge.amount);
    put_text(out, "currency", charge.currency);
    Json refunds{json_array()};
    for (const StripeRefund& refund : charge.refunds) {
        Json one{json_object()};
        put_text(one, "id", refund.id);
        put_number(one, "amount", refund.amount);
        put_text(one, "status", refund.status);
        json_array_append_new(refunds.get(), one.release());
    }
    json_object_set_new(out.get(), "refunds", refunds.release());
    return out;
}

Json dispute_facts(const StripeDispute& dispute, const StripeCharge& charge) {
    using namespace effects;
    Json out{json_object()};
    put_text(out, "id", dispute.id);
    put_number(out, "amount", dispute.amount);
    put_text(out, "status", dispute.status);
    put_text(out, "reason", dispute.reason);
    json_object_set_new(out.get(), "charge", charge_facts(charge).release());
    return out;
}

} // namespace billing
