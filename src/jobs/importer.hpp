// What was at Stripe before this gate was: customers are matched to accounts and linked, and the accounts of those who
// subscribe are brought to what events would have made of them. May be repeated. Run by the operator's command.
#pragma once

#include "jobs/customer_look.hpp"
#include "jobs/stripe_list.hpp"
#include "state/reconcile_store.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>

namespace billing {

// What tells whose a customer is.
struct ImportMatch {
    enum class By : std::uint8_t {
        metadata, // `key` in its metadata, or in a subscription's
        email,    // the account that has its email
        list,     // `accounts`, by customer
    };
    By by = By::metadata;
    std::string key = "account";
    std::map<std::string, std::string> accounts;
};

// One customer, and what has become of it.
struct ImportedCustomer {
    std::string customer;
    std::string account; // "": none is known
    std::string
        outcome; // as billing.customer_import() tells it; "failed" where its subscriptions could not be brought in
    std::string problem;    // of failed: why; of taken: the customer that the account has
    bool pays = false;      // has a subscription that gives a plan
    bool created = false;   // the account has come into being
    bool unplanned = false; // pays, for a price that the catalog does not have
    Json answer;            // what billing.stripe_look() tells, if it was looked at
};

struct ImportCounts {
    std::int64_t customers = 0;
    std::int64_t linked = 0;
    std::int64_t created = 0;   // accounts
    std::int64_t changed = 0;   // accounts, by what they subscribe to
    std::int64_t unmatched = 0; // customers without a subscription, that stay as they are
    std::int64_t nameless = 0;  // customers of whom nothing tells whose they are
    std::int64_t left = 0;      // customers who pay, and have no access by it
};

class Importer {
public:
    using Listener = std::function<void(const ImportedCustomer& one)>;

    Importer(Reactor& reactor, Postgres& postgres, StripeApi& stripe, ImportMatch match, LookSettings settings,
             Listener listener);
    Importer(const Importer&) = delete;
    Importer& operator=(const Importer&) = delete;

    // Who subscribes first: of several customers that one account had, it gets the one that is paying.
    Task<Trouble> run();

    const ImportCounts& counts() const noexcept { return counts_; }

private:
    Task<Trouble> subscribers();
    Task<Trouble> everybody_else();
    Task<Trouble> import_one(StripeCustomer customer, StripeSubscription subscription);
    Task<Trouble> look_at(ImportedCustomer& one);
    std::string account_of(const StripeCustomer& customer, const StripeSubscription& subscription) const;
    void conclude(const ImportedCustomer& one);

    Reactor& reactor_;
    StripeApi& stripe_;
    ImportMatch match_;
    std::string actor_;
    bool dry_;
    Listener listener_;
    ReconcileStore store_;
    CustomerLook look_;
    std::set<std::string> seen_; // customers
    ImportCounts counts_;
};

} // namespace billing
