// What falls due in PostgreSQL by time alone: credits, and places of a stock, that requests took and nobody decided,
// for their worker or its host is gone, go back; keys of requests are forgotten; periods of quotas that ended with
// overage are charged for. Run by the worker that holds the host's lease; several hosts may run it at once.
#pragma once

#include "async/complaint.hpp"
#include "async/task.hpp"
#include "drivers/postgres.hpp"

#include <string_view>

namespace billing {

class Sweeper {
public:
    Sweeper(Reactor& reactor, Postgres& postgres) noexcept
        : reactor_(reactor), postgres_(postgres), trouble_(reactor) {}

    // For ever: each few seconds, and at once again while there is much to do.
    Task<void> run();

private:
    // At most so many at once. True: there is more to do.
    Task<bool> sweep(std::string_view statement, std::int64_t most);

    Reactor& reactor_;
    Postgres& postgres_;
    Complaint trouble_;
};

} // namespace billing
