// The other half of the gate: a request that shared memory alone could not decide. Runs as a coroutine of the request.
#include "async/sleep.hpp"
#include "gate/gate.hpp"

#include <array>

namespace billing {

namespace {

constexpr std::uint64_t k_unknown_ms = 10'000;
constexpr std::uint64_t k_exhausted_ms = 1000; // a flood of refused requests does not reach PostgreSQL
constexpr std::int64_t k_recall_ms = 100;      // until other hosts have returned what they hold
constexpr std::uint32_t k_hold_s = 600;        // a request without credits that nobody has heard of for so long is dead
constexpr int k_most_rounds = 5;
constexpr int k_most_waits = 500;
constexpr std::int64_t k_wait_ms = 5;
constexpr std::array k_durable = {TakingKind::stock, TakingKind::credits}; // in the order of asking

} // namespace

Task<Decision> Gate::resolve(Ask ask, Charge& charge) {
    if (!bound()) {
        bool known = co_await catalogs_.fetch();
        if (!known || !bound()) {
            co_return cannot_tell(ask);
        }
    }
    const AccountKey key = table_.key_of(ask.account);
    Seen seen;
    Decision otherwise;
    bool brought = co_await bring(ask, key, seen, otherwise);
    if (!brought) {
        co_return otherwise;
    }
    const Reason reason = judge(seen.view, bound_[ask.rules_index], ask);
    if (reason != Reason::allowed || bound_[ask.rules_index].takes() == Takes::nothing) {
        describe(seen, reason, ask, otherwise);
        co_return otherwise;
    }
    const bool durable = bound_[ask.rules_index].takes() == Takes::durable;
    if (!durable && ask.claim == nullptr) {
        co_return co_await pay(ask, key, seen, charge, 0);
    }
    const std::uint8_t number = ++charge.credits->decisions;
    bool goes_on = co_await claim(ask, seen, charge, number, otherwise);
    if (!goes_on) {
        co_return otherwise;
    }
    Decision decision = co_await pay(ask, key, seen, charge, number);
    if (!decision.allows()) {
        undo_decision(charge, number);
    } else if (durable) {
        decision = co_await pay_durable(ask, seen, decision, charge, number);
    }
    co_return decision;
}

// Claims the request's key, if it has one that is not claimed yet. False: `otherwise` is the decision.
Task<bool> Gate::claim(Ask ask, Seen seen, Charge& charge, std::uint8_t number, Decision& otherwise) {
    if (ask.claim == nullptr || charge.credits->has_claimed(seen.view.id, *ask.claim)) {
        co_return true;
    }
    if (charge.credits->count == charge.credits->room) { // a chain of redirects that nobody can have meant
        otherwise = cannot_tell(ask);
        co_return false;
    }
    const TakingName name = credits_.new_name();
    charge.credits->takings[charge.credits->count++] = {seen.view.id, 1,     1,    0,        TakingKind::key,
                                                        number,       false, name, ask.claim};
    std::uint32_t hold_s = k_hold_s;
    for (const CreditRule& rule : rules_[ask.rules_index]->credits) {
        hold_s = std::max(hold_s, rule.hold_seconds);
    }
    for (const StockRule& rule : rules_[ask.rules_index]->stock) {
        hold_s = std::max(hold_s, rule.hold_seconds);
    }
    std::optional<Claimed> claimed = co_await keys_.claim(seen.view.id, name, *ask.claim, hold_s);
    if (claimed == Claimed::now) {
        charge.credits->taken(number);
        co_return true;
    }
    forget_credits(charge, TakingKind::key, name, !claimed);
    if (!claimed) {
        otherwise = cannot_tell(ask);
        co_return false;
    }
    table_.count(Counter::repeated, *claimed == Claimed::charged ? 1 : 0);
    describe(seen,
             *claimed == Claimed::charged       ? Reason::allowed
             : *claimed == Claimed::outstanding ? Reason::key_outstanding
                                                : Reason::key_misused,
             ask, otherwise);
    otherwise.source = Source::postgres;
    co_return false;
}

// Makes `seen` hold facts that may decide this request. False: `otherwise` is the decision.
Task<bool> Gate::bring(Ask ask, AccountKey key, Seen& seen, Decision& otherwise) {
    const bool found = look(ask, key, seen);
    if (found && seen.known <= Known::doubtful) {
        const bool lets_through = judge(seen.view, bound_[ask.rules_index], ask) == Reason::allowed;
        if (seen.known == Known::fresh || lets_through) {
            co_return true;
        }
    }
    using Mode = AccountStore::Mode;
    Mode mode = ask.unknown == UnknownAccount::create ? Mode::create : Mode::cached;
    if (found) {
        mode = Mode::truth;
    }
    std::string account{ask.account};
    Fetched fetched = co_await accounts_.fetch(std::move(account), mode);
    if (fetched == Fetched::unknown) {
        table_.remember_unknown(key, ask.now_ms + k_unknown_ms);
        otherwise = without_account(ask);
        co_return false;
    }
    if (fetched == Fetched::unavailable) {
        seen.source = Source::stale;
        otherwise = cannot_tell(ask);
        co_return found&& seen.known <= Known::stale;
    }
    seen.source = fetched == Fetched::from_redis ? Source::redis : Source::postgres;
    const bool there = table_.find(key, seen.view);
    if (!there) {
        otherwise = cannot_tell(ask);
    }
    co_return there;
}

// Takes the costs, asking PostgreSQL for tokens as long as shared memory falls short.
Task<Decision> Gate::pay(Ask ask, AccountKey key, Seen seen, Charge& charge, std::uint8_t number) {
    bool recalled = false;
    for (int round = 0; round < k_most_rounds; ++round) {
        Decision decision;
        describe(seen, Reason::allowed, ask, decision);
        provide_rates(bound_[ask.rules_index], key, seen);
        const std::uint32_t before = charge.count;
        const Spend result = spend_special(seen, bound_[ask.rules_index], ask, decision, charge);
        for (std::uint32_t index = before; index < charge.count; ++index) {
            charge.takings[index].decision = number;
        }
        const bool rate = decision.reason == Reason::rate_exceeded;
        if (result == Spend::taken || rate || (result == Spend::exhausted && !recalled)) {
            co_return decision;
        }
        if (result == Spend::gone) {
            const Source source = seen.source;
            Decision otherwise;
            bool brought = co_await bring(ask, key, seen, otherwise);
            if (!brought) {
                co_return otherwise;
            }
            seen.source = source;
            continue;
        }
        const QuotaFunding::Ask asked = need(ask, key, seen, charge);
        if (asked.count == 0) {
            co_return cannot_tell(ask); // a quota that the catalog does not know
        }
        std::optional<QuotaFunding::Answer> answer = co_await funding_.fund(asked);
        if (!answer) {
            co_return cannot_tell(ask);
        }
        if (answer->granted) {
            take_periods(asked, *answer, ask, seen);
            continue;
        }
        if (!answer->elsewhere || recalled) {
            co_return refuse_limit(asked, *answer, ask, seen);
        }
        recalled = true;
        co_await sleep_for(reactor_, k_recall_ms);
        look(ask, key, seen);
    }
    co_return cannot_tell(ask);
}

QuotaFunding::Ask Gate::need(const Ask& ask, AccountKey key, const Seen& seen, const Charge& charge) const noexcept {
    QuotaFunding::Ask asked;
    asked.key = key;
    asked.account_id = seen.view.id;
    const auto& quotas = bound_[ask.rules_index].quotas();
    for (std::size_t index = 0; index < quotas.size(); ++index) {
        if (!quotas[index].known) {
            asked.count = 0;
            break;
        }
        const std::uint32_t paid = charge.paid(seen.view.id, quotas[index].limit_no);
        if (ask.costs[index] > paid) {
            asked.needs[asked.count++] = {quotas[index].limit_no, period_number(quotas[index], seen.view, ask.now),
                                          ask.costs[index] - paid};
        }
    }
    return asked;
}

// What the request makes of a stock, and costs in credits. Whoever leaves while PostgreSQL is asked leaves the takings
// in the charge, so that the request's end gives them back, arrived or not.
Task<Decision> Gate::pay_durable(Ask ask, Seen seen, Decision decision, Charge& charge, std::uint8_t number) {
    // Another subrequest of the same request may be about to pay the same.
    for (int wait = 0; wait < k_most_waits && charge.credits->pending(seen.view.id); ++wait) {
        co_await sleep_for(reactor_, k_wait_ms);
    }
    for (const TakingKind kind : k_durable) {
        const bool of_stock = kind == TakingKind::stock;
        CreditTakings::Ask asked;
        const bool possible =
            of_stock ? ask_stock(ask, seen, charge, number, asked) : ask_credits(ask, seen, charge, number, asked);
        if (possible && asked.count == 0) {
            continue; // nothing, or paid already
        }
        CreditTakings& takings = of_stock ? stock_ : credits_;
        std::optional<CreditTakings::Answer> answer;
        if (possible) {
            answer = co_await takings.take(asked);
        }
        if (answer && answer->taken) {
            table_.count(of_stock ? Counter::stock_reserved : Counter::credits_taken, asked.count);
            if (!of_stock) {
                charge.credits->reservation = asked.name;
            }
            continue;
        }
        forget_credits(charge, kind, asked.name, !answer);
        undo_decision(charge, number);
        if (!answer) {
            co_return cannot_tell(ask);
        }
        co_return of_stock ? refuse_stock(ask, asked, *answer, seen) : refuse_credits(ask, asked, *answer, seen);
    }
    charge.credits->taken(number);
    co_return decision;
}

// False: a stock that the catalog does not know, or a chain of redirects that nobody can have meant.
bool Gate::ask_stock(const Ask& ask, const Seen& seen, Charge& charge, std::uint8_t number, CreditTakings::Ask& asked) {
    const auto& bound = bound_[ask.rules_index].stock();
    CreditCharge& credits = *charge.credits;
    asked.account_id = seen.view.id;
    for (std::size_t index = 0; index < bound.size(); ++index) {
        if ((ask.stock & 1U << index) == 0) {
            continue;
        }
        const StockRule& rule = rules_[ask.rules_index]->stock[index];
        const TakingKind kind = rule.removes ? TakingKind::removal : TakingKind::stock;
        const std::uint32_t paid = credits.paid(seen.view.id, kind, bound[index].stock_no);
        if (!bound[index].known || (rule.units > paid && credits.count == credits.room)) {
            return false;
        }
        if (rule.units <= paid) {
            continue;
        }
        if (asked.name.view().empty()) {
            asked.name = credits.name_of(number).value_or(stock_.new_name());
        }
        const std::uint32_t units = rule.units - paid;
        if (!rule.removes) {
            asked.wants[asked.count++] = {bound[index].stock_no, units, rule.hold_seconds};
        }
        credits.takings[credits.count++] = {seen.view.id, units,  units, bound[index].stock_no,
                                            kind,         number, false, asked.name};
    }
    return true;
}

Decision Gate::refuse_stock(const Ask& ask, const CreditTakings::Ask& asked, const CreditTakings::Answer& answer,
                            const Seen& seen) const noexcept {
    Decision decision;
    describe(seen, Reason::stock_full, ask, decision);
    decision.source = Source::postgres;
    const std::uint32_t line = answer.lacking(asked.count);
    const auto& bound = bound_[ask.rules_index].stock();
    const auto& rules = rules_[ask.rules_index]->stock;
    while (decision.meter.quota + 1U < bound.size() &&
           (rules[decision.meter.quota].removes || bound[decision.meter.quota].stock_no != asked.wants[line].no)) {
        ++decision.meter.quota;
    }
    decision.meter.limit = answer.lines[line].allocated;
    decision.meter.remaining = answer.lines[line].used;
    decision.meter.cost = asked.wants[line].units;
    return decision;
}

// False: a type that the catalog does not know, or a chain of redirects that nobody can have meant.
bool Gate::ask_credits(const Ask& ask, const Seen& seen, Charge& charge, std::uint8_t number,
                       CreditTakings::Ask& asked) {
    const auto& bound = bound_[ask.rules_index].credits();
    CreditCharge& credits = *charge.credits;
    asked.name = credits.name_of(number).value_or(credits_.new_name());
    asked.account_id = seen.view.id;
    for (std::size_t index = 0; index < bound.size(); ++index) {
        const std::uint32_t paid = credits.paid(seen.view.id, TakingKind::credits, bound[index].credit_no);
        if (!bound[index].known || (ask.credits[index] > paid && credits.count == credits.room)) {
            return false;
        }
        if (ask.credits[index] > paid) {
            const std::uint32_t units = ask.credits[index] - paid;
            asked.wants[asked.count++] = {bound[index].credit_no, units,
                                          rules_[ask.rules_index]->credits[index].hold_seconds};
            credits.takings[credits.count++] = {seen.view.id,        units,  units, bound[index].credit_no,
                                                TakingKind::credits, number, false, asked.name};
        }
    }
    return true;
}

Decision Gate::refuse_credits(const Ask& ask, const CreditTakings::Ask& asked, const CreditTakings::Answer& answer,
                              const Seen& seen) const noexcept {
    Decision decision;
    describe(seen, Reason::credits_short, ask, decision);
    decision.source = Source::postgres;
    const std::uint32_t line = answer.lacking(asked.count);
    const auto& bound = bound_[ask.rules_index].credits();
    while (decision.meter.quota + 1U < bound.size() && bound[decision.meter.quota].credit_no != asked.wants[line].no) {
        ++decision.meter.quota;
    }
    decision.meter.limit = answer.lines[line].allocated;
    decision.meter.remaining = answer.lines[line].remaining;
    decision.meter.reset = answer.lines[line].ends;
    decision.meter.cost = asked.wants[line].units;
    return decision;
}

// What one decision has taken goes back; what others of the request have taken meanwhile stays.
void Gate::undo_decision(Charge& charge, std::uint8_t number) noexcept {
    std::uint32_t kept = 0;
    for (std::uint32_t index = 0; index < charge.count; ++index) {
        if (charge.takings[index].decision == number) {
            give_back(charge.takings[index]);
        } else {
            charge.takings[kept++] = charge.takings[index];
        }
    }
    charge.count = kept;
    CreditCharge& credits = *charge.credits;
    kept = 0;
    for (std::uint32_t index = 0; index < credits.count; ++index) {
        const CreditTaking taking = credits.takings[index];
        if (taking.decision == number) {
            tell_credit(taking, false);
        } else {
            credits.takings[kept++] = taking;
        }
    }
    credits.count = kept;
}

// Those of one kind and name: refused, or, with `give_back`, perhaps taken.
void Gate::forget_credits(Charge& charge, TakingKind kind, const TakingName& name, bool give_back) noexcept {
    CreditCharge& credits = *charge.credits;
    std::uint32_t kept = 0;
    for (std::uint32_t index = 0; index < credits.count; ++index) {
        const CreditTaking taking = credits.takings[index];
        if (taking.name != name || !go_together(taking.kind, kind)) {
            credits.takings[kept++] = taking;
        } else if (give_back && taking.kind != TakingKind::removal) {
            verdicts_.tell({taking.name, taking.account_id, taking.no, 0, taking.kind});
        }
    }
    credits.count = kept;
}

// The first request that a rate holds back needs a place in the account's record.
void Gate::provide_rates(const BoundRules& rules, AccountKey key, Seen& seen) noexcept {
    for (const BoundRate& rate : rules.rates()) {
        if (rate.known && !rate.by_plan[seen.view.plan].is_unlimited()) {
            table_.provide_rate(key, rate.rate_no);
        }
    }
    seen.rates_provided = true;
}

std::size_t Gate::quota_of(const Ask& ask, std::uint8_t limit_no) const noexcept {
    const auto& quotas = bound_[ask.rules_index].quotas();
    std::size_t index = 0;
    while (index + 1 < quotas.size() && quotas[index].limit_no != limit_no) {
        ++index;
    }
    return index;
}

void Gate::take_periods(const QuotaFunding::Ask& asked, const QuotaFunding::Answer& answer, const Ask& ask,
                        Seen& seen) const noexcept {
    for (std::uint32_t line = 0; line < asked.count; ++line) {
        seen.periods[quota_of(ask, asked.needs[line].limit_no)] = answer.lines[line].period;
        seen.other_periods = seen.other_periods || answer.lines[line].period != asked.needs[line].period;
    }
}

Decision Gate::refuse_limit(const QuotaFunding::Ask& asked, const QuotaFunding::Answer& answer, const Ask& ask,
                            const Seen& seen) noexcept {
    Decision decision;
    describe(seen, Reason::limit_reached, ask, decision);
    decision.source = Source::postgres;
    for (std::uint32_t line = 0; line < asked.count; ++line) {
        const auto& told = answer.lines[line];
        if (told.enough) {
            continue;
        }
        const std::uint8_t limit_no = asked.needs[line].limit_no;
        const std::size_t index = quota_of(ask, limit_no);
        const BoundRules& rules = bound_[ask.rules_index];
        const bool own = rules.quotas()[index].own;                        // others end when the host's calendar says
        measure(rules, ask, index, told.limit, told.left, decision.meter); // its word on overrides is the newest
        measure_own(seen, rules, ask, decision.meter);
        decision.meter.reset = own ? told.resets : decision.meter.reset;
        if (told.left == 0) { // for a smaller cost there may be some left
            table_.exhausted(asked.key, limit_no, told.period, ask.now_ms + k_exhausted_ms,
                             own ? static_cast<std::uint32_t>(told.resets) : 0);
        }
        break;
    }
    return decision;
}

} // namespace billing
