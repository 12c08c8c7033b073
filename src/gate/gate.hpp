// The gate of one worker. decide() answers from shared memory at once; where that does not hold what is needed,
// resolve() asks Redis and PostgreSQL; commit() and refund() say how the request ended, which pays for what it took.
// Called by nginx/gate_handler in the worker.
#pragma once

#include "async/task.hpp"
#include "gate/charge.hpp"
#include "gate/decision.hpp"
#include "gate/period_clock.hpp"
#include "gate/rules.hpp"
#include "state/account_store.hpp"
#include "state/catalog_holder.hpp"
#include "state/credit_takings.hpp"
#include "state/credit_verdicts.hpp"
#include "state/idempotency_keys.hpp"
#include "state/quota_funding.hpp"
#include "state/table.hpp"

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace billing {

// One request, as far as the gate cares. What it points to outlives the request's coroutine.
struct Ask {
    std::string_view account;         // for resolve(): valid_account_id() holds
    std::size_t rules_index = 0;      // among the rules given to the constructor
    Costs costs{};                    // one for each quota of the rules
    CreditUnits credits{};            // one for each type of credits
    std::int64_t now = 0;             // unix seconds
    std::uint64_t now_ms = 0;         // monotonic
    std::uint8_t stock = 0;           // a bit for each rule of a stock by which the request makes or removes something
    bool counts = true;               // false: nginx's own work, which uses up no rate
    bool write = false;               // a method that changes things
    StatusSet live = k_live_statuses; // under which a paid plan may be used
    const IdempotencyClaim* claim = nullptr; // of a request that carries a key of its client's
    UnknownAccount unknown = UnknownAccount::create;
    ErrorPolicy on_error;
};

class Gate {
public:
    // `rules` in the order of Ask::rules_index. All references outlive the gate.
    Gate(Reactor& reactor, Table& table, CatalogHolder& catalogs, AccountStore& accounts, QuotaFunding& funding,
         CreditTakings& credits, CreditTakings& stock, IdempotencyKeys& keys, CreditVerdicts& verdicts,
         std::vector<const Rules*> rules);

    // Lock-free, allocates nothing, does no I/O (but for the first request after a catalog change, which binds the
    // rules anew). `decision` is a new one. False: shared memory cannot tell; go on with resolve().
    bool decide(const Ask& ask, Decision& decision, Charge& charge) noexcept;

    // The same question with every means. Takes into `charge`, which outlives the task.
    Task<Decision> resolve(Ask ask, Charge& charge);

    // Gives back all of the charge. Later calls do nothing.
    void refund(Charge& charge) noexcept;

    // A quota, or a type of credits, of the location's is charged with so many units instead of what was taken: the
    // rest goes back, and more is taken, from PostgreSQL if need be, whatever the limit, for the work is done. Before
    // commit().
    void settle_quota(Charge& charge, std::size_t rules_index, std::size_t quota, std::uint32_t units,
                      std::string_view account, std::int64_t now, std::uint64_t now_ms) noexcept;
    void settle_credits(Charge& charge, std::size_t rules_index, std::size_t credit, std::uint32_t units) noexcept;

    // The charge is paid. Later calls do nothing. Not `answered`: the client has left, and nobody knows what came of
    // it; then nothing was removed.
    void commit(Charge& charge, bool answered = true) noexcept;

    // What the facts of an account say to the rules, quotas apart, in the fixed order. Pure; of `ask` it reads the time
    // and whether something is written.
    static Reason judge(const AccountFacts& view, const BoundRules& rules, const Ask& ask) noexcept;

    // Null until one is known.
    const Catalog* catalog() const noexcept { return catalogs_.catalog(); }
    std::uint64_t catalog_stamp() const noexcept { return bound_stamp_; }
    const BoundRules* rules(std::size_t rules_index) const noexcept {
        return bound_.empty() ? nullptr : &bound_[rules_index];
    }
    // After a decision with a meter: the calendar's period of its quota now.
    const PeriodClock::Present& period_of(std::size_t rules_index, std::uint8_t quota,
                                          std::int64_t now) const noexcept {
        return periods_.at(bound_[rules_index].quotas()[quota].period, now);
    }

private:
    enum class Known : std::uint8_t {
        fresh,    // decides
        doubtful, // lets through; before it refuses, PostgreSQL is asked
        stale,    // decides only when nobody can be asked
        outdated, // nothing that may decide
    };
    // What the table held when the gate looked.
    struct Seen {
        AccountView view; // once found
        Source source = Source::shm;
        Known known = Known::outdated;
        // Where PostgreSQL's clock has another period than ours, its word counts: one for each quota of the rules.
        bool other_periods = false;
        std::array<std::int64_t, k_max_quotas> periods{};
        bool rates_provided = false; // all has been done for the record to have room for them
    };

    bool look(const Ask& ask, AccountKey key, Seen& seen) const noexcept;
    Known known(const AccountView& view, const Ask& ask) const noexcept;
    // True when rules are bound to the catalog that shared memory holds: one comparison, unless it has changed.
    bool bound() noexcept { return (table_.catalog_stamp() == bound_stamp_ && bound_stamp_ != 0) || rebind(); }
    bool rebind() noexcept;
    void describe(const Seen& seen, Reason reason, const Ask& ask, Decision& decision) const noexcept;
    Spend spend(const Seen& seen, const BoundRules& rules, const Ask& ask, Decision& decision, Charge& charge) noexcept;
    std::uint64_t limit_of(const Seen& seen, const BoundQuota& quota) const noexcept;
    void measure(const BoundRules& rules, const Ask& ask, std::size_t quota, std::uint64_t limit,
                 std::uint64_t remaining, Meter& meter) const noexcept;
    void measure_paid(const Seen& seen, const BoundRules& rules, const Ask& ask, Meter& meter) noexcept;
    void watch(const Seen& seen, const BoundRules& rules, const Ask& ask, Decision& decision) noexcept;
    void measure_own(const Seen& seen, const BoundRules& rules, const Ask& ask, Meter& meter) const noexcept;
    Spend spend_special(const Seen& seen, const BoundRules& rules, const Ask& ask, Decision& decision,
                        Charge& charge) noexcept;
    static bool is_own(const BoundQuota& quota, const AccountView& view) noexcept {
        return quota.own || view.calendar.zoned();
    }
    Period own_period(const BoundQuota& quota, const AccountView& view, std::int64_t now) const noexcept;
    std::int64_t period_number(const BoundQuota& quota, const AccountView& view, std::int64_t now) const noexcept {
        return is_own(quota, view) ? own_period(quota, view, now).number : periods_.at(quota.period, now).number;
    }
    Spend pass_rates(const Seen& seen, const BoundRules& rules, const Ask& ask, Decision& decision,
                     Charge& charge) noexcept;
    void provide_rates(const BoundRules& rules, AccountKey key, Seen& seen) noexcept;
    void undo(Charge& charge, std::uint32_t keep) noexcept;
    void give_back(const Taking& taking) noexcept;
    void undo_decision(Charge& charge, std::uint8_t number) noexcept;
    void forget_credits(Charge& charge, TakingKind kind, const TakingName& name, bool give_back) noexcept;
    void tell_credits(Charge& charge, bool paid, bool answered) noexcept;
    void tell_credit(const CreditTaking& taking, bool paid) noexcept;

    Task<bool> bring(Ask ask, AccountKey key, Seen& seen, Decision& otherwise);
    Task<Decision> pay(Ask ask, AccountKey key, Seen seen, Charge& charge, std::uint8_t number);
    Task<bool> claim(Ask ask, Seen seen, Charge& charge, std::uint8_t number, Decision& otherwise);
    Task<Decision> pay_durable(Ask ask, Seen seen, Decision decision, Charge& charge, std::uint8_t number);
    bool ask_credits(const Ask& ask, const Seen& seen, Charge& charge, std::uint8_t number, CreditTakings::Ask& asked);
    bool ask_stock(const Ask& ask, const Seen& seen, Charge& charge, std::uint8_t number, CreditTakings::Ask& asked);
    Decision refuse_stock(const Ask& ask, const CreditTakings::Ask& asked, const CreditTakings::Answer& answer,
                          const Seen& seen) const noexcept;
    Decision refuse_credits(const Ask& ask, const CreditTakings::Ask& asked, const CreditTakings::Answer& answer,
                            const Seen& seen) const noexcept;
    std::size_t quota_of(const Ask& ask, std::uint8_t limit_no) const noexcept;
    void take_periods(const QuotaFunding::Ask& asked, const QuotaFunding::Answer& answer, const Ask& ask,
                      Seen& seen) const noexcept;
    QuotaFunding::Ask need(const Ask& ask, AccountKey key, const Seen& seen, const Charge& charge) const noexcept;
    Decision refuse_limit(const QuotaFunding::Ask& asked, const QuotaFunding::Answer& answer, const Ask& ask,
                          const Seen& seen) noexcept;
    Decision without_account(const Ask& ask) const noexcept;
    Decision cannot_tell(const Ask& ask) const noexcept;

    Reactor& reactor_;
    Table& table_;
    CatalogHolder& catalogs_;
    AccountStore& accounts_;
    QuotaFunding& funding_;
    CreditTakings& credits_;
    CreditTakings& stock_;
    IdempotencyKeys& keys_;
    CreditVerdicts& verdicts_;
    std::vector<const Rules*> rules_;
    std::vector<BoundRules> bound_; // in the order of rules_, for the catalog of this stamp; empty while none is known
    std::uint64_t bound_stamp_ = 0;
    mutable PeriodClock periods_;
};

} // namespace billing
