// The synchronous half: what a warm request runs. The other half, with everything that waits, is resolve.cpp.
#include "gate/gate.hpp"

#include "gate/feature_names.hpp"

#include <algorithm>
#include <bit>

namespace billing {

namespace {

// Up to this long without news from PostgreSQL a host's knowledge is as good as new.
constexpr std::uint64_t k_fresh_ms = 5000;

Counter outcome_of(TakingKind kind, bool paid) noexcept {
    switch (kind) {
    case TakingKind::stock:
        return paid ? Counter::stock_made : Counter::stock_given_back;
    case TakingKind::removal:
        return Counter::stock_removed;
    case TakingKind::credits:
    case TakingKind::key:
        break;
    }
    return paid ? Counter::credits_committed : Counter::credits_given_back;
}

} // namespace

Gate::Gate(Reactor& reactor, Table& table, CatalogHolder& catalogs, AccountStore& accounts, QuotaFunding& funding,
           CreditTakings& credits, CreditTakings& stock, IdempotencyKeys& keys, CreditVerdicts& verdicts,
           std::vector<const Rules*> rules)
    : reactor_(reactor), table_(table), catalogs_(catalogs), accounts_(accounts), funding_(funding), credits_(credits),
      stock_(stock), keys_(keys), verdicts_(verdicts), rules_(std::move(rules)) {}

// Several functions for the reader, one for the processor.
[[gnu::flatten]] bool Gate::decide(const Ask& ask, Decision& decision, Charge& charge) noexcept {
    if (!bound()) {
        return false;
    }
    const AccountKey key = table_.key_of(ask.account);
    Seen seen;
    if (!look(ask, key, seen)) {
        if (ask.unknown == UnknownAccount::create || !table_.is_unknown(key, ask.now_ms)) {
            return false;
        }
        decision = without_account(ask);
        return true;
    }
    if (seen.known > Known::doubtful) {
        return false;
    }
    const BoundRules& rules = bound_[ask.rules_index];
    const Reason reason = judge(seen.view, rules, ask);
    if (reason != Reason::allowed && seen.known != Known::fresh) {
        return false;
    }
    describe(seen, reason, ask, decision);
    if (reason != Reason::allowed || rules.takes() == Takes::nothing) {
        table_.touch(seen.view.ref);
        return true;
    }
    const bool plain = rules.takes() == Takes::plain && !seen.view.calendar.zoned() && ask.claim == nullptr;
    if (!plain && (rules.takes() == Takes::durable || ask.claim != nullptr)) {
        return false;
    }
    switch (plain ? spend(seen, rules, ask, decision, charge) : spend_special(seen, rules, ask, decision, charge)) {
    case Spend::taken:
        return true;
    case Spend::exhausted:
        return seen.known == Known::fresh;
    case Spend::short_of_tokens:
    case Spend::gone:
        break;
    }
    return false;
}

void Gate::refund(Charge& charge) noexcept {
    undo(charge, 0);
    tell_credits(charge, false, true);
}

void Gate::settle_quota(Charge& charge, std::size_t rules_index, std::size_t quota, std::uint32_t units,
                        std::string_view account, std::int64_t now, std::uint64_t now_ms) noexcept {
    if (bound_.empty()) {
        return;
    }
    const std::uint8_t limit_no = bound_[rules_index].quotas()[quota].limit_no;
    std::uint32_t more = units; // than what its takings have, the last one of which takes up the difference
    Taking* last = nullptr;
    const std::uint64_t payer = charge.last_payer(limit_no);
    for (std::uint32_t index = 0; index < charge.count; ++index) {
        Taking& taking = charge.takings[index];
        if (taking.limit_no != limit_no || taking.account_id != payer) {
            continue;
        }
        if (taking.cost > more) {
            Taking rest = taking;
            rest.cost = taking.cost - more;
            give_back(rest);
            taking.cost = more;
        }
        more -= taking.cost;
        last = &taking;
    }
    if (more == 0 || last == nullptr) {
        return;
    }
    SpendOutcome outcome;
    if (table_.spend(last->record, limit_no, last->period, more, now_ms, outcome) != Spend::taken) {
        LateCharge late;
        late.account = account;
        late.limit = rules_[rules_index]->quotas[quota].key;
        late.at = now;
        late.units = more;
        table_.charge_late(late);
    }
    last->cost += more;
}

void Gate::settle_credits(Charge& charge, std::size_t rules_index, std::size_t credit, std::uint32_t units) noexcept {
    if (bound_.empty() || charge.credits == nullptr) {
        return;
    }
    const std::uint8_t credit_no = bound_[rules_index].credits()[credit].credit_no;
    const std::uint64_t payer = charge.credits->last_payer(credit_no);
    std::uint32_t more = units;
    CreditTaking* last = nullptr;
    for (std::uint32_t index = 0; index < charge.credits->count; ++index) {
        CreditTaking& taking = charge.credits->takings[index];
        if (taking.kind == TakingKind::credits && taking.no == credit_no && taking.account_id == payer) {
            taking.keep = std::min(taking.units, more);
            more -= taking.keep;
            last = &taking;
        }
    }
    if (last != nullptr) {
        last->keep += more;
    }
}

void Gate::commit(Charge& charge, bool answered) noexcept { tell_credits(charge, true, answered); }

bool Gate::look(const Ask& ask, AccountKey key, Seen& seen) const noexcept {
    if (!table_.find(key, seen.view)) {
        return false;
    }
    seen.known = known(seen.view, ask);
    return true;
}

Gate::Known Gate::known(const AccountView& view, const Ask& ask) const noexcept {
    const std::uint64_t arrival = table_.watermark_arrival();
    const std::uint64_t lag = ask.now_ms > arrival ? ask.now_ms - arrival : 0;
    const bool override_ended = view.overrides_until != 0 && ask.now >= view.overrides_until;
    if (view.current && !override_ended && lag <= ask.on_error.stale_ms && arrival != 0) {
        return lag <= k_fresh_ms ? Known::fresh : Known::doubtful;
    }
    return lag <= ask.on_error.stale_ms && arrival != 0 ? Known::stale : Known::outdated;
}

// noexcept: memory that is out here ends the worker, which nginx replaces.
[[gnu::noinline]] bool Gate::rebind() noexcept {
    if (!catalogs_.refresh()) {
        return false;
    }
    bound_stamp_ = catalogs_.stamp();
    bound_.clear();
    for (const Rules* rules : rules_) {
        bound_.emplace_back(*rules, *catalogs_.catalog());
        for (const auto& name : bound_.back().unknown()) {
            reactor_.log(LogLevel::error, "billing: the catalog in PostgreSQL has no " + name +
                                              ", which the configuration names; run ngx-billing catalog apply FILE");
        }
    }
    return true;
}

// The fixed order (G3) from the kill switch to the features; quotas and then rates come after it.
Reason Gate::judge(const AccountFacts& view, const BoundRules& rules, const Ask& ask) noexcept {
    const auto& plan = rules.of_plan(view.plan);
    const bool lapsed = view.until_kind != UntilKind::none && ask.now >= view.until;
    if (ask.write && view.flags != 0) {
        if ((view.flags & AccountFlags::k_write_disabled) != 0) {
            return Reason::write_disabled;
        }
        if ((view.flags & (AccountFlags::k_maintenance_payment | AccountFlags::k_maintenance_operator)) != 0) {
            return Reason::maintenance;
        }
    }
    if ((view.flags & AccountFlags::k_deleted) != 0) {
        return Reason::unknown_account;
    }
    if (lapsed && view.until_kind == UntilKind::enforcement) {
        return Reason::billing_enforced;
    }
    if (!plan.free && (!contains(ask.live, view.status) || lapsed)) {
        return Reason::subscription_inactive;
    }
    if (!view.has_overrides) {
        return plan.reason;
    }
    return rules.with_overrides(view.plan, feature_set(view.on), feature_set(view.off));
}

void Gate::describe(const Seen& seen, Reason reason, const Ask& ask, Decision& decision) const noexcept {
    decision.reason = reason;
    decision.source = seen.source;
    decision.status = seen.view.status;
    decision.plan_no = seen.view.plan;
    const bool owes = seen.view.until_kind == UntilKind::enforcement || seen.view.status == Status::past_due;
    decision.grace = owes && reason == Reason::allowed && ask.now < seen.view.until;
}

// All quotas of the request or none: what was taken before one fell short is put back. Never leaves the host.
Spend Gate::spend(const Seen& seen, const BoundRules& rules, const Ask& ask, Decision& decision,
                  Charge& charge) noexcept {
    const auto& quotas = rules.quotas();
    const std::uint32_t before = charge.count;
    std::size_t index = 0;
    for (auto quota = quotas.begin(); quota != quotas.end(); ++quota, ++index) {
        if (!quota->known) {
            undo(charge, before);
            return Spend::short_of_tokens;
        }
        const std::uint32_t paid = charge.count == 0 ? 0 : charge.paid(seen.view.id, quota->limit_no);
        if (paid >= ask.costs[index]) {
            if (index == 0) {
                measure_paid(seen, rules, ask, decision.meter);
            }
            continue;
        }
        if (charge.count == charge.room) { // a chain of redirects that nobody can have meant
            undo(charge, before);
            decision.reason = Reason::unavailable;
            return Spend::exhausted;
        }
        const std::uint32_t cost = ask.costs[index] - paid;
        const std::int64_t period =
            seen.other_periods ? seen.periods[index] : periods_.at(quota->period, ask.now).number;
        SpendOutcome outcome;
        const Spend result = table_.spend(seen.view.ref, quota->limit_no, period, cost, ask.now_ms, outcome);
        if (result != Spend::taken) {
            undo(charge, before);
            if (result == Spend::exhausted && outcome.resets != 0 && ask.now >= outcome.resets) {
                return Spend::short_of_tokens; // some have come back in the meantime
            }
            if (result == Spend::exhausted) {
                decision.reason = Reason::limit_reached;
                measure(rules, ask, index, limit_of(seen, *quota), 0, decision.meter);
                decision.meter.reset = outcome.resets != 0 ? outcome.resets : decision.meter.reset;
            }
            return result;
        }
        charge.takings[charge.count++] = {seen.view.ref, seen.view.id, period, cost, quota->limit_no, 0};
        if (index == 0) {
            measure(rules, ask, index, limit_of(seen, *quota), outcome.remaining, decision.meter);
        }
    }
    return Spend::taken;
}

// An internal redirect has led to rules whose first quota the request has paid before: what is left of it?
[[gnu::noinline]] void Gate::measure_paid(const Seen& seen, const BoundRules& rules, const Ask& ask,
                                          Meter& meter) noexcept {
    const BoundQuota& quota = rules.quotas().front();
    const std::int64_t period = seen.other_periods ? seen.periods[0] : periods_.at(quota.period, ask.now).number;
    SpendOutcome outcome;
    const Spend result = table_.spend(seen.view.ref, quota.limit_no, period, 0, ask.now_ms, outcome);
    if (result == Spend::taken || result == Spend::exhausted) {
        measure(rules, ask, 0, limit_of(seen, quota), result == Spend::taken ? outcome.remaining : 0, meter);
    }
}

// The same where a quota's period is the account's own, or a rate is asked after the quotas.
[[gnu::noinline]] Spend Gate::spend_special(const Seen& seen, const BoundRules& rules, const Ask& ask,
                                            Decision& decision, Charge& charge) noexcept {
    const std::uint32_t before = charge.count;
    Seen mine = seen;
    if (!seen.other_periods) {
        mine.other_periods = true;
        for (std::size_t index = 0; index < rules.quotas().size(); ++index) {
            mine.periods[index] = period_number(rules.quotas()[index], seen.view, ask.now);
        }
    }
    Spend result = spend(mine, rules, ask, decision, charge);
    measure_own(seen, rules, ask, decision.meter);
    if (result == Spend::taken) {
        result = pass_rates(seen, rules, ask, decision, charge);
        if (result == Spend::taken) {
            watch(mine, rules, ask, decision);
        } else { // a refusal takes nothing, but of a rate before the one that refused
            undo(charge, before);
        }
    }
    return result;
}

// Months and buckets of the account itself, and days of its time zone.
[[gnu::noinline]] Period Gate::own_period(const BoundQuota& quota, const AccountView& view,
                                          std::int64_t now) const noexcept {
    if (quota.period == PeriodKind::cycle) {
        return cycle_period(view.calendar.anchor(), now);
    }
    if (quota.period == PeriodKind::sliding) {
        return sliding_period(quota.length, now);
    }
    ZoneOffsets zone; // where the account has just left the table, PostgreSQL's word on the period will count
    return table_.zone_of(view.ref, zone) ? zoned_period(quota.period, now, zone) : calendar_period(quota.period, now);
}

// exhausted: one of them refuses, and the decision says so.
[[gnu::noinline]] Spend Gate::pass_rates(const Seen& seen, const BoundRules& rules, const Ask& ask, Decision& decision,
                                         Charge& charge) noexcept {
    constexpr std::uint64_t k_us_in_ms = 1000;
    for (std::size_t index = 0; index < rules.rates().size() && ask.counts; ++index) {
        const BoundRate& rate = rules.rates()[index];
        const RateShape shape = rate.by_plan[seen.view.plan];
        if (!rate.known || shape.is_unlimited() || charge.has_passed(seen.view.id, rate.rate_no)) {
            continue;
        }
        std::uint64_t wait_us = 0;
        const Pass result = table_.pass(seen.view.ref, rate.rate_no, shape, ask.now_ms * k_us_in_ms, wait_us);
        if (result == Pass::refused) {
            decision.reason = Reason::rate_exceeded;
            decision.meter = {};
            decision.meter.quota = static_cast<std::uint8_t>(index);
            decision.meter.reset = wait_us == RateShape::k_never
                                       ? 0
                                       : ask.now + static_cast<std::int64_t>((wait_us + 1'000'000 - 1) / 1'000'000);
            return Spend::exhausted;
        }
        if (result == Pass::gone) {
            return Spend::gone;
        }
        if (result == Pass::no_slot && !seen.rates_provided) {
            return Spend::short_of_tokens;
        }
        if (charge.count < charge.room) {
            charge.takings[charge.count++] = {
                seen.view.ref, seen.view.id, 0, 0, static_cast<std::uint8_t>(k_rate_slots + rate.rate_no), 0};
        }
    }
    return Spend::taken;
}

std::uint64_t Gate::limit_of(const Seen& seen, const BoundQuota& quota) const noexcept {
    std::uint64_t limit = quota.by_plan[seen.view.plan];
    if (seen.view.has_overrides) {
        table_.limit_amount(seen.view.ref, quota.limit_no, limit);
    }
    return limit;
}

void Gate::measure(const BoundRules& rules, const Ask& ask, std::size_t quota, std::uint64_t limit,
                   std::uint64_t remaining, Meter& meter) const noexcept {
    meter.metered = true;
    meter.quota = static_cast<std::uint8_t>(quota);
    meter.unlimited = limit == k_unlimited;
    if (meter.unlimited) { // nothing of it is ever left, or comes back
        return;
    }
    meter.limit = limit;
    meter.remaining = remaining < limit ? remaining : limit;
    meter.reset = periods_.at(rules.quotas()[quota].period, ask.now).end;
    meter.cost = ask.costs[quota];
}

// What the meter says of a period that is the account's own.
void Gate::measure_own(const Seen& seen, const BoundRules& rules, const Ask& ask, Meter& meter) const noexcept {
    if (!meter.bounded() || !is_own(rules.quotas()[meter.quota], seen.view)) {
        return;
    }
    const auto& bound = rules.quotas()[meter.quota];
    const Period period = own_period(bound, seen.view, ask.now);
    const bool sliding = bound.period == PeriodKind::sliding;
    meter.window = sliding ? static_cast<std::uint32_t>(bound.length) : period.length();
    if (!bound.own || meter.reset == 0) { // when units of a sliding window come back, only PostgreSQL knows
        meter.reset = sliding ? 0 : period.end;
    }
}

// Gives back all takings but the first `keep`.
[[gnu::noinline]] void Gate::undo(Charge& charge, std::uint32_t keep) noexcept {
    while (charge.count > keep) {
        give_back(charge.takings[--charge.count]);
    }
}

void Gate::give_back(const Taking& taking) noexcept {
    if (taking.cost != 0 && !table_.refund(taking.record, taking.limit_no, taking.period, taking.cost)) {
        const std::int64_t cost = taking.cost;
        table_.add_usage(taking.account_id, taking.limit_no, taking.period, -cost, cost);
    }
}

// The last one first, so that a key, which is claimed before all else, is told of last: where a worker dies in between,
// the ledger tells what became of it.
void Gate::tell_credits(Charge& charge, bool paid, bool answered) noexcept {
    while (charge.credits != nullptr && charge.credits->count > 0) {
        const CreditTaking& taking = charge.credits->takings[--charge.credits->count];
        tell_credit(taking, paid && (answered || taking.kind != TakingKind::removal));
    }
}

void Gate::tell_credit(const CreditTaking& taking, bool paid) noexcept {
    CreditVerdict verdict{taking.name, taking.account_id, taking.no, std::nullopt, taking.kind};
    if (taking.kind == TakingKind::removal) {
        if (!paid) {
            return; // nothing was removed
        }
        verdict.keep = -std::int64_t{taking.units};
    } else if (!paid || taking.keep != taking.units) {
        verdict.keep = paid ? taking.keep : 0;
    }
    verdicts_.tell(verdict);
    if (taking.kind != TakingKind::key) {
        table_.count(outcome_of(taking.kind, paid));
    }
}

[[gnu::noinline]] Decision Gate::without_account(const Ask& ask) const noexcept {
    Decision decision;
    const BoundRules& rules = bound_[ask.rules_index];
    const std::uint8_t plan = catalogs_.catalog()->default_plan();
    decision.plan_no = plan;
    decision.source = Source::postgres;
    if (ask.unknown == UnknownAccount::deny || rules.takes() != Takes::nothing) {
        decision.reason = Reason::unknown_account; // nothing can be counted for an account that does not exist
    } else {
        decision.reason = rules.of_plan(plan).reason;
    }
    return decision;
}

Decision Gate::cannot_tell(const Ask& ask) const noexcept {
    Decision decision;
    decision.reason = ask.on_error.allow ? Reason::allowed : Reason::unavailable;
    decision.fallback = ask.on_error.allow;
    return decision;
}

} // namespace billing
