// Each worker tells shared memory how it stands with PostgreSQL and Redis, so that whichever is asked for metrics can
// answer for all. Run in every worker, as long as it lives.
#pragma once

#include "async/task.hpp"
#include "drivers/postgres.hpp"
#include "drivers/redis.hpp"
#include "state/table.hpp"

#include <cstdint>

namespace billing {

// `redis` may be null. All references outlive the task.
Task<void> keep_telling(Reactor& reactor, Table& table, std::uint32_t pid, const Postgres& postgres,
                        const Redis* redis);

} // namespace billing
