// Tokens: spending and giving back by requests (no lock), funding, reporting and taking out by writers.
//
// For each slot, tokens granted by PostgreSQL = reported as spent + reported as returned + base, always; base = spent
// but not reported + held. So a spend is one compare-and-swap on the token word.
#include "state/table_writing.hpp"

#include <algorithm>
#include <limits>

namespace billing {

namespace {

constexpr int k_attempts = 128;
constexpr std::uint64_t k_ms_in_eighth = 125;
constexpr std::int64_t k_other_kind = 1 << 19; // further apart than this: the limit's number has a new owner

std::uint64_t bits_of(std::int64_t period) noexcept { return static_cast<std::uint64_t>(period); }

} // namespace

// --- requests

void Table::mark_touched(std::uint32_t record, std::uint32_t epoch) noexcept {
    shared::set_bits(dirty_[epoch & 1][record >> 6],
                     std::uint64_t{1} << (record & 63)); // first: the other may get lost
    shared::store(units_[record].record.touched, static_cast<std::uint8_t>(epoch));
}

std::uint64_t* Table::word_of(const Record& record, std::uint8_t limit_no, std::uint32_t*& outside) const noexcept {
    auto& first = const_cast<Record&>(record);
    if ((shared::load(first.mark) & ~k_valid_gen_mask) == first_slot_mark(limit_no)) {
        outside = &first.outside;
        return &first.tokens;
    }
    std::uint32_t link = shared::load(first.link);
    for (std::uint32_t hop = 0; link != 0 && hop < k_longest_chain; hop++) {
        QuotaExtension& more = units_[link - 1].quotas;
        for (std::size_t i = 0; i < 3 && shared::load(more.kind) == k_unit_quotas; i++) {
            if (shared::load(more.limit_no[i]) == limit_no) {
                outside = &more.outside[i];
                return &more.words[i];
            }
        }
        link = shared::load(more.link);
    }
    return nullptr;
}

// True: whatever was loaded before this call, since the reference was taken, belonged to this stay of the account.
bool Table::is_owner(RecordRef ref) const noexcept {
    const Record& record = units_[ref.record].record;
    return token::owner_of(shared::load(record.tokens)) == ref.owner && shared::load(record.key1) == ref.check;
}

Spend Table::spend_slowly(RecordRef ref, std::uint8_t limit_no, std::int64_t period, std::uint32_t cost,
                          std::uint64_t now_ms, SpendOutcome& outcome) noexcept {
    outcome = {};
    for (int attempt = 0; attempt < k_attempts; attempt++) {
        std::uint32_t* outside = nullptr;
        std::uint64_t* slot = word_of(units_[ref.record].record, limit_no, outside);
        std::uint64_t word = slot != nullptr ? shared::load(*slot) : 0;
        if (!is_owner(ref)) {
            return Spend::gone;
        }
        if (slot == nullptr || token::period_of(word) != (bits_of(period) & token::k_period_mask)) {
            return Spend::short_of_tokens;
        }
        if (token::is_exhausted(word)) {
            const auto now = static_cast<std::uint32_t>(now_ms / k_ms_in_eighth);
            const std::uint32_t left = (token::value_of(word) - now) & token::k_most;
            const bool still = left != 0 && left < 1u << 30;
            outcome.retry_after_eighths = still ? left : 0;
            outcome.resets = shared::load(*outside);
            return still ? Spend::exhausted : Spend::short_of_tokens;
        }
        outcome.held = token::held_in(word);
        outcome.remaining = table_detail::remaining(shared::load(*outside), outcome.held);
        if (outcome.held < cost) {
            return Spend::short_of_tokens;
        }
        if (shared::swap(*slot, word, word - cost)) {
            outcome.held -= cost;
            outcome.remaining -= outcome.remaining == k_unlimited ? 0 : cost;
            touch(ref);
            return Spend::taken;
        }
    }
    return Spend::short_of_tokens;
}

bool Table::refund(RecordRef ref, std::uint8_t limit_no, std::int64_t period, std::uint32_t cost) noexcept {
    for (int attempt = 0; attempt < k_attempts; attempt++) {
        std::uint32_t* outside = nullptr;
        std::uint64_t* slot = word_of(units_[ref.record].record, limit_no, outside);
        std::uint64_t word = slot != nullptr ? shared::load(*slot) : 0;
        if (!is_owner(ref) || slot == nullptr || token::period_of(word) != (bits_of(period) & token::k_period_mask) ||
            cost > token::k_most - token::held_in(word)) {
            return false;
        }
        if (token::is_exhausted(word)) { // till now it said when units come back
            shared::store(*outside, 0);
        }
        if (shared::swap(*slot, word, token::with_value(word, token::held_in(word) + cost))) {
            touch(ref);
            return true;
        }
    }
    return false;
}

// --- rates

std::uint64_t* Table::rate_word_of(const Record& record, std::uint8_t rate_no) const noexcept {
    std::uint32_t link = shared::load(record.link);
    for (std::uint32_t hop = 0; link != 0 && hop < k_longest_chain; hop++) {
        QuotaExtension& more = units_[link - 1].quotas;
        for (std::size_t i = 0; i < 3 && shared::load(more.kind) == k_unit_quotas; i++) {
            if (shared::load(more.limit_no[i]) == k_rate_slots + rate_no) {
                return &more.words[i];
            }
        }
        link = shared::load(more.link);
    }
    return nullptr;
}

// The generic cell rate algorithm: a request moves the moment at which the bucket will be as new by one interval, and
// is refused if that would then be too far away.
Pass Table::pass(RecordRef ref, std::uint8_t rate_no, RateShape shape, std::uint64_t now_us,
                 std::uint64_t& wait_us) noexcept {
    if (shape.interval_us == RateShape::k_never) {
        wait_us = RateShape::k_never;
        return Pass::refused;
    }
    for (int attempt = 0; attempt < k_attempts; attempt++) {
        std::uint64_t* slot = rate_word_of(units_[ref.record].record, rate_no);
        std::uint64_t word = slot != nullptr ? shared::load(*slot) : 0;
        if (!is_owner(ref)) {
            return Pass::gone;
        }
        if (slot == nullptr) {
            return Pass::no_slot;
        }
        const std::uint64_t next = std::max(word & token::k_rate_mask, now_us) + shape.interval_us;
        if (next - now_us > shape.burst_us) {
            wait_us = next - now_us - shape.burst_us;
            return Pass::refused;
        }
        if (shared::swap(*slot, word, (word & ~token::k_rate_mask) | (next & token::k_rate_mask))) {
            touch(ref);
            return Pass::passed;
        }
    }
    return Pass::passed;
}

bool Table::provide_rate(AccountKey key, std::uint8_t rate_no) noexcept {
    Writing writing(*this);
    const std::uint32_t number = writing.look_up(key);
    if (number == k_none || shared::load(writing.record(number).stamp) == 0) {
        return false;
    }
    Writing::Slot slot;
    return rate_word_of(writing.record(number), rate_no) != nullptr ||
           writing.extension_slot(number, static_cast<std::uint8_t>(k_rate_slots + (rate_no & 63)), slot);
}

// --- slots

bool Table::Writing::slot_for(std::uint32_t number, std::uint8_t limit_no, Slot& slot) noexcept {
    each_slot(number, [&](const Slot& each) {
        if (each.limit_no == limit_no) {
            slot = each;
        }
    });
    if (slot.word != nullptr) {
        return true;
    }
    Record& owner = record(number);
    if (const std::uint32_t mark = shared::load(owner.mark); (mark & k_slot_in_use) == 0) {
        set(owner.mark, mark | first_slot_mark(limit_no));
        slot = {&owner.tokens, &owner.base, &owner.outside, limit_no};
        return true;
    }
    return extension_slot(number, limit_no, slot);
}

// A free place in an extension, which is added where there is none.
bool Table::Writing::extension_slot(std::uint32_t number, std::uint8_t limit_no, Slot& slot) noexcept {
    for (int attempt = 0; attempt < 2; attempt++) {
        std::uint32_t link = shared::load(record(number).link);
        for (; link != 0; link = shared::load(record(link - 1).link)) {
            QuotaExtension& more = table_.units_[link - 1].quotas;
            for (std::size_t i = 0; i < 3 && shared::load(more.kind) == k_unit_quotas; i++) {
                if (shared::load(more.limit_no[i]) == k_no_limit) {
                    set(more.limit_no[i], limit_no);
                    slot = {&more.words[i], &more.base[i], &more.outside[i], limit_no};
                    return true;
                }
            }
        }
        if (!add_extension(number, k_unit_quotas)) {
            return false;
        }
    }
    return false;
}

// The number below or at the greatest one funded that has these 20 bits.
std::int64_t Table::Writing::full_period(std::uint8_t limit_no, std::uint32_t period20) const noexcept {
    const std::uint64_t current = shared::load(zone_.current_period[limit_no]);
    return static_cast<std::int64_t>(current - ((current - period20) & token::k_period_mask));
}

void Table::Writing::note_period(std::uint8_t limit_no, std::int64_t period) noexcept {
    const auto current = static_cast<std::int64_t>(shared::load(zone_.current_period[limit_no]));
    if (period > current || current - period > k_other_kind) {
        set(zone_.current_period[limit_no], bits_of(period));
    }
}

// False: the slot holds tokens of a later period. Tokens of an earlier one are returned.
bool Table::Writing::turn_to(std::uint32_t number, const Slot& slot, std::int64_t period) noexcept {
    note_period(slot.limit_no, period);
    for (int attempt = 0; attempt < k_attempts; attempt++) {
        std::uint64_t word = shared::load(*slot.word);
        if (token::period_of(word) == (bits_of(period) & token::k_period_mask)) {
            return true;
        }
        if (token::held_in(word) != 0 || shared::load(*slot.base) != 0) {
            if (full_period(slot.limit_no, token::period_of(word)) > period) {
                return false;
            }
            take_out(number, slot, After::drop);
            continue;
        }
        if (shared::swap(*slot.word, word, token::make(token::owner_of(word), bits_of(period), 0))) {
            table_.lock_->stored();
            return true;
        }
    }
    return false;
}

// Ends a mark of exhaustion, too. False: there is no room for the row; kept, or forfeited where it cannot stay.
bool Table::Writing::take_out(std::uint32_t number, const Slot& slot, After after) noexcept {
    const bool room = batch_.room() != 0;
    std::uint64_t word = shared::load(*slot.word);
    if (!room && after == After::keep && (token::held_in(word) != 0 || shared::load(*slot.base) != 0)) {
        return false;
    }
    if (after == After::retire) {
        word = shared::exchange(*slot.word, 0);
    } else {
        while (!shared::swap(*slot.word, word, token::with_value(word, 0))) {
        }
    }
    table_.lock_->stored();
    const std::uint32_t held = token::held_in(word);
    const std::uint32_t base = shared::load(*slot.base);
    if (room && (held != 0 || base != 0)) {
        batch_.append({account_id(number), full_period(slot.limit_no, token::period_of(word)),
                       std::int64_t{base} - held, held, slot.limit_no});
        table_.lock_->stored();
    } else if (!room) {
        forfeit(base);
    }
    set(*slot.base, 0);
    if (token::is_exhausted(word)) {
        set(*slot.outside, 0);
    }
    return room;
}

bool Table::Writing::take_out_all(std::uint32_t number) noexcept {
    bool all = true;
    each_slot(number, [&](const Slot& slot) { all = take_out(number, slot, After::keep) && all; });
    return all;
}

// What was spent since the last report goes into the batch. False: no room for all of it.
bool Table::Writing::report(std::uint32_t number) noexcept {
    bool all = true;
    each_slot(number, [&](const Slot& slot) {
        const std::uint64_t word = shared::load_ordered(*slot.word);
        const std::uint32_t held = token::held_in(word);
        const std::int64_t spent = std::int64_t{shared::load(*slot.base)} - held;
        if (spent == 0) {
            return;
        }
        if (!batch_.append(
                {account_id(number), full_period(slot.limit_no, token::period_of(word)), spent, 0, slot.limit_no})) {
            all = false;
            return;
        }
        table_.lock_->stored();
        set(*slot.base, held);
    });
    return all;
}

bool Table::Writing::has_something(std::uint32_t number) noexcept {
    bool something = false;
    each_slot(number, [&](const Slot& slot) {
        something = something || token::held_in(shared::load(*slot.word)) != 0 || shared::load(*slot.base) != 0;
    });
    return something;
}

// --- funding

bool Table::fund(AccountKey key, std::uint8_t limit_no, std::int64_t period, std::uint32_t granted,
                 std::uint64_t outside, std::uint32_t spent_now) noexcept {
    Writing writing(*this);
    const std::uint32_t number = writing.look_up(key);
    Writing::Slot slot;
    if (number == k_none || shared::load(writing.record(number).stamp) == 0 || spent_now > granted ||
        !writing.slot_for(number, limit_no & 63, slot)) {
        return false;
    }
    writing.enter(number, key.hi);
    const bool fits = writing.turn_to(number, slot, period) && writing.add_tokens(number, slot, granted, spent_now);
    if (fits) {
        const auto bounded = static_cast<std::uint32_t>(std::min<std::uint64_t>(outside, k_most_outside));
        writing.set(*slot.outside, outside == k_unlimited ? k_no_bound : outside == k_overage ? k_all_beyond : bounded);
        mark_touched(number, shared::load_ordered(zone_->epoch));
        count(Counter::funds);
    }
    writing.leave();
    return fits;
}

// False: more than a slot can hold.
bool Table::Writing::add_tokens(std::uint32_t number, const Slot& slot, std::uint32_t granted,
                                std::uint32_t spent_now) noexcept {
    const auto most = std::numeric_limits<std::uint32_t>::max();
    if (granted > most - shared::load(*slot.base) && (!report(number) || granted > most - shared::load(*slot.base))) {
        return false;
    }
    const std::uint32_t base = shared::load(*slot.base);
    set(*slot.base, base + granted);
    std::uint64_t word = shared::load(*slot.word);
    do {
        if (granted - spent_now > token::k_most - token::held_in(word)) {
            set(*slot.base, base);
            return false;
        }
    } while (!shared::swap(*slot.word, word, token::with_value(word, token::held_in(word) + (granted - spent_now))));
    table_.lock_->stored();
    return true;
}

bool Table::exhausted(AccountKey key, std::uint8_t limit_no, std::int64_t period, std::uint64_t deadline_mono_ms,
                      std::uint32_t resets) noexcept {
    Writing writing(*this);
    const std::uint32_t number = writing.look_up(key);
    Writing::Slot slot;
    if (number == k_none || shared::load(writing.record(number).stamp) == 0 ||
        !writing.slot_for(number, limit_no & 63, slot)) {
        return false;
    }
    writing.enter(number, key.hi);
    bool done = false;
    if (writing.turn_to(number, slot, period)) {
        std::uint64_t word = shared::load(*slot.word);
        const std::uint64_t eighths = (deadline_mono_ms + k_ms_in_eighth - 1) / k_ms_in_eighth;
        const std::uint32_t value = token::k_exhausted | (static_cast<std::uint32_t>(eighths) & token::k_most);
        if (token::held_in(word) == 0) { // first what it says: who reads the word reads this after it
            writing.set(*slot.outside, resets);
            done = shared::swap(*slot.word, word, token::with_value(word, value));
            if (!done) {
                writing.set(*slot.outside, 0);
            }
        }
    }
    writing.leave();
    return done;
}

} // namespace billing
