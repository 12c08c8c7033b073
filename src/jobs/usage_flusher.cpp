#include "jobs/usage_flusher.hpp"

#include "async/sleep.hpp"

#include <cstring>
#include <vector>

namespace billing {

namespace {

constexpr std::int64_t k_flush_ms = 1000;
constexpr std::int64_t k_retry_ms = 500;
constexpr std::int64_t k_sweep_turn_ms = 30'000; // a walk over the whole zone

constexpr std::string_view k_flush = "SELECT billing.usage_flush($1::uuid, $2, $3, $4::bigint[], $5::smallint[], "
                                     "$6::bigint[], $7::bigint[], $8::bigint[], $9::text[], $10::integer[])";
constexpr std::string_view k_charge_late = "SELECT billing.charge_late($1::uuid, $2, $3, $4::text[], $5::text[], "
                                           "$6::bigint[], $7::bigint[], $8::boolean[], $9::text[], $10::integer[])";

std::string uuid_text(std::span<const std::uint8_t, 16> bytes) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string text;
    for (const std::uint8_t byte : bytes) {
        text += digits[byte >> 4];
        text += digits[byte & 15];
    }
    return text;
}

// Data exceptions and broken constraints; anything else may pass the next time.
bool breaks_a_rule(std::string_view sqlstate) noexcept {
    return sqlstate.starts_with("22") || sqlstate.starts_with("23");
}

PgParams parameters(std::string instance, const std::string& host, std::uint64_t sequence,
                    const std::vector<UsageRow>& rows, const QuotaThresholds& thresholds) {
    std::vector<std::int64_t> accounts, periods, spent, returned;
    std::vector<std::int16_t> limits;
    for (const auto& row : rows) {
        accounts.push_back(static_cast<std::int64_t>(row.account_id));
        limits.push_back(static_cast<std::int16_t>(row.limit_no));
        periods.push_back(row.period);
        spent.push_back(row.spent);
        returned.push_back(row.returned);
    }
    return PgParams{instance, host,  sequence, accounts,          limits,
                    periods,  spent, returned, thresholds.quotas, thresholds.percents};
}

template <std::size_t Bytes>
std::string text_of(const char (&field)[Bytes]) {
    return {field, strnlen(field, Bytes)};
}

PgParams parameters(std::string instance, const std::string& host, std::uint64_t sequence,
                    const std::vector<LateRow>& rows, const QuotaThresholds& thresholds) {
    std::vector<std::string> accounts, limits, creates;
    std::vector<std::int64_t> at, units;
    for (const auto& row : rows) {
        accounts.push_back(text_of(row.account));
        limits.push_back(text_of(row.limit));
        at.push_back(row.at);
        units.push_back(row.units);
        creates.emplace_back(row.creates != 0 ? "t" : "f");
    }
    return PgParams{instance, host,  sequence, accounts,          limits,
                    at,       units, creates,  thresholds.quotas, thresholds.percents};
}

} // namespace

void QuotaThresholds::add(const std::string& quota, std::uint8_t percent) {
    for (std::size_t index = 0; index < quotas.size(); ++index) {
        if (quotas[index] == quota && percents[index] == percent) {
            return;
        }
    }
    quotas.push_back(quota);
    percents.push_back(percent);
}

UsageFlusher::UsageFlusher(Reactor& reactor, Postgres& postgres, Table& table, Signal& wake, std::string host,
                           QuotaThresholds thresholds)
    : reactor_(reactor), postgres_(postgres), table_(table), wake_(wake), host_(std::move(host)),
      thresholds_(std::move(thresholds)), trouble_(reactor) {}

Task<void> UsageFlusher::run() {
    for (;;) {
        sweep();
        bool sent = true;
        while (sent && table_.freeze()) {
            sent = co_await flush();
        }
        while (sent && table_.freeze_late()) {
            sent = co_await charge_late();
        }
        if (sent) {
            co_await wake_.wait(k_flush_ms);
        } else {
            co_await sleep_for(reactor_, k_retry_ms, true); // the same batch again, until PostgreSQL has it
        }
    }
}

Task<bool> UsageFlusher::finish() {
    for (bool all = false; !all;) {
        all = table_.return_all();
        while (table_.freeze()) {
            bool sent = co_await flush();
            if (!sent) {
                co_return false;
            }
        }
    }
    bool charged = true;
    while (charged && table_.freeze_late()) {
        charged = co_await charge_late();
    }
    co_return charged;
}

template <class Row>
Task<bool> UsageFlusher::send(std::string_view statement, std::vector<Row> rows, std::uint64_t sequence,
                              std::string what) {
    const std::string instance = uuid_text(table_.instance_id());
    PgParams batch = parameters(instance, host_, sequence, rows, thresholds_);
    PgResult result = co_await postgres_.query(statement, std::move(batch));
    if (result.outcome() == PgOutcome::refused && breaks_a_rule(result.sqlstate())) {
        // It would be refused for ever and hold up all that comes after: its place is taken by an empty one.
        reactor_.log(LogLevel::error, "billing: " + what + " is dropped: " + result.message());
        rows.clear();
        PgParams nothing = parameters(instance, host_, sequence, rows, thresholds_);
        result = co_await postgres_.query(statement, std::move(nothing));
    }
    if (!result) {
        if (result.outcome() == PgOutcome::refused) {
            trouble_.say("PostgreSQL refuses " + what + ": " + result.message());
        }
        co_return false;
    }
    if (result.text(0, 0) == "gap") {
        trouble_.say("PostgreSQL misses what came before " + what + "; was it restored from a backup?");
        co_return false;
    }
    trouble_.settled();
    co_return true;
}

Task<bool> UsageFlusher::flush() {
    std::vector<UsageRow> rows;
    std::uint64_t sequence = 0;
    if (!table_.frozen(rows, sequence)) {
        co_return true;
    }
    std::string what = "usage batch " + std::to_string(sequence) + " of " + std::to_string(rows.size()) + " rows";
    bool sent = co_await send(k_flush, std::move(rows), sequence, std::move(what));
    if (sent) {
        table_.acknowledge(sequence);
    }
    co_return sent;
}

Task<bool> UsageFlusher::charge_late() {
    std::vector<LateRow> rows;
    std::uint64_t sequence = 0;
    if (!table_.frozen_late(rows, sequence)) {
        co_return true;
    }
    std::int64_t units = 0;
    for (const LateRow& row : rows) {
        units += row.units;
    }
    std::string what = "late charges " + std::to_string(sequence) + " of " + std::to_string(units) + " units";
    bool sent = co_await send(k_charge_late, std::move(rows), sequence, std::move(what));
    if (sent) {
        table_.acknowledge_late(sequence);
        reactor_.log(LogLevel::notice, "billing: " + std::to_string(units) +
                                           " units that were let through while PostgreSQL was away are charged");
    }
    co_return sent;
}

void UsageFlusher::sweep() {
    const std::int64_t now = reactor_.now_ms();
    const std::int64_t elapsed = swept_ms_ == 0 ? 0 : now - swept_ms_;
    swept_ms_ = now;
    const std::uint64_t units = table_.units();
    table_.sweep(static_cast<std::uint32_t>(units * static_cast<std::uint64_t>(elapsed) / k_sweep_turn_ms));
}

} // namespace billing
