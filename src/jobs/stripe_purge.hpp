// Forgets by itself what of Stripe's events and checkouts need not be kept: what an event carried, the address of a
// checkout that is over. Run by the worker that holds the host's lease; of all hosts one does it at a time.
#pragma once

#include "async/complaint.hpp"
#include "async/task.hpp"
#include "state/reconcile_store.hpp"

#include <cstdint>
#include <string>

namespace billing {

class StripePurge {
public:
    // `keep_s`: how long an event that is done keeps what it carried, at least a day. All references outlive the
    // object.
    StripePurge(Reactor& reactor, Postgres& postgres, std::int64_t keep_s);
    StripePurge(const StripePurge&) = delete;
    StripePurge& operator=(const StripePurge&) = delete;

    // For ever; begins nothing once the process is leaving.
    Task<void> run();

private:
    Task<void> pass();
    Task<bool> all(std::string holder);

    Reactor& reactor_;
    std::int64_t keep_s_;
    ReconcileStore store_;
    Complaint trouble_;
};

} // namespace billing
