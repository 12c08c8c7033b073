// What a request has taken, so that it can be given back. Plain data: it lives in nginx's request memory.
#pragma once

#include "gate/rules.hpp"
#include "state/credit_takings.hpp"
#include "state/idempotency_keys.hpp"
#include "state/table.hpp"

#include <cstdint>
#include <optional>
#include <type_traits>

namespace billing {

// One quota's units, and whose they are: an internal redirect may lead to another account.
struct Taking {
    RecordRef record;
    std::uint64_t account_id;
    std::int64_t period;
    std::uint32_t cost;
    std::uint8_t limit_no;
    std::uint8_t decision; // of the request's several; those that wait for credits have a number of their own
};

// Units of credits, or places of a stock, that a request has taken, or asks for at present; or what it removes; or the
// key that it has claimed.
struct CreditTaking {
    std::uint64_t account_id = 0;
    std::uint32_t units = 0;
    std::uint32_t keep = 0; // of them, or more, if it is paid
    std::uint8_t no = 0;    // of the type of credits, or the stock
    TakingKind kind = TakingKind::credits;
    std::uint8_t decision = 0; // as in Taking
    bool taken = false;        // with all of its decision; else PostgreSQL is asked, or nobody has heard its answer
    TakingName name;           // shared by all of a kind of one decision
    const IdempotencyClaim* claim = nullptr; // of a key: by what it is known
};

struct CreditCharge {
    CreditTaking* takings = nullptr;
    std::uint32_t count = 0;
    std::uint32_t room = 0;
    std::uint8_t decisions = 0; // that waited for them
    TakingName reservation;     // of the last of them that took some

    // PostgreSQL has said so, of all that the decision takes.
    void taken(std::uint8_t decision) noexcept {
        for (std::uint32_t index = 0; index < count; ++index) {
            takings[index].taken = takings[index].taken || takings[index].decision == decision;
        }
    }

    // What the takings of a decision that has claimed a key are called, for the key's sake.
    std::optional<TakingName> name_of(std::uint8_t decision) const noexcept {
        for (std::uint32_t index = 0; index < count; ++index) {
            if (takings[index].decision == decision && takings[index].kind == TakingKind::key) {
                return takings[index].name;
            }
        }
        return std::nullopt;
    }

    // The request has this key already: a redirect has led it to other rules.
    bool has_claimed(std::uint64_t account_id, const IdempotencyClaim& claim) const noexcept {
        for (std::uint32_t index = 0; index < count; ++index) {
            const CreditTaking& taking = takings[index];
            const bool of_account = taking.claim != nullptr && taking.account_id == account_id && taking.taken;
            if (of_account && taking.claim->key == claim.key) {
                return true;
            }
        }
        return false;
    }

    bool pending(std::uint64_t account_id) const noexcept {
        for (std::uint32_t index = 0; index < count; ++index) {
            if (takings[index].account_id == account_id && !takings[index].taken) {
                return true;
            }
        }
        return false;
    }

    // Whose units of this type were taken last: a redirect may have led from another account, which has paid for its
    // own.
    std::uint64_t last_payer(std::uint8_t credit_no) const noexcept {
        std::uint64_t account_id = 0;
        for (std::uint32_t index = 0; index < count; ++index) {
            const bool of_type = takings[index].kind == TakingKind::credits && takings[index].no == credit_no;
            account_id = of_type ? takings[index].account_id : account_id;
        }
        return account_id;
    }

    // Units of this type that the account has paid already in this request.
    std::uint32_t paid(std::uint64_t account_id, TakingKind kind, std::uint8_t no) const noexcept {
        std::uint32_t sum = 0;
        for (std::uint32_t index = 0; index < count; ++index) {
            const CreditTaking& taking = takings[index];
            const bool same = taking.account_id == account_id && taking.kind == kind && taking.no == no;
            sum += same && taking.taken ? taking.units : 0;
        }
        return sum;
    }
};

// The most that one request can pay, together with the targets of its redirects and subrequests.
inline constexpr std::uint32_t k_most_takings = k_max_quotas * 4;

struct Charge {
    Taking* takings = nullptr;
    std::uint32_t count = 0;
    std::uint32_t room = 0;          // for so many; who asks the gate has made room for the location's quotas
    CreditCharge* credits = nullptr; // where a location takes some

    // A rate that has let the request pass: a taking that costs nothing and is not given back.
    bool has_passed(std::uint64_t account_id, std::uint8_t rate_no) const noexcept {
        for (std::uint32_t index = 0; index < count; ++index) {
            if (takings[index].account_id == account_id && takings[index].limit_no == k_rate_slots + rate_no) {
                return true;
            }
        }
        return false;
    }

    std::uint32_t credits_room() const noexcept { return credits == nullptr ? 0 : credits->room; }

    // As in CreditCharge.
    std::uint64_t last_payer(std::uint8_t limit_no) const noexcept {
        std::uint64_t account_id = 0;
        for (std::uint32_t index = 0; index < count; ++index) {
            account_id = takings[index].limit_no == limit_no ? takings[index].account_id : account_id;
        }
        return account_id;
    }

    // Units of all quotas.
    std::uint64_t sum() const noexcept {
        std::uint64_t units = 0;
        for (std::uint32_t index = 0; index < count; ++index) {
            units += takings[index].cost;
        }
        return units;
    }

    // Units of this quota that the account has paid already in this request.
    std::uint32_t paid(std::uint64_t account_id, std::uint8_t limit_no) const noexcept {
        std::uint32_t sum = 0;
        for (std::uint32_t index = 0; index < count; ++index) {
            const Taking& taking = takings[index];
            sum += taking.account_id == account_id && taking.limit_no == limit_no ? taking.cost : 0;
        }
        return sum;
    }
};
static_assert(std::is_trivially_destructible_v<Charge>);

} // namespace billing
