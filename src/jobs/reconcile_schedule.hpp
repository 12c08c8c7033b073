// Reconciles by itself: missed events every few minutes, all subscriptions every hour; and sees to what no event comes
// for, the months of yearly prices. Run by the worker that holds the host's lease; of all hosts one makes a pass at a
// time, which PostgreSQL settles, and whose death frees it after minutes.
#pragma once

#include "async/complaint.hpp"
#include "jobs/reconciler.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace billing {

class ReconcileSchedule {
public:
    // All references outlive the object.
    ReconcileSchedule(Reactor& reactor, Postgres& postgres, StripeApi& stripe, bool livemode, LookSettings settings);
    ReconcileSchedule(const ReconcileSchedule&) = delete;
    ReconcileSchedule& operator=(const ReconcileSchedule&) = delete;

    // For ever; begins nothing once the process is leaving.
    Task<void> run();

private:
    Task<void> pass(std::string_view kind, std::int64_t every_s);
    Task<void> months();
    Reconciler::Listener listener(std::string_view kind, const std::string& holder);
    void conclude(std::string_view kind, const Trouble& trouble, const ReconcileCounts& counts);

    Reactor& reactor_;
    Postgres& postgres_;
    StripeApi& stripe_;
    bool livemode_;
    LookSettings settings_;
    ReconcileStore store_;
    Complaint trouble_;
};

} // namespace billing
