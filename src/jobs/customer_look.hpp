// A look at one customer of Stripe outside of any event, brought to its account by the way that events take. What a
// pass over all of them, and the operator's import, do for each. Owned by whoever makes the pass.
#pragma once

#include "drivers/stripe_api.hpp"
#include "state/event_queue.hpp"
#include "state/reconcile_store.hpp"

#include <cstdint>
#include <optional>
#include <string>

namespace billing {

struct LookSettings {
    const char* why = "reconcile"; // or "import"
    std::string payment_policy = "grace";
    std::optional<std::int64_t> grace_seconds;
    std::string actor; // under whose name the audit keeps it
    bool dry = false;  // tell what would happen, and change nothing
};

struct Looked {
    enum class Outcome : std::uint8_t {
        ok,
        missing, // Stripe does not know the customer: nothing has changed, for the key may be another account's
        failed,  // this one cannot be brought in order; the others can
        later,   // somebody could not be reached
        refused, // the key may not do this
    };
    Outcome outcome = Outcome::later;
    std::string problem;
    Json answer; // of ok: what billing.stripe_look() tells
};

class CustomerLook {
public:
    CustomerLook(Reactor& reactor, Postgres& postgres, StripeApi& stripe, LookSettings settings);

    Task<Looked> run(LinkedCustomer whose);

private:
    Reactor& reactor_;
    StripeApi& stripe_;
    LookSettings settings_;
    EventQueue queue_;
    ReconcileStore store_;
};

} // namespace billing
