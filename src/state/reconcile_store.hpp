// What reconciling and importing ask of PostgreSQL, one coroutine for each SQL function. Called by the jobs and by the
// command; the pool outlives whoever awaits.
#pragma once

#include "domain/json.hpp"
#include "drivers/postgres.hpp"

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace billing {

// An answer, or why there is none. Texts are fit for the log.
template <class T>
struct Asked {
    enum class Outcome : std::uint8_t {
        ok,
        refused,    // the next time will be no better
        unanswered, // it may have happened
    };
    Outcome outcome = Outcome::unanswered;
    std::string problem;
    T value{};

    explicit operator bool() const noexcept { return outcome == Outcome::ok; }
};

struct LinkedCustomer {
    std::string account;
    std::string customer;
};

struct Suspects {
    std::vector<LinkedCustomer> accounts;
    std::int64_t unlinked = 0; // subscriptions of customers that no account has
};

// What is to be applied of a look at a customer; see billing.stripe_look().
struct LookToApply {
    LinkedCustomer whose;
    std::optional<std::int64_t> ticket; // nothing: it is only to be told what would happen
    std::string subscriptions;          // JSON
    const char* why = "reconcile";
    std::string payment_policy;
    std::optional<std::int64_t> grace_seconds;
    std::string actor;
};

// A customer and what may tell whose it is; see billing.customer_import().
struct CustomerToImport {
    std::string customer;
    std::string account; // "": the one that has the email
    std::string email;
    std::string name;
    std::optional<bool> livemode;
    std::string actor;
    bool dry = false;
};

struct PassHeld {
    std::string holder;
    std::int64_t since = 0; // unix seconds
};

class ReconcileStore {
public:
    explicit ReconcileStore(Postgres& postgres) : postgres_(postgres) {}

    // Which of these events nobody has stored.
    Task<Asked<std::set<std::string>>> unknown_events(const std::vector<std::string>& events);
    // `page`: JSON, an array of subscription_facts(); created from `from` until before `before`.
    Task<Asked<Suspects>> suspects(std::string_view page, std::int64_t from, std::int64_t before);
    // "" where it has none; nothing where there is no such account.
    Task<Asked<std::optional<std::string>>> customer_of(std::string_view account);
    Task<Asked<Json>> apply_look(const LookToApply& look);
    Task<Asked<Json>> import_customer(const CustomerToImport& customer);

    // The passes that hosts make by themselves: nothing where none is due, or PostgreSQL did not say.
    Task<std::optional<PassHeld>> begin_pass(std::string_view kind, std::int64_t every_s);
    Task<bool> keep_pass(std::string_view kind, std::string_view holder);
    Task<bool> finish_pass(std::string_view kind, std::string_view holder);
    // Gives some of those their credits whose next month of a yearly price has begun. True: there may be more of them.
    Task<bool> refill_months();
    // Forgets what of events and checkouts is not kept, at most `batch` of each; how many there were.
    Task<Asked<std::int64_t>> purge(std::int64_t keep_s, int batch);

private:
    Task<Asked<std::set<std::string>>> run_unknown(PgParams parameters);
    Task<Asked<Suspects>> run_suspects(PgParams parameters);
    Task<Asked<std::optional<std::string>>> run_customer_of(PgParams parameters);
    Task<Asked<Json>> run_json(std::string_view sql, PgParams parameters);
    Task<std::optional<PassHeld>> run_begin(PgParams parameters);
    Task<Asked<std::int64_t>> run_purge(PgParams parameters);
    Task<bool> run_yes(std::string_view sql, PgParams parameters);

    Postgres& postgres_;
};

} // namespace billing
