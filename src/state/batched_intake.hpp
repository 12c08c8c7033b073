// Stripe's events on their way into PostgreSQL: what the webhook endpoint of a worker stores. Those that come while
// others are being stored go together, as one statement with one commit: a commit costs more than an event.
#pragma once

#include "async/batch.hpp"
#include "async/complaint.hpp"
#include "async/task.hpp"
#include "drivers/postgres.hpp"
#include "state/event_inbox.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace billing {

class BatchedIntake {
public:
    // References outlive the object; the scope is cancelled before.
    BatchedIntake(Scope& scope, Postgres& postgres);

    // Durable once it says `stored` or `duplicate`. A statement has 4 s, and may wait for another.
    Task<Stored> store(NewEvent event, std::string_view payload);

private:
    struct Ask {
        NewEvent event;
        std::string payload; // the bytes that were signed
    };

    Task<std::vector<Stored>> run(std::vector<Ask> asks);
    Task<std::vector<Stored>> run_each(std::vector<Ask> asks);
    Task<Stored> join(Ask ask);

    Postgres& postgres_;
    Complaint trouble_;
    Batch<Ask, Stored> batch_;
};

} // namespace billing
