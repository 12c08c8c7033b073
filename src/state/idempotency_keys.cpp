#include "state/idempotency_keys.hpp"

#include "async/sleep.hpp"

#include <string_view>

namespace billing {

namespace {

constexpr std::int64_t k_patience_ms = 1500;
constexpr std::int64_t k_between_tries_ms = 50;

constexpr std::string_view k_begin = "SELECT billing.idempotency_begin($1, $2, $3, $4, $5, $6)";

std::string_view bytes_of(const IdempotencyClaim::Digest& digest) noexcept {
    return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

PgParams parameters(std::uint64_t account_id, const TakingName& name, const IdempotencyClaim& claim,
                    std::uint32_t hold_s) {
    PgParams values(account_id);
    values.add_bytes(bytes_of(claim.key)).add_bytes(bytes_of(claim.request));
    values.add(name.view()).add(hold_s).add(claim.window_s);
    return values;
}

Claimed claimed(std::string_view word) noexcept {
    return word == "new"    ? Claimed::now
           : word == "done" ? Claimed::charged
           : word == "busy" ? Claimed::outstanding
                            : Claimed::misused;
}

// Asked again it says the same, so an answer that is lost is no harm; and somebody who holds the row holds it briefly.
bool is_worth_another_try(const PgResult& result) noexcept {
    return result.outcome() == PgOutcome::lost || result.sqlstate() == "55P03";
}

} // namespace

Task<std::optional<Claimed>> IdempotencyKeys::claim(std::uint64_t account_id, TakingName name, IdempotencyClaim claim,
                                                    std::uint32_t hold_s) {
    const std::int64_t until = reactor_.now_ms() + k_patience_ms;
    PgResult told = co_await postgres_.query(k_begin, parameters(account_id, name, claim, hold_s));
    while (is_worth_another_try(told) && reactor_.now_ms() < until) {
        co_await sleep_for(reactor_, k_between_tries_ms);
        told = co_await postgres_.query(k_begin, parameters(account_id, name, claim, hold_s));
    }
    if (told) {
        trouble_.settled();
        co_return claimed(told.text(0, 0));
    }
    if (told.outcome() == PgOutcome::refused) {
        trouble_.say("PostgreSQL refuses to claim an Idempotency-Key: " + told.message());
    }
    co_return std::nullopt;
}

} // namespace billing
