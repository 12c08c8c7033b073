// What the subcommands of ngx-billing share: exit codes, output, the database.
#pragma once

#include "async/task.hpp"
#include "drivers/address.hpp"
#include "drivers/postgres.hpp"
#include "drivers/stripe_api.hpp"
#include "state/redis_cache.hpp"

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace billing {

// Documented in --help; scripts rely on them.
enum ExitCode : int {
    k_exit_ok = 0,
    k_exit_failed = 1,      // refused: unknown account, invalid value, changed migration
    k_exit_usage = 2,       // the command line is wrong
    k_exit_unreachable = 3, // PostgreSQL or Stripe cannot be reached
};

struct CommandOptions {
    std::string dsn; // as given: conninfo, or file:PATH, env:NAME
    bool json = false;
};

// One line on standard error; returns the code, for `return fail(...)`.
int fail(ExitCode code, const std::string& what);

// The connection string behind --dsn, else behind the environment's BILLING_POSTGRES; resolved. Complains and returns
// empty when there is none.
std::string conninfo_of(const CommandOptions& options);

// Of Redis, from an address as billing_redis takes it. Complains and returns nothing when it is none.
std::optional<RedisAddress> redis_of(const std::string& given);

// Connects, runs the work, returns its exit code; k_exit_unreachable when no connection comes up.
int with_postgres(const CommandOptions& options, const std::function<Task<int>(Postgres&)>& work);

// The same with the cache of hosts, null where none is given.
int with_stores(const CommandOptions& options, const std::optional<RedisAddress>& redis,
                const std::function<Task<int>(Postgres&, RedisCache*)>& work);

// Where Stripe's key is, never the key itself.
struct StripeOptions {
    std::string key = "env:STRIPE_SECRET_KEY"; // or file:PATH
    std::string api = "https://api.stripe.com";
};

// How to call Stripe; complains and returns nothing where there is no key, or none that may be used so.
std::optional<StripeConfig> stripe_of(const StripeOptions& options);

// What a subcommand works with that talks to Stripe.
struct StripeWork {
    Reactor& reactor;
    Postgres& postgres;
    StripeApi& stripe;
    bool livemode;
};
int with_stripe(const CommandOptions& options, const StripeOptions& stripe,
                const std::function<Task<int>(StripeWork)>& work);

// For a result that is not ok: says what PostgreSQL said, or what to do when the schema is missing. Returns the exit
// code.
int explain_failure(const PgResult& result);

// The subcommands.
int migrate(const CommandOptions& options, const std::string& directory, bool dry_run);
int catalog_validate(const CommandOptions& options, const std::string& path);
int catalog_apply(const CommandOptions& options, const std::string& path);
int account_show(const CommandOptions& options, const std::string& account);
int account_explain(const CommandOptions& options, const std::string& account, const std::string& redis);
int account_set(const CommandOptions& options, const std::string& account, const std::string& changes);

struct NewKey {
    std::string account;
    std::string name;    // "" = none
    std::string expires; // as PostgreSQL reads times; "" = never
    bool make_account = false;
};
int keys_create(const CommandOptions& options, const NewKey& wanted);
int keys_list(const CommandOptions& options, const std::string& account); // "" = of all
int keys_revoke(const CommandOptions& options, const std::string& key);   // its name, or the whole key

struct PushOptions {
    std::string path;     // of the catalog file
    std::string headline; // of the portal
    bool live = false;    // also with a live key
    bool dry_run = false;
};
int catalog_push(const CommandOptions& options, const StripeOptions& stripe, const PushOptions& wanted);

struct EventFilter {
    std::string status; // "" = any; so are the others
    std::string account;
    std::string since; // as since_time() takes it
    int most = 100;
};
int events_list(const CommandOptions& options, const EventFilter& wanted);
int events_show(const CommandOptions& options, const std::string& event, bool payload);
// Those named, or all dead ones since then.
int events_replay(const CommandOptions& options, const std::vector<std::string>& events, bool dead,
                  const std::string& since);

struct ReconcileOptions {
    std::string account; // "" = all
    std::string since = "72h";
    std::string payment_failed = "grace 7d"; // as billing_payment_failed
    bool dry_run = false;
    std::int64_t since_s = 0; // follows from `since`
};
int reconcile(const CommandOptions& options, const StripeOptions& stripe, const ReconcileOptions& wanted);

struct ImportOptions {
    std::string match = "metadata:account"; // or email, or csv:FILE
    std::string payment_failed = "grace 7d";
    bool dry_run = false;
};
int import_customers(const CommandOptions& options, const StripeOptions& stripe, const ImportOptions& wanted);

} // namespace billing
