#include "jobs/overage_reporter.hpp"

#include "async/sleep.hpp"

#include <utility>

namespace billing {

namespace {

constexpr std::int64_t k_interval_ms = 2000;

const char* outcome_of(const StripeReply& reply) noexcept {
    if (reply.ok() || reply.refusal == Refusal::already) {
        return "sent";
    }
    return reply.kind == ReplyKind::refused ? "refused" : "later";
}

} // namespace

Task<void> OverageReporter::run() {
    while (true) {
        std::optional<Charge> charge;
        if (stripe_.configured() && !reactor_.leaving()) {
            charge = co_await claim();
        }
        if (charge) {
            StripeReply reply = co_await send(*charge);
            co_await note(*charge, reply);
        } else {
            co_await sleep_for(reactor_, k_interval_ms, true);
        }
    }
}

Task<std::optional<OverageReporter::Charge>> OverageReporter::claim() {
    PgResult result = co_await postgres_.query("SELECT * FROM billing.overage_claim()", PgParams());
    if (!result && result.outcome() == PgOutcome::refused) {
        trouble_.say("PostgreSQL refuses to tell of overage: " + result.message());
    }
    if (result.rows() != 1) {
        co_return std::nullopt;
    }
    Charge charge;
    charge.no = result.integer(0, 0);
    charge.attempt = result.integer(0, 1);
    charge.refusals = result.integer(0, 2);
    charge.unsure = result.boolean(0, 3);
    charge.customer = result.text(0, 4);
    charge.meter = result.text(0, 5);
    charge.quantity = result.text(0, 6);
    charge.identifier = result.text(0, 7);
    co_return charge;
}

// Stripe keeps a refusal as the answer to its key; the identifier alone makes the event one.
Task<StripeReply> OverageReporter::send(const Charge& charge) {
    Form form;
    form.add("event_name", charge.meter).add("identifier", charge.identifier);
    form.add("payload[stripe_customer_id]", charge.customer).add("payload[value]", charge.quantity);
    const std::string key = charge.identifier + ":" + std::to_string(charge.refusals);
    return stripe_.post("/v1/billing/meter_events", std::move(form), key);
}

Task<void> OverageReporter::note(const Charge& charge, const StripeReply& reply) {
    const std::string outcome = outcome_of(reply);
    const bool unsure = charge.unsure || reply.uncertain;
    const std::string said = reply.ok() ? std::string{} : reply.log_text();
    if (outcome == "sent") {
        trouble_.settled();
    } else if (reply.kind == ReplyKind::refused) {
        trouble_.say("Stripe refuses overage for the meter \"" + charge.meter + "\": " + said +
                     "; make the meter, or correct the catalog");
    }
    PgParams parameters(charge.no, charge.attempt, outcome, unsure, said);
    PgResult noted = co_await postgres_.query("SELECT billing.overage_told($1, $2, $3, $4, $5)", std::move(parameters));
    if (!noted && noted.outcome() == PgOutcome::refused) {
        trouble_.say("PostgreSQL refuses to note what Stripe was told: " + noted.message());
    }
}

} // namespace billing
