// A pass over Stripe's own lists: events that never came are stored, so that the inbox applies them; subscriptions are
// compared with what is stored, and where they differ the customer is looked at and its account brought in order. Run
// by the host's jobs on a schedule, and by the operator's command.
#pragma once

#include "async/scope.hpp"
#include "jobs/customer_look.hpp"
#include "jobs/stripe_list.hpp"
#include "state/event_writer.hpp"
#include "state/reconcile_store.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace billing {

struct ReconcileCounts {
    std::int64_t events = 0;   // that Stripe listed
    std::int64_t missed = 0;   // of these, the ones that had not come
    std::int64_t looked = 0;   // accounts
    std::int64_t drifted = 0;  // of these, the ones that were not as Stripe has them
    std::int64_t failed = 0;   // of these, the ones that could not be brought in order
    std::int64_t unlinked = 0; // subscriptions that are not over, of customers that no account has
};

class Reconciler {
public:
    // What is found, as it is found, and how fast one may go; any may be empty.
    struct Listener {
        std::function<void(const NewEvent& event)> missed;
        std::function<void(const json_t* answer)> drifted; // what billing.stripe_look() tells
        std::function<void(const LinkedCustomer& whose, const std::string& problem)> failed;
        std::function<Task<bool>()> go_on; // asked before each page and account; false ends the pass
        ListPace pace;
    };

    Reconciler(Reactor& reactor, Postgres& postgres, StripeApi& stripe, bool livemode, LookSettings settings,
               Listener listener);
    Reconciler(const Reconciler&) = delete;
    Reconciler& operator=(const Reconciler&) = delete;
    ~Reconciler();

    // Events that Stripe has made since then (unix seconds).
    Task<Trouble> missed_events(std::int64_t since);
    Task<Trouble> all_subscriptions();
    Task<Trouble> one_account(LinkedCustomer whose);

    const ReconcileCounts& counts() const noexcept { return counts_; }

private:
    Task<Trouble> events_of_types(std::vector<std::string_view> types, std::int64_t since);
    Task<Trouble> store_unknown(const StripePage& page);
    Task<Trouble> hold();

    Scope scope_;
    EventWriter events_;
    ReconcileStore store_;
    CustomerLook look_;
    Reactor& reactor_;
    StripeApi& stripe_;
    bool livemode_;
    bool dry_;
    Listener listener_;
    ReconcileCounts counts_;
    std::int64_t missing_ = 0; // customers in a row that Stripe does not know
};

} // namespace billing
