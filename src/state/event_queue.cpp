#include "state/event_queue.hpp"

#include "domain/json.hpp"

namespace billing {

namespace {

constexpr std::string_view k_claim = "SELECT stripe_account, event_id, type, livemode, attempt, encode(payload, 'hex') "
                                     "FROM billing.stripe_event_claim($1, make_interval(secs => $2))";
constexpr std::string_view k_failed = "SELECT billing.stripe_event_failed($1, $2, $3, $4, $5)";
constexpr std::string_view k_ignore = "SELECT billing.stripe_event_ignore($1, $2, $3, $4)";
constexpr std::string_view k_park = "SELECT billing.stripe_event_park($1, $2, $3, $4, $5)";
// These two wait for an account's row. Somebody who holds it must not hold up the events of others, which wait behind
// on the connection: FROM is there before the function is called, and its setting ends with the statement.
constexpr std::string_view k_ticket =
    "SELECT (t).account_id, (t).account, (t).customer, (t).ticket, (t).conflict, (t).former FROM (SELECT "
    "billing.customer_ticket($1, $2, $3) AS t FROM set_config('lock_timeout', '1500ms', true) OFFSET 0) x";
constexpr std::string_view k_apply = "SELECT billing.stripe_apply($1, $2, $3, $4, $5, $6::jsonb, $7::jsonb) "
                                     "FROM set_config('lock_timeout', '1500ms', true)";

constexpr std::string_view k_lost_to_another = "BI001";
constexpr std::string_view k_belongs_to_another = "BI002";

// Where there is none, PostgreSQL is told NULL.
std::optional<std::string_view> some(std::string_view text) {
    return text.empty() ? std::nullopt : std::optional<std::string_view>(text);
}

// Not for what was asked but for the state that the server or the schema is in: it may be granted the next time.
bool may_pass(std::string_view sqlstate) noexcept {
    for (const std::string_view group : {"08", "25", "28", "3D", "3F", "40", "42", "53", "55", "57", "58"}) {
        if (sqlstate.starts_with(group)) {
            return true;
        }
    }
    return false;
}

Applied::Outcome outcome_of(const PgResult& result) noexcept {
    if (result.outcome() != PgOutcome::refused || may_pass(result.sqlstate())) {
        return Applied::Outcome::unanswered;
    }
    if (result.sqlstate() == k_lost_to_another) {
        return Applied::Outcome::lost_to_another;
    }
    return result.sqlstate() == k_belongs_to_another ? Applied::Outcome::belongs_to_another : Applied::Outcome::refused;
}

std::string member(const Json& object, const char* key) {
    return std::string{text_member(object.get(), key).value_or(std::string_view{})};
}

} // namespace

EventQueue::EventQueue(Reactor& reactor, Postgres& postgres) : postgres_(postgres), trouble_(reactor) {}

void EventQueue::note(const PgResult& result) {
    if (result) {
        trouble_.settled();
    } else if (result.outcome() == PgOutcome::refused) {
        trouble_.say("PostgreSQL refuses to work on Stripe's events: " + result.message() +
                     "; has ngx-billing migrate been run?");
    }
}

Task<std::vector<ClaimedEvent>> EventQueue::claim(int batch, int lease_s) {
    PgParams parameters{batch, lease_s};
    return run_claim(std::move(parameters));
}

Task<std::vector<ClaimedEvent>> EventQueue::run_claim(PgParams parameters) {
    PgResult result = co_await postgres_.query(k_claim, std::move(parameters));
    note(result);
    std::vector<ClaimedEvent> events;
    for (int row = 0; row < result.rows(); ++row) {
        ClaimedEvent& event = events.emplace_back();
        event.stripe_account = result.text(row, 0);
        event.id = result.text(row, 1);
        event.type = result.text(row, 2);
        if (!result.is_null(row, 3)) {
            event.livemode = result.boolean(row, 3);
        }
        event.attempt = result.integer(row, 4);
        event.payload = result.bytes(row, 5);
    }
    co_return events;
}

Task<Marked> EventQueue::failed(const ClaimedEvent& event, std::string_view error, bool counts) {
    PgParams parameters{event.stripe_account, event.id, event.attempt, error, counts};
    return run_mark(k_failed, std::move(parameters));
}

Task<Marked> EventQueue::ignore(const ClaimedEvent& event, std::string_view reason) {
    PgParams parameters{event.stripe_account, event.id, event.attempt, reason};
    return run_mark(k_ignore, std::move(parameters));
}

Task<Marked> EventQueue::park(const ClaimedEvent& event, std::string_view customer, std::string_view reason) {
    PgParams parameters{event.stripe_account, event.id, event.attempt, some(customer), some(reason)};
    return run_mark(k_park, std::move(parameters));
}

Task<Marked> EventQueue::run_mark(std::string_view sql, PgParams parameters) {
    PgResult result = co_await postgres_.query(sql, std::move(parameters));
    note(result);
    const std::string_view answer = result.text(0, 0);
    if (!result || answer.empty()) {
        co_return Marked::unanswered;
    }
    if (answer == "stale" || answer == "f") {
        co_return Marked::stale;
    }
    if (answer == "dead") {
        co_return Marked::dead;
    }
    co_return answer == "received" ? Marked::released : Marked::done;
}

Task<CustomerTicket> EventQueue::ticket(std::string_view customer, std::string_view account, std::string_view payment) {
    PgParams parameters{some(customer), some(account), some(payment)};
    return run_ticket(std::move(parameters));
}

Task<CustomerTicket> EventQueue::run_ticket(PgParams parameters) {
    PgResult result = co_await postgres_.query(k_ticket, std::move(parameters));
    note(result);
    CustomerTicket ticket;
    if (!result) {
        co_return ticket;
    }
    ticket.outcome = CustomerTicket::Outcome::unknown;
    if (result.rows() == 1) {
        ticket.account_id = result.integer(0, 0);
        ticket.account = result.text(0, 1);
        ticket.customer = result.text(0, 2);
        ticket.ticket = result.integer(0, 3);
        const bool conflict = result.boolean(0, 4);
        ticket.former = result.boolean(0, 5);
        ticket.outcome = conflict ? CustomerTicket::Outcome::conflict : CustomerTicket::Outcome::known;
    }
    co_return ticket;
}

Task<Applied> EventQueue::apply(const ClaimedEvent& event, const CustomerTicket& ticket, std::string_view subscriptions,
                                std::string_view effect) {
    PgParams parameters{event.stripe_account, event.id, event.attempt, ticket.account_id, ticket.ticket,
                        some(subscriptions),  effect};
    return run_apply(std::move(parameters));
}

Task<Applied> EventQueue::run_apply(PgParams parameters) {
    PgResult result = co_await postgres_.query(k_apply, std::move(parameters));
    Applied applied;
    if (!result) {
        applied.message = result.message();
        applied.outcome = outcome_of(result);
        if (applied.outcome == Applied::Outcome::unanswered) {
            note(result); // the rest is about this event alone
        }
        co_return applied;
    }
    note(result);
    const auto parsed = parse_json(result.text(0, 0));
    if (!parsed) {
        applied.message = "PostgreSQL's answer cannot be read";
        co_return applied;
    }
    const Json& answer = parsed.value();
    applied.outcome = Applied::Outcome::ok;
    applied.account = member(answer, "account");
    applied.plan_before = member(answer, "plan_before");
    applied.plan = member(answer, "plan");
    applied.status = member(answer, "status");
    applied.stale = true_member(answer.get(), "stale");
    co_return applied;
}

} // namespace billing
