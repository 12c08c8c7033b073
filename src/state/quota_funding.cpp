#include "state/quota_funding.hpp"

#include <algorithm>
#include <set>

namespace billing {

namespace {

constexpr std::size_t k_batch = 256;
constexpr std::size_t k_max_waiters = 4096;

// What a host takes beyond the need, far from the limit: enough for half a second at the account's present rate.
constexpr std::uint32_t k_least_want = 64;
constexpr std::uint32_t k_most_want = 1U << 20;
constexpr std::int64_t k_rate_window_ms = 500;
constexpr std::size_t k_most_appetites = 4096;

constexpr std::string_view k_fund = "SELECT granted, period, cap, issued, used, ends, beyond FROM "
                                    "billing.quota_fund($1::integer[], $2::bigint[], $3::smallint[], "
                                    "$4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[]) ORDER BY ord";

std::uint64_t appetite_key(std::uint64_t account_id, std::uint8_t limit_no) noexcept {
    return account_id << 6 | limit_no; // limit numbers are below 64
}

// The arrays of one call, a row for each need.
struct FundRows {
    std::vector<std::int32_t> groups;
    std::vector<std::int64_t> accounts, periods, needs, wants, spent_here;
    std::vector<std::int16_t> limits;

    void add(std::size_t group, std::uint64_t account, const QuotaFunding::Need& need, std::uint32_t want) {
        groups.push_back(static_cast<std::int32_t>(group));
        accounts.push_back(static_cast<std::int64_t>(account));
        limits.push_back(need.limit_no);
        periods.push_back(need.period);
        needs.push_back(need.cost);
        wants.push_back(want);
        spent_here.push_back(0);
    }

    PgParams parameters() const { return PgParams{groups, accounts, limits, periods, needs, wants, spent_here}; }
};

} // namespace

QuotaFunding::QuotaFunding(Scope& scope, Postgres& postgres, Table& table)
    : scope_(scope), postgres_(postgres), table_(table), trouble_(scope.reactor()),
      batch_(
          scope, [this](std::vector<Ask> asks) { return run(std::move(asks)); }, k_batch, k_max_waiters) {}

Task<std::optional<QuotaFunding::Answer>> QuotaFunding::fund(Ask ask) {
    std::optional<Answer> answer = co_await batch_.join(ask);
    if (answer && !answer->told) {
        answer.reset();
    }
    co_return answer;
}

// Only one taking beyond the need is under way for each account and limit; who comes meanwhile asks for just its need.
std::uint32_t QuotaFunding::want(const Ask& ask, const Need& need) {
    if (appetites_.size() >= k_most_appetites) {
        appetites_.clear();
    }
    auto& appetite = appetites_[appetite_key(ask.account_id, need.limit_no)];
    if (appetite.under_way) {
        return need.cost;
    }
    const std::int64_t now = scope_.reactor().now_ms();
    const bool hungry = appetite.want != 0 && now - appetite.last_ms < k_rate_window_ms;
    appetite.want = hungry ? std::min(appetite.want * 2, k_most_want) : k_least_want;
    appetite.last_ms = now;
    appetite.under_way = true;
    return std::max(need.cost, appetite.want);
}

Task<std::vector<QuotaFunding::Answer>> QuotaFunding::run(std::vector<Ask> asks) {
    FundRows rows;
    for (std::size_t group = 0; group < asks.size(); ++group) {
        for (std::uint32_t index = 0; index < asks[group].count; ++index) {
            const Need& need = asks[group].needs[index];
            rows.add(group, asks[group].account_id, need, want(asks[group], need));
        }
    }
    PgResult result = co_await postgres_.query(k_fund, rows.parameters());
    for (std::size_t index = 0; index < rows.groups.size(); ++index) {
        const auto account = static_cast<std::uint64_t>(rows.accounts[index]);
        appetites_[appetite_key(account, static_cast<std::uint8_t>(rows.limits[index]))].under_way = false;
    }
    if (!result || result.rows() != static_cast<int>(rows.groups.size())) {
        if (result.outcome() == PgOutcome::refused) {
            trouble_.say("PostgreSQL refuses to fund quotas: " + result.message());
            if (asks.size() > 1) {
                co_return co_await run_each(std::move(asks));
            }
        }
        co_return std::vector<Answer>{};
    }
    trouble_.settled();
    std::vector<Answer> answers;
    int row = 0;
    for (const Ask& ask : asks) {
        answers.push_back(read_answer(result, row, ask));
        row += static_cast<int>(ask.count);
    }
    co_return answers;
}

// What one account is in the way of, the others need not wait for; whoever asks for that one is not made to wait in
// turn.
Task<std::vector<QuotaFunding::Answer>> QuotaFunding::run_each(std::vector<Ask> asks) {
    std::vector<Answer> answers;
    std::set<std::uint64_t> stuck;
    for (const Ask& ask : asks) {
        std::vector<Answer> answer;
        if (!stuck.contains(ask.account_id)) {
            std::vector<Ask> alone(1, ask);
            answer = co_await run(std::move(alone));
        }
        if (answer.empty()) {
            stuck.insert(ask.account_id);
            answer.resize(1);
            answer.front().told = false;
        }
        answers.push_back(answer.front());
    }
    co_return answers;
}

// Rows from `row` on answer this ask. What was granted goes into the table, or back where the account is not there any
// more.
QuotaFunding::Answer QuotaFunding::read_answer(const PgResult& result, int row, const Ask& ask) {
    Answer answer;
    answer.granted = true;
    for (std::uint32_t index = 0; index < ask.count; ++index, ++row) {
        const Need& need = ask.needs[index];
        const auto granted = static_cast<std::uint32_t>(result.integer(row, 0));
        const auto issued = static_cast<std::uint64_t>(result.integer(row, 3));
        const auto used = static_cast<std::uint64_t>(result.integer(row, 4));
        auto& line = answer.lines[index];
        line.period = result.integer(row, 1);
        line.unlimited = result.is_null(row, 2);
        line.limit = static_cast<std::uint64_t>(result.integer(row, 2));
        const std::uint64_t most = line.limit + static_cast<std::uint64_t>(result.integer(row, 6)); // overage included
        const std::uint64_t own = line.unlimited ? k_unlimited : line.limit - std::min(line.limit, issued);
        line.left = line.unlimited ? k_unlimited : most - std::min(most, issued);
        line.resets = result.is_null(row, 5) ? 0 : result.integer(row, 5);
        line.enough = granted > 0 || line.left >= need.cost;
        answer.granted = answer.granted && granted > 0;
        answer.elsewhere = answer.elsewhere || (!line.enough && most >= used + need.cost);
        const std::uint64_t outside = !line.unlimited && issued > line.limit ? k_overage : own;
        if (granted > 0 && !table_.fund(ask.key, need.limit_no, line.period, granted, outside, 0)) {
            table_.add_usage(ask.account_id, need.limit_no, line.period, 0, granted);
        }
    }
    return answer;
}

} // namespace billing
