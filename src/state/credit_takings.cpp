#include "state/credit_takings.hpp"

#include "async/sleep.hpp"

#include <random>
#include <set>
#include <string>

namespace billing {

namespace {

constexpr std::size_t k_batch = 128;
constexpr std::size_t k_max_waiters = 4096;
constexpr std::size_t k_rounds = 2; // one is worked on while the other is under way
// Where an answer was lost it is asked for again, which names make safe, as long as its client should wait.
constexpr std::int64_t k_patience_ms = 1500;
constexpr std::int64_t k_between_tries_ms = 50;

constexpr std::string_view k_locked = "55P03"; // somebody holds the balance for longer than others should wait

constexpr std::string_view k_take_credits =
    "SELECT kept, repeated, remaining, allocated, room, ends, 0::bigint FROM billing.credits_take($1::integer[], "
    "$2::text[], $3::bigint[], $4::smallint[], $5::bigint[], $6::integer[], $7::text[]) ORDER BY ord";
constexpr std::string_view k_take_stock =
    "SELECT kept, repeated, coalesce(remaining, 1::bigint << 62), coalesce(cap, 1::bigint << 62), 0::bigint, "
    "0::bigint, used FROM billing.stock_take($1::integer[], $2::text[], $3::bigint[], $4::smallint[], $5::bigint[], "
    "$6::integer[]) ORDER BY ord";
enum Column : int { kept, repeated, remaining, allocated, room, ends, used };

// The arrays of one call, a row for each want.
struct TakeRows {
    std::vector<std::int32_t> groups, holds;
    std::vector<std::string> names;
    std::vector<std::int64_t> accounts, units;
    std::vector<std::int16_t> numbers;
    std::vector<std::optional<std::string>> jobs;

    void add(std::size_t group, const CreditTakings::Ask& ask, const CreditTakings::Want& want) {
        groups.push_back(static_cast<std::int32_t>(group));
        names.emplace_back(ask.name.view());
        accounts.push_back(static_cast<std::int64_t>(ask.account_id));
        numbers.push_back(want.no);
        units.push_back(want.units);
        holds.push_back(static_cast<std::int32_t>(want.hold_seconds));
        jobs.emplace_back(std::nullopt);
    }

    PgParams parameters(TakingKind kind) const {
        return kind == TakingKind::credits ? PgParams{groups, names, accounts, numbers, units, holds, jobs}
                                           : PgParams{groups, names, accounts, numbers, units, holds};
    }
};

// Rows from `row` on answer this ask.
CreditTakings::Answer read_answer(const PgResult& result, int row, const CreditTakings::Ask& ask) {
    CreditTakings::Answer answer;
    answer.taken = true;
    for (std::uint32_t index = 0; index < ask.count; ++index, ++row) {
        auto& line = answer.lines[index];
        const auto wanted = static_cast<std::int64_t>(ask.wants[index].units);
        const bool taken = result.integer(row, kept) > 0;
        line.remaining = static_cast<std::uint64_t>(result.integer(row, remaining));
        line.allocated = static_cast<std::uint64_t>(result.integer(row, allocated));
        line.ends = result.integer(row, ends);
        line.used = static_cast<std::uint64_t>(result.integer(row, used));
        line.enough = taken || result.integer(row, remaining) + result.integer(row, room) >= wanted;
        answer.taken = answer.taken && taken;
    }
    return answer;
}

} // namespace

CreditTakings::CreditTakings(Scope& scope, Postgres& postgres, TakingKind kind)
    : scope_(scope), postgres_(postgres), kind_(kind), trouble_(scope.reactor()),
      batch_(
          scope, [this](std::vector<Ask> asks) { return run(std::move(asks)); }, k_batch, k_max_waiters, k_rounds) {
    std::random_device random;
    worker_ = std::uint64_t{random()} << 32 | random();
}

TakingName CreditTakings::new_name() {
    return TakingName{"g." + std::to_string(worker_) + "." + std::to_string(++names_)};
}

Task<std::optional<CreditTakings::Answer>> CreditTakings::take(Ask ask) {
    const std::int64_t until = scope_.reactor().now_ms() + k_patience_ms;
    std::optional<Answer> answer = co_await batch_.join(ask);
    while (answer && !answer->told && scope_.reactor().now_ms() < until) { // as when its payment is being written down
        answer = co_await batch_.join(ask);
    }
    if (answer && !answer->told) {
        answer.reset();
    }
    co_return answer;
}

Task<std::vector<CreditTakings::Answer>> CreditTakings::run(std::vector<Ask> asks) {
    TakeRows rows;
    for (std::size_t group = 0; group < asks.size(); ++group) {
        for (std::uint32_t index = 0; index < asks[group].count; ++index) {
            rows.add(group, asks[group], asks[group].wants[index]);
        }
    }
    const std::int64_t until = scope_.reactor().now_ms() + k_patience_ms;
    const std::string_view take = kind_ == TakingKind::credits ? k_take_credits : k_take_stock;
    PgResult result = co_await postgres_.query(take, rows.parameters(kind_));
    while (result.outcome() == PgOutcome::lost && scope_.reactor().now_ms() < until) {
        co_await sleep_for(scope_.reactor(), k_between_tries_ms);
        result = co_await postgres_.query(take, rows.parameters(kind_));
    }
    if (!result || result.rows() != static_cast<int>(rows.groups.size())) {
        if (result.outcome() == PgOutcome::refused) {
            if (result.sqlstate() != k_locked) {
                trouble_.say((kind_ == TakingKind::credits ? "PostgreSQL refuses to take credits: "
                                                           : "PostgreSQL refuses to reserve stock: ") +
                             result.message());
            }
            if (asks.size() > 1) {
                co_return co_await run_each(std::move(asks));
            }
        }
        std::vector<Answer> none(result.sqlstate() == k_locked ? 1 : 0);
        for (Answer& answer : none) {
            answer.told = false;
        }
        co_return none;
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

// What one account is in the way of, the others need not wait for.
Task<std::vector<CreditTakings::Answer>> CreditTakings::run_each(std::vector<Ask> asks) {
    std::vector<Answer> answers;
    std::set<std::uint64_t> stuck;
    for (const Ask& ask : asks) {
        std::vector<Answer> answer;
        if (!stuck.contains(ask.account_id)) {
            std::vector<Ask> alone(1, ask);
            answer = co_await run(std::move(alone));
        }
        if (answer.empty() || !answer.front().told) {
            stuck.insert(ask.account_id);
            answer.resize(1);
            answer.front().told = false;
        }
        answers.push_back(answer.front());
    }
    co_return answers;
}

} // namespace billing
