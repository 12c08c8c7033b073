#include "state/credit_verdicts.hpp"

#include "async/sleep.hpp"

#include <algorithm>
#include <string>
#include <utility>

namespace billing {

namespace {

constexpr std::size_t k_most_kept = 65536;
constexpr std::int64_t k_gather_ms = 5; // a commit costs more than a verdict, and nobody waits
constexpr std::int64_t k_again_ms = 200;

constexpr std::string_view k_settle =
    "SELECT ord, late FROM billing.credits_settle($1::text[], $2::bigint[], $3::smallint[], $4::bigint[])";
constexpr std::string_view k_settle_stock =
    "SELECT billing.stock_settle($1::text[], $2::bigint[], $3::smallint[], $4::bigint[])";
constexpr std::string_view k_settle_keys =
    "SELECT billing.idempotency_end($1::text[], $2::bigint[], $3::smallint[], $4::bigint[])";
constexpr std::string_view k_late =
    "SELECT billing.credits_late($1::text[], $2::bigint[], $3::smallint[], $4::bigint[])";

// The arrays of one call, a row for each verdict.
struct VerdictRows {
    std::vector<std::string> names;
    std::vector<std::int64_t> accounts;
    std::vector<std::int16_t> numbers;

    void add(const CreditVerdict& verdict) {
        names.emplace_back(verdict.name.view());
        accounts.push_back(static_cast<std::int64_t>(verdict.account_id));
        numbers.push_back(verdict.no);
    }
};

PgParams settle_parameters(const std::vector<CreditVerdict>& verdicts) {
    VerdictRows rows;
    std::string keeps = "{"; // with NULL among them
    for (const CreditVerdict& verdict : verdicts) {
        rows.add(verdict);
        keeps += (keeps.size() > 1 ? "," : "") + (verdict.keep ? std::to_string(*verdict.keep) : "NULL");
    }
    return PgParams{rows.names, rows.accounts, rows.numbers, keeps + "}"};
}

std::string_view statement_of(TakingKind kind) noexcept {
    return kind == TakingKind::credits ? k_settle : kind == TakingKind::key ? k_settle_keys : k_settle_stock;
}

std::string_view refused_words(TakingKind kind) noexcept {
    return kind == TakingKind::credits ? "PostgreSQL refuses to settle credits: "
           : kind == TakingKind::key   ? "PostgreSQL refuses to settle an Idempotency-Key: "
                                       : "PostgreSQL refuses to settle stock: ";
}

// It will be refused however often it is sent.
bool is_of_data(const PgResult& result) noexcept {
    return result.outcome() == PgOutcome::refused &&
           (result.sqlstate().starts_with("22") || result.sqlstate().starts_with("23") ||
            result.sqlstate().starts_with("P0"));
}

// What is owed beyond what was taken; without rows where nothing is.
PgParams late_parameters(const std::vector<CreditVerdict>& verdicts, const PgResult& settled) {
    VerdictRows rows;
    std::vector<std::int64_t> units;
    for (int row = 0; row < settled.rows(); ++row) {
        rows.add(verdicts.at(static_cast<std::size_t>(settled.integer(row, 0) - 1)));
        units.push_back(settled.integer(row, 1));
    }
    return PgParams{rows.names, rows.accounts, rows.numbers, units};
}

} // namespace

void CreditVerdicts::tell(const CreditVerdict& verdict) noexcept {
    try {
        if (waiting_.size() >= k_most_kept) {
            dropped_.say("PostgreSQL takes no word on what became of requests, and there is no room to keep more: they "
                         "are decided when their hold is over");
            return;
        }
        waiting_.push_back(verdict);
    } catch (const std::bad_alloc&) {
        return;
    }
    wake_.set();
}

Task<void> CreditVerdicts::run() {
    while (true) {
        while (waiting_.empty()) { // it was woken for what has been sent since
            co_await wake_.wait(-1);
            co_await sleep_for(reactor_, k_gather_ms, true);
        }
        bool sent = co_await send();
        if (!sent) {
            co_await sleep_for(reactor_, k_again_ms, true);
        }
    }
}

Task<bool> CreditVerdicts::finish() {
    while (!waiting_.empty()) {
        bool sent = co_await send();
        if (!sent) {
            co_return false;
        }
    }
    co_return true;
}

// The oldest ones, as far as they are for one statement; they stay until PostgreSQL has them, or will never take them.
Task<bool> CreditVerdicts::send() {
    const auto most = waiting_.begin() + static_cast<std::ptrdiff_t>(std::min(waiting_.size(), most_));
    const TakingKind kind = waiting_.front().kind;
    const auto end = std::find_if(waiting_.begin(), most,
                                  [&](const CreditVerdict& verdict) { return !go_together(verdict.kind, kind); });
    const auto count = static_cast<std::size_t>(end - waiting_.begin());
    std::vector<CreditVerdict> verdicts(waiting_.begin(), end);
    PgResult settled = co_await settle(std::move(verdicts));
    if (is_of_data(settled) && count > 1) { // one of them: what is wrong with it is nothing to the others
        most_ = 1;
        co_return true;
    }
    const bool over = settled || is_of_data(settled);
    if (over) {
        waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(count));
        most_ = std::min(most_ * 2, k_batch);
    }
    co_return over;
}

Task<PgResult> CreditVerdicts::settle(std::vector<CreditVerdict> verdicts) {
    const TakingKind kind = verdicts.front().kind;
    PgResult settled = co_await postgres_.query(statement_of(kind), settle_parameters(verdicts));
    if (settled && settled.rows() > 0 && kind == TakingKind::credits) {
        PgParams late = late_parameters(verdicts, settled);
        settled = co_await postgres_.query(k_late, std::move(late));
    }
    if (settled) {
        trouble_.settled();
    } else if (settled.outcome() == PgOutcome::refused) {
        trouble_.say(std::string{refused_words(kind)} + settled.message());
    }
    co_return settled;
}

} // namespace billing
