#include "state/reconcile_store.hpp"

#include <utility>

namespace billing {

namespace {

constexpr std::string_view k_unknown = "SELECT * FROM billing.stripe_events_unknown($1::text[])";
constexpr std::string_view k_suspects =
    "SELECT account, customer, unlinked FROM billing.stripe_suspects($1::jsonb, $2, $3)";
constexpr std::string_view k_customer =
    "SELECT coalesce(stripe_customer_id, '') FROM billing.accounts WHERE external_id = $1";
// Somebody who holds an account's row must not hold up the looks at the others; see event_queue.cpp.
constexpr std::string_view k_look = "SELECT billing.stripe_look($1, $2, $3, $4::jsonb, $5, $6, $7, $8) "
                                    "FROM set_config('lock_timeout', '5s', true)";
constexpr std::string_view k_import = "SELECT billing.customer_import($1, $2, $3, $4, $5, $6, $7) "
                                      "FROM set_config('lock_timeout', '5s', true)";
constexpr std::string_view k_begin =
    "SELECT holder, since FROM billing.stripe_pass_begin($1, make_interval(secs => $2))";
constexpr std::string_view k_keep = "SELECT billing.stripe_pass_keep($1, $2::uuid)";
constexpr std::string_view k_months = "SELECT billing.credits_months(100) = 100";
constexpr std::string_view k_purge = "SELECT billing.stripe_purge(make_interval(secs => $1), $2)";
constexpr std::string_view k_done = "SELECT billing.stripe_pass_done($1, $2::uuid)";

std::optional<std::string_view> some(std::string_view text) {
    return text.empty() ? std::nullopt : std::optional<std::string_view>(text);
}

// For what the server or its schema is at the moment, not for what was asked.
bool may_pass(std::string_view sqlstate) noexcept {
    for (const std::string_view group : {"08", "25", "53", "57", "58"}) {
        if (sqlstate.starts_with(group)) {
            return true;
        }
    }
    return false;
}

template <class T>
Asked<T> asked(const PgResult& result) {
    Asked<T> answer;
    if (result) {
        answer.outcome = Asked<T>::Outcome::ok;
        return answer;
    }
    const bool refused = result.outcome() == PgOutcome::refused && !may_pass(result.sqlstate());
    answer.outcome = refused ? Asked<T>::Outcome::refused : Asked<T>::Outcome::unanswered;
    answer.problem = "PostgreSQL: " + result.message();
    return answer;
}

} // namespace

Task<Asked<std::set<std::string>>> ReconcileStore::unknown_events(const std::vector<std::string>& events) {
    PgParams parameters;
    parameters.add(events);
    return run_unknown(std::move(parameters));
}

Task<Asked<std::set<std::string>>> ReconcileStore::run_unknown(PgParams parameters) {
    PgResult result = co_await postgres_.query(k_unknown, std::move(parameters));
    auto answer = asked<std::set<std::string>>(result);
    for (int row = 0; row < result.rows(); ++row) {
        answer.value.emplace(result.text(row, 0));
    }
    co_return answer;
}

Task<Asked<Suspects>> ReconcileStore::suspects(std::string_view page, std::int64_t from, std::int64_t before) {
    PgParams parameters{page, from, before};
    return run_suspects(std::move(parameters));
}

Task<Asked<Suspects>> ReconcileStore::run_suspects(PgParams parameters) {
    PgResult result = co_await postgres_.query(k_suspects, std::move(parameters));
    auto answer = asked<Suspects>(result);
    for (int row = 0; row < result.rows(); ++row) {
        if (result.is_null(row, 0)) {
            answer.value.unlinked = result.integer(row, 2);
        } else {
            answer.value.accounts.push_back({std::string{result.text(row, 0)}, std::string{result.text(row, 1)}});
        }
    }
    co_return answer;
}

Task<Asked<std::optional<std::string>>> ReconcileStore::customer_of(std::string_view account) {
    PgParams parameters{account};
    return run_customer_of(std::move(parameters));
}

Task<Asked<std::optional<std::string>>> ReconcileStore::run_customer_of(PgParams parameters) {
    PgResult result = co_await postgres_.query(k_customer, std::move(parameters));
    auto answer = asked<std::optional<std::string>>(result);
    if (result.rows() == 1) {
        answer.value = result.text(0, 0);
    }
    co_return answer;
}

Task<Asked<Json>> ReconcileStore::apply_look(const LookToApply& look) {
    PgParams parameters{look.whose.account, look.whose.customer,       look.ticket,        look.subscriptions,
                        look.why,           some(look.payment_policy), look.grace_seconds, look.actor};
    return run_json(k_look, std::move(parameters));
}

Task<Asked<Json>> ReconcileStore::import_customer(const CustomerToImport& customer) {
    PgParams parameters{customer.customer, some(customer.account), some(customer.email), some(customer.name),
                        customer.livemode, customer.actor,         customer.dry};
    return run_json(k_import, std::move(parameters));
}

Task<Asked<Json>> ReconcileStore::run_json(std::string_view sql, PgParams parameters) {
    PgResult result = co_await postgres_.query(sql, std::move(parameters));
    auto answer = asked<Json>(result);
    if (answer) {
        auto parsed = parse_json(result.text(0, 0));
        if (parsed) {
            answer.value = std::move(parsed).value();
        } else {
            answer.outcome = Asked<Json>::Outcome::refused;
            answer.problem = "PostgreSQL's answer cannot be read";
        }
    }
    co_return answer;
}

Task<std::optional<PassHeld>> ReconcileStore::begin_pass(std::string_view kind, std::int64_t every_s) {
    PgParams parameters{kind, every_s};
    return run_begin(std::move(parameters));
}

Task<std::optional<PassHeld>> ReconcileStore::run_begin(PgParams parameters) {
    PgResult result = co_await postgres_.query(k_begin, std::move(parameters));
    std::optional<PassHeld> held;
    if (result.rows() == 1) {
        held = PassHeld{std::string{result.text(0, 0)}, result.integer(0, 1)};
    }
    co_return held;
}

Task<bool> ReconcileStore::keep_pass(std::string_view kind, std::string_view holder) {
    PgParams parameters{kind, holder};
    return run_yes(k_keep, std::move(parameters));
}

Task<bool> ReconcileStore::finish_pass(std::string_view kind, std::string_view holder) {
    PgParams parameters{kind, holder};
    return run_yes(k_done, std::move(parameters));
}

Task<bool> ReconcileStore::refill_months() { return run_yes(k_months, PgParams{}); }

Task<Asked<std::int64_t>> ReconcileStore::purge(std::int64_t keep_s, int batch) {
    PgParams parameters{keep_s, batch};
    return run_purge(std::move(parameters));
}

Task<Asked<std::int64_t>> ReconcileStore::run_purge(PgParams parameters) {
    PgResult result = co_await postgres_.query(k_purge, std::move(parameters));
    auto answer = asked<std::int64_t>(result);
    if (answer) {
        answer.value = result.integer(0, 0);
    }
    co_return answer;
}

Task<bool> ReconcileStore::run_yes(std::string_view sql, PgParams parameters) {
    PgResult result = co_await postgres_.query(sql, std::move(parameters));
    co_return result.boolean(0, 0);
}

} // namespace billing
