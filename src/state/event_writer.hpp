// Stripe's events on their way into PostgreSQL: what the webhook endpoint of a worker stores, and the pass that looks
// for events which never came. Those that come while others are being stored go together, as one statement with one
// commit: a commit costs more than an event.
#pragma once

#include "async/batch.hpp"
#include "async/complaint.hpp"
#include "async/task.hpp"
#include "drivers/postgres.hpp"
#include "state/new_event.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace billing {

enum class Stored : std::uint8_t {
    stored,
    duplicate, // it was there already; nothing has changed
    failed,    // PostgreSQL did not say that it has it: Stripe has to send it again
};

class EventWriter {
public:
    // References outlive the object; the scope is cancelled before.
    EventWriter(Scope& scope, Postgres& postgres);

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
