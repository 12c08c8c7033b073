#include "jobs/object_looks.hpp"

#include "stripe/fields.hpp"
#include "stripe/objects.hpp"

#include <utility>

namespace billing {

namespace {

Task<void> read_charge_of(StripeReader& reader, std::string id, StripeCharge& charge) {
    Form query;
    StripeReader::Keep keep = [&charge](const json_t* object) -> Result<Done> {
        auto read = read_charge(object);
        if (!read) {
            return Error{read.error()};
        }
        charge = std::move(read).value();
        return Done{};
    };
    co_await reader.read_one("/v1/charges", std::move(id), std::move(query), std::move(keep));
}

// Listed by themselves: charges have not carried them since 2022-11-15, and then not all.
Task<void> read_refunds(StripeReader& reader, StripeCharge& charge) {
    Form query;
    query.add("charge", charge.id);
    charge.refunds.clear();
    StripeReader::Keep keep = [&charge](const json_t* element) -> Result<Done> {
        auto read = read_refund(element);
        if (!read) {
            return Error{read.error()};
        }
        charge.refunds.push_back(std::move(read).value());
        return Done{};
    };
    co_await reader.read_pages("/v1/refunds", std::move(query), std::move(keep));
}

// Charges have not named their invoice since 2025-03-31. It is for the audit alone: a key that may not read it will do.
Task<void> find_invoice(Reactor& reactor, StripeApi& stripe, StripeCharge& charge) {
    if (!charge.invoice.empty() || charge.payment_intent.empty()) {
        co_return;
    }
    StripeReader reader{reactor, stripe};
    Form query;
    query.add("payment[type]", "payment_intent").add("payment[payment_intent]", charge.payment_intent);
    StripeReader::Keep keep = [&charge](const json_t* element) -> Result<Done> {
        charge.invoice = fields::id(element, "invoice");
        return Done{};
    };
    co_await reader.read_pages("/v1/invoice_payments", std::move(query), std::move(keep));
}

Task<StripeLook> look_at_charge(Reactor& reactor, StripeApi& stripe, std::string id) {
    StripeReader reader{reactor, stripe};
    StripeCharge charge;
    co_await read_charge_of(reader, std::move(id), charge);
    co_await read_refunds(reader, charge);
    co_await find_invoice(reactor, stripe, charge);
    co_return std::move(reader).finish(dump_json(charge_facts(charge).get()));
}

Task<StripeLook> look_at_dispute(Reactor& reactor, StripeApi& stripe, std::string id, std::string charge_id) {
    StripeReader reader{reactor, stripe};
    StripeDispute dispute;
    StripeCharge charge;
    Form query;
    StripeReader::Keep keep = [&dispute](const json_t* object) -> Result<Done> {
        auto read = read_dispute(object);
        if (!read) {
            return Error{read.error()};
        }
        dispute = std::move(read).value();
        return Done{};
    };
    co_await reader.read_one("/v1/disputes", std::move(id), std::move(query), std::move(keep));
    co_await read_charge_of(reader, std::move(charge_id), charge);
    co_await find_invoice(reactor, stripe, charge);
    co_return std::move(reader).finish(dump_json(dispute_facts(dispute, charge).get()));
}

// One that was deleted meanwhile has an event of its own.
Task<StripeLook> look_at_customer(Reactor& reactor, StripeApi& stripe, std::string id) {
    StripeReader reader{reactor, stripe};
    StripeCustomer customer;
    Form query;
    StripeReader::Keep keep = [&customer](const json_t* object) -> Result<Done> {
        auto read = read_customer(object);
        if (!read) {
            return Error{read.error()};
        }
        customer = std::move(read).value();
        return Done{};
    };
    co_await reader.read_one("/v1/customers", std::move(id), std::move(query), std::move(keep));
    co_return std::move(reader).finish(dump_json(customer_facts(customer).get()));
}

Task<StripeLook> list_entitlements(Reactor& reactor, StripeApi& stripe, std::string customer) {
    StripeReader reader{reactor, stripe};
    const Json keys{json_array()};
    Form query;
    query.add("customer", customer);
    StripeReader::Keep keep = [&keys](const json_t* element) -> Result<Done> {
        const std::string key = fields::text(element, "lookup_key");
        if (!key.empty()) {
            json_array_append_new(keys.get(), json_text(key).release());
        }
        return Done{};
    };
    co_await reader.read_pages("/v1/entitlements/active_entitlements", std::move(query), std::move(keep));
    co_return std::move(reader).finish(dump_json(keys.get()));
}

} // namespace

Task<StripeLook> look_at(Reactor& reactor, StripeApi& stripe, const EventEffect& effect, std::string customer) {
    StripeLook look;
    switch (effect.look) {
    case LookAt::nothing:
        break;
    case LookAt::customer:
        look = co_await look_at_customer(reactor, stripe, std::move(customer));
        break;
    case LookAt::entitlements:
        look = co_await list_entitlements(reactor, stripe, std::move(customer));
        break;
    case LookAt::charge:
        look = co_await look_at_charge(reactor, stripe, effect.charge);
        break;
    case LookAt::dispute:
        look = co_await look_at_dispute(reactor, stripe, effect.dispute, effect.charge);
        break;
    }
    co_return look;
}

Task<StripeLook> look_at_lines(Reactor& reactor, StripeApi& stripe, EventEffect& effect) {
    StripeReader reader{reactor, stripe};
    std::vector<StripeInvoiceLine> lines;
    Form query;
    StripeReader::Keep keep = [&lines](const json_t* element) -> Result<Done> {
        lines.push_back(read_invoice_line(element));
        return Done{};
    };
    co_await reader.read_parts("/v1/invoices", effect.cut_invoice, "lines", std::move(query), std::move(keep));
    if (reader.ok()) {
        put_invoice_lines(effect, std::move(lines));
    }
    co_return std::move(reader).finish({});
}

Task<StripeLook> customer_of_charge(Reactor& reactor, StripeApi& stripe, std::string charge) {
    StripeReader reader{reactor, stripe};
    StripeCharge found;
    co_await read_charge_of(reader, std::move(charge), found);
    co_return std::move(reader).finish(std::move(found.customer));
}

} // namespace billing
