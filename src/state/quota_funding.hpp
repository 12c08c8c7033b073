// Quota tokens from PostgreSQL, the only mint, into this host's shared memory. All that asks within one turn of the
// loop is one statement. One for each worker.
#pragma once

#include "async/batch.hpp"
#include "async/complaint.hpp"
#include "async/task.hpp"
#include "drivers/postgres.hpp"
#include "state/table.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

namespace billing {

class QuotaFunding {
public:
    static constexpr std::size_t k_max_needs = 4;

    struct Need {
        std::uint8_t limit_no = 0;
        std::int64_t period = 0; // as the host's clock says
        std::uint32_t cost = 0;
    };
    // What one request needs, all or nothing.
    struct Ask {
        AccountKey key{};
        std::uint64_t account_id = 0;
        std::uint32_t count = 0;
        std::array<Need, k_max_needs> needs{};
    };
    struct Answer {
        bool told = true; // false: PostgreSQL could not say, as when somebody holds the row
        bool granted = false;
        bool elsewhere = false; // refused, but hosts may hold as much as is missing; they have been asked to return it
        struct Line {
            std::int64_t period = 0; // PostgreSQL's
            bool unlimited = false;
            std::uint64_t limit = 0;
            std::uint64_t left = 0; // not issued yet, overage included
            bool enough = false;    // this line alone would have been granted
            // Unix seconds: the period's end; for a refusal where periods overlap, when the need can be met. 0 = never.
            std::int64_t resets = 0;
        };
        std::array<Line, k_max_needs> lines{};
    };

    // All references outlive the object; the scope is cancelled before.
    QuotaFunding(Scope& scope, Postgres& postgres, Table& table);

    // Tokens granted lie in the table when the answer comes, for whoever spends first. Nothing: PostgreSQL did not
    // answer; what it may have issued is forfeited, never asked for again.
    Task<std::optional<Answer>> fund(Ask ask);

private:
    Task<std::vector<Answer>> run(std::vector<Ask> asks);
    Task<std::vector<Answer>> run_each(std::vector<Ask> asks);
    Answer read_answer(const PgResult& result, int row, const Ask& ask);
    std::uint32_t want(const Ask& ask, const Need& need);

    struct Appetite {
        std::int64_t last_ms = 0;
        std::uint32_t want = 0;
        bool under_way = false;
    };

    Scope& scope_;
    Postgres& postgres_;
    Table& table_;
    Complaint trouble_;
    Batch<Ask, Answer> batch_;
    std::unordered_map<std::uint64_t, Appetite> appetites_; // by account and limit; bounded, a lost entry costs nothing
};

} // namespace billing
