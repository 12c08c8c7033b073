// The published form of an account, read. PostgreSQL writes it (billing.snapshots), Redis and the change stream carry
// it.
#pragma once

#include "domain/account.hpp"
#include "domain/result.hpp"

#include <string_view>

namespace billing {

// Refuses what is not exactly a snapshot: a cache that holds nonsense must look like a cache that holds nothing.
Result<Snapshot> read_snapshot(std::string_view body);

} // namespace billing
