// Reports what this host's requests have spent and what they were let through with unasked, and gives back the tokens
// that lie idle: frozen, numbered batches that PostgreSQL applies once each. Run by the worker that holds the host's
// lease.
#pragma once

#include "async/complaint.hpp"
#include "async/signal.hpp"
#include "async/task.hpp"
#include "drivers/postgres.hpp"
#include "state/table.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace billing {

// Parts of quotas whose use is told to their accounts, once for each period: `billing_quota NAME warn=80%`. PostgreSQL
// sees when they are reached; hosts that share it have the same ones.
struct QuotaThresholds {
    std::vector<std::string> quotas;
    std::vector<std::int32_t> percents; // one for each of them

    void add(const std::string& quota, std::uint8_t percent);
};

class UsageFlusher {
public:
    // `wake`: tokens may have been freed that another host waits for.
    UsageFlusher(Reactor& reactor, Postgres& postgres, Table& table, Signal& wake, std::string host,
                 QuotaThresholds thresholds);

    // For ever: each second, and at each wake-up.
    Task<void> run();

    // When the host ends: everything that is held goes back, everything spent is reported. False: PostgreSQL did not
    // take it.
    Task<bool> finish();

private:
    Task<bool> flush();
    Task<bool> charge_late();
    // Sends a batch, or, where PostgreSQL would refuse it for ever, the empty one in its place. True: it has it.
    template <class Row>
    Task<bool> send(std::string_view statement, std::vector<Row> rows, std::uint64_t sequence, std::string what);
    void sweep();

    Reactor& reactor_;
    Postgres& postgres_;
    Table& table_;
    Signal& wake_;
    std::string host_;
    QuotaThresholds thresholds_;
    Complaint trouble_;
    std::int64_t swept_ms_ = 0;
};

} // namespace billing
