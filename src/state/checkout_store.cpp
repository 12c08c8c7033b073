#include "state/checkout_store.hpp"

namespace billing {

namespace {

constexpr std::string_view k_resolve =
    "SELECT outcome, price_id, mode, plan FROM billing.resolve_price($1, nullif($2, ''), $3)";
constexpr std::string_view k_begin =
    "SELECT outcome, customer, customer_intent, email, name, mode, plan, credit, quantity, session, url, intent, "
    "current_plan, current_status, first FROM billing.checkout_begin($1, $2, $3, $4, $5)";
constexpr std::string_view k_opened = "SELECT billing.checkout_opened($1, $2, $3, $4, nullif($5::bigint, 0))";
constexpr std::string_view k_closed = "SELECT billing.checkout_closed($1, $2)";
constexpr std::string_view k_failed = "SELECT billing.checkout_failed($1)";
constexpr std::string_view k_link = "SELECT customer FROM billing.customer_link($1, $2)";
constexpr std::string_view k_unlink = "SELECT billing.customer_unlink($1, $2)";
constexpr std::string_view k_customer = "SELECT billing.customer_of($1)";
constexpr std::string_view k_begin_customer =
    "SELECT customer, customer_intent, email, name FROM billing.customer_begin($1, $2, $3)";
constexpr std::string_view k_upgrade = "SELECT billing.development_upgrade($1, $2)";
constexpr std::string_view k_role = "SELECT billing.member_role($1, $2)";

PriceAnswer::Outcome price_outcome(std::string_view word) noexcept {
    using Outcome = PriceAnswer::Outcome;
    return word == "ok" ? Outcome::ok : word == "no_price" ? Outcome::no_price : Outcome::unknown;
}

CheckoutStart::Outcome start_outcome(std::string_view word) noexcept {
    using Outcome = CheckoutStart::Outcome;
    struct Name {
        std::string_view word;
        Outcome outcome;
    };
    constexpr Name k_names[] = {
        {"create", Outcome::create},
        {"reuse", Outcome::reuse},
        {"replace", Outcome::replace},
        {"subscribed", Outcome::subscribed},
        {"paid", Outcome::paid},
        {"unknown_price", Outcome::unknown_price},
        {"unknown_account", Outcome::unknown_account},
    };
    for (const Name& name : k_names) {
        if (name.word == word) {
            return name.outcome;
        }
    }
    return Outcome::unavailable;
}

SessionStored session_stored(std::string_view word) noexcept {
    if (word == "open") {
        return SessionStored::open;
    }
    if (word == "paid" || word == "complete") {
        return SessionStored::paid;
    }
    return word == "expired" ? SessionStored::expired : SessionStored::superseded;
}

PlanSet plan_set(std::string_view word) noexcept {
    if (word == "ok") {
        return PlanSet::ok;
    }
    if (word == "unknown_plan") {
        return PlanSet::unknown_plan;
    }
    return word == "live" ? PlanSet::live : PlanSet::unknown_account;
}

std::string text(const PgResult& result, int column) { return std::string{result.text(0, column)}; }

// From three columns of a row.
CustomerPlan customer_plan(const PgResult& result, int column) {
    return {text(result, column), text(result, column + 1), text(result, column + 2)};
}

} // namespace

// True: it answered. An account whose row somebody holds is that account's trouble, not the database's.
bool CheckoutStore::check(const PgResult& result) {
    constexpr std::string_view k_lock_not_available = "55P03";
    if (result.outcome() == PgOutcome::refused && result.sqlstate() != k_lock_not_available) {
        trouble_.say("PostgreSQL refuses what a checkout needs: " + result.message() +
                     "; has ngx-billing migrate been run?");
    } else if (result) {
        trouble_.settled();
    }
    return result.ok();
}

Task<PriceAnswer> CheckoutStore::resolve_price(std::string name, std::string interval, bool livemode) {
    PgParams parameters{name, interval, livemode};
    PgResult result = co_await postgres_.query(k_resolve, std::move(parameters));
    PriceAnswer answer;
    if (check(result)) {
        answer.outcome = price_outcome(result.text(0, 0));
        answer.price = text(result, 1);
        answer.mode = text(result, 2);
        answer.plan = text(result, 3);
    }
    co_return answer;
}

Task<CheckoutStart> CheckoutStore::begin(std::string account, std::string price, std::string style, Contact contact) {
    PgParams parameters{account, price, style, contact.email, contact.name};
    PgResult result = co_await postgres_.query(k_begin, std::move(parameters));
    CheckoutStart start;
    if (check(result)) {
        start.outcome = start_outcome(result.text(0, 0));
        start.customer = text(result, 1);
        start.customer_plan = customer_plan(result, 2);
        start.mode = text(result, 5);
        start.plan = text(result, 6);
        start.credit = text(result, 7);
        start.quantity = result.integer(0, 8);
        start.session = text(result, 9);
        start.url = text(result, 10);
        start.intent = text(result, 11);
        start.current_plan = text(result, 12);
        start.current_status = text(result, 13);
        start.first = result.text(0, 14) == "t";
    }
    co_return start;
}

Task<SessionStored> CheckoutStore::opened(std::string account, std::string intent, std::string session, std::string url,
                                          std::int64_t expires) {
    PgParams parameters{account, intent, session, url, expires};
    PgResult result = co_await postgres_.query(k_opened, std::move(parameters));
    co_return check(result) ? session_stored(result.text(0, 0)) : SessionStored::unavailable;
}

Task<void> CheckoutStore::closed(std::string session, std::string status) {
    PgParams parameters{session, status};
    PgResult result = co_await postgres_.query(k_closed, std::move(parameters));
    check(result);
}

Task<void> CheckoutStore::failed(std::string intent) {
    PgParams parameters{intent};
    PgResult result = co_await postgres_.query(k_failed, std::move(parameters));
    check(result);
}

Task<std::string> CheckoutStore::link_customer(std::string account, std::string customer) {
    PgParams parameters{account, customer};
    PgResult result = co_await postgres_.query(k_link, std::move(parameters));
    co_return check(result) && result.rows() == 1 ? text(result, 0) : std::string{};
}

Task<Unlinked> CheckoutStore::unlink_customer(std::string account, std::string customer) {
    PgParams parameters{account, customer};
    PgResult result = co_await postgres_.query(k_unlink, std::move(parameters));
    if (!check(result)) {
        co_return Unlinked::unavailable;
    }
    co_return result.text(0, 0) == "live" ? Unlinked::live : Unlinked::gone;
}

Task<CheckoutStore::Customer> CheckoutStore::customer_of(std::string account) {
    PgParams parameters{account};
    PgResult result = co_await postgres_.query(k_customer, std::move(parameters));
    Customer customer;
    if (check(result)) {
        customer.known = true;
        customer.id = text(result, 0);
    }
    co_return customer;
}

Task<CheckoutStore::CustomerStart> CheckoutStore::begin_customer(std::string account, Contact contact) {
    using Outcome = CustomerStart::Outcome;
    PgParams parameters{account, contact.email, contact.name};
    PgResult result = co_await postgres_.query(k_begin_customer, std::move(parameters));
    CustomerStart start;
    if (check(result)) {
        start.outcome = result.rows() == 1 ? Outcome::known : Outcome::unknown_account;
        if (result.rows() == 1) {
            start.id = text(result, 0);
            start.plan = customer_plan(result, 1);
        }
    }
    co_return start;
}

Task<PlanSet> CheckoutStore::set_plan(std::string account, std::string plan) {
    PgParams parameters{account, plan};
    PgResult result = co_await postgres_.query(k_upgrade, std::move(parameters));
    co_return check(result) ? plan_set(result.text(0, 0)) : PlanSet::unavailable;
}

Task<std::optional<std::string>> CheckoutStore::member_role(std::string account, std::string subject) {
    PgParams parameters{account, subject};
    PgResult result = co_await postgres_.query(k_role, std::move(parameters));
    co_return check(result) ? std::optional{text(result, 0)} : std::nullopt;
}

} // namespace billing
