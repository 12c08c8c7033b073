// Finding, inserting, evicting and recovering records. Runs under the zone's lock, in any worker.
#include "state/table_writing.hpp"

#include <algorithm>

namespace billing {

using table_detail::first_line;
using table_detail::second_line;

namespace {

constexpr std::uint32_t k_candidates = 1024; // records looked at for a victim before the oldest of them goes
constexpr std::uint64_t k_top_two = std::uint64_t{3} << 62;

std::uint32_t generation(std::uint32_t seq) noexcept { return seq >> 1 & 0x3ff; }

void pack(OverrideExtension& unit, std::size_t at, const AccountFacts& facts,
          std::span<const LimitAmount> amounts) noexcept {
    const bool first = at == 0 && facts.has_overrides; // features are in the first unit
    shared::store(unit.until, first ? facts.overrides_until : 0);
    shared::store(unit.on_low, first ? facts.on.word[0] : 0);
    shared::store(unit.on_high, first ? facts.on.word[1] : 0);
    const std::uint64_t off_low = first ? facts.off.word[0] : 0;
    const std::uint64_t off_high = first ? facts.off.word[1] : 0;
    shared::store(unit.off_low, off_low & ~k_top_two);
    shared::store(unit.off_high_low, static_cast<std::uint32_t>(off_high));
    shared::store(unit.off_high_high, static_cast<std::uint32_t>(off_high >> 32));
    const std::size_t used = std::min<std::size_t>(2, amounts.size() - std::min(amounts.size(), at * 2));
    std::uint8_t limits[2] = {};
    for (std::size_t i = 0; i < used; i++) {
        const LimitAmount& amount = amounts[at * 2 + i];
        limits[i] = amount.limit_no & 63;
        shared::store(unit.amount[i], std::min(amount.amount, ~k_top_two));
    }
    shared::store(unit.limit0, static_cast<std::uint8_t>(limits[0] | off_low >> 62 << 6));
    shared::store(unit.limit1, static_cast<std::uint8_t>(limits[1] | used << 6));
}

void pack(ZoneExtension& unit, const ZoneOffsets& zone) noexcept {
    const auto biased = [](std::int32_t offset) {
        return static_cast<std::uint64_t>(offset + k_offset_bias) & 0xfffff;
    };
    const auto moment = [](std::int64_t at) { return static_cast<std::uint64_t>(std::max<std::int64_t>(at, 0)); };
    shared::store(unit.until, static_cast<std::uint32_t>(std::clamp<std::int64_t>(zone.until, 1, UINT32_MAX)));
    shared::store(unit.changed_at, moment(zone.changed_at) & ~k_top_two);
    shared::store(unit.change_at, moment(zone.change_at) & ~k_top_two);
    shared::store(unit.offsets, biased(zone.before) | biased(zone.offset) << 20 | biased(zone.after) << 40);
}

} // namespace

Table::Writing::Writing(Table& table) noexcept
    : table_(table), zone_(*table.zone_), batch_(table.zone_->batch), late_(table.zone_->late) {
    table_.lock_->lock();
    if (shared::load(zone_.in_cs) != 0) [[unlikely]] {
        recover();
    }
}

void Table::Writing::enter(std::uint32_t number, std::uint64_t key1, std::uint32_t unit) noexcept {
    set(zone_.cs_line[0], first_line(key1, table_.line_count_));
    set(zone_.cs_line[1], second_line(key1, table_.line_count_));
    set(zone_.cs_unit, unit + 1); // k_none + 1 = 0
    set(zone_.in_cs, number + 1);
}

void Table::Writing::leave() noexcept { set(zone_.in_cs, 0); }

// May die, too: in_cs stays until all is done, and each step can be repeated.
void Table::Writing::recover() noexcept {
    const std::uint32_t number = shared::load(zone_.in_cs) - 1;
    const std::uint32_t unit = shared::load(zone_.cs_unit);
    if (unit != 0 && unit != shared::load(record(number).link)) { // in nobody's chain
        free_extension(unit - 1);
    }
    set(zone_.cs_unit, 0);
    wipe(number);
    table_.count(Counter::wipes);
    leave();
}

void Table::Writing::wipe(std::uint32_t number) noexcept {
    Record& gone = record(number);
    set(gone.seq, shared::load(gone.seq) | 1);
    unlink_entries(number, shared::load(zone_.cs_line[0]));
    unlink_entries(number, shared::load(zone_.cs_line[1]));
    each_slot(number, [this](const Slot& slot) {
        forfeit(shared::load(*slot.base));
        set(*slot.base, 0);
    });
    free_chain(number);
    shared::exchange(gone.tokens, 0);
    set(gone.mark, 0);
    set(gone.kind, k_unit_free);
    set(gone.seq, (shared::load(gone.seq) | 1) + 2);
}

bool Table::Writing::is_record(std::uint32_t number) const noexcept {
    const std::uint8_t kind = shared::load(table_.units_[number].record.kind);
    return kind != k_unit_free && kind < k_unit_quotas;
}

std::uint32_t Table::Writing::look_up(AccountKey key) noexcept {
    const std::uint32_t tag = table_detail::tag_of(key);
    for (const std::uint32_t line : {first_line(key.hi, table_.line_count_), second_line(key.hi, table_.line_count_)}) {
        for (const std::uint64_t& slot : table_.index_[line].entry) {
            const std::uint64_t entry = shared::load(slot);
            if (static_cast<std::uint32_t>(entry) != tag || entry >> 32 == 0) {
                continue;
            }
            const auto number = static_cast<std::uint32_t>(entry >> 32) - 1;
            if (record(number).key1 == key.hi && record(number).key0 == table_detail::key0_of(key)) {
                return number;
            }
        }
    }
    return k_none;
}

// The emptier line's first empty entry; null when both are full.
std::uint64_t* Table::Writing::place_in(IndexLine& first, IndexLine& second) noexcept {
    const auto full = [](const IndexLine& line) {
        return std::ranges::count_if(line.entry, [](auto e) { return e != 0; });
    };
    IndexLine& line = full(first) <= full(second) ? first : second;
    const auto at = std::ranges::find(line.entry, std::uint64_t{0});
    return at == std::end(line.entry) ? nullptr : at;
}

// Flush epochs since the last request; idle ones are older than all others.
std::uint32_t Table::Writing::age_of(std::uint32_t number) noexcept {
    const std::uint8_t touched = shared::load(record(number).touched);
    return touched == 0 ? 255 : (shared::load(zone_.epoch) + 254 - touched) % 254;
}

std::uint32_t Table::Writing::victim_in(const IndexLine& first, const IndexLine& second) noexcept {
    std::uint32_t victim = k_none;
    for (const IndexLine* line : {&first, &second}) {
        for (const std::uint64_t entry : line->entry) {
            const auto number = static_cast<std::uint32_t>(entry >> 32) - 1;
            if (number != k_none && (victim == k_none || age_of(number) > age_of(victim))) {
                victim = number;
            }
        }
    }
    return victim;
}

// CLOCK: the hand takes what is free or was idle since its last turn, and marks as idle what it passes. After some
// candidates the oldest of them goes, so that a writer never holds the lock for a whole turn.
std::uint32_t Table::Writing::free_unit(std::uint32_t keep) noexcept {
    std::uint32_t oldest = k_none;
    std::uint32_t oldest_age = 0;
    std::uint32_t candidates = 0;
    std::uint32_t hand = shared::load(zone_.clock_hand);
    for (std::uint32_t step = 0; step < table_.unit_count_ && candidates < k_candidates; step++) {
        const std::uint32_t number = hand;
        hand = hand + 1 < table_.unit_count_ ? hand + 1 : 0;
        shared::store(zone_.clock_hand, hand);
        if (shared::load(record(number).kind) == k_unit_free) {
            return number;
        }
        if (!is_record(number) || number == keep) {
            continue;
        }
        candidates++;
        const std::uint32_t age = age_of(number);
        if (oldest == k_none || age > oldest_age) {
            oldest = number;
            oldest_age = age;
        }
        if (shared::load(record(number).touched) == 0) {
            break;
        }
        shared::store(record(number).touched, 0);
    }
    if (oldest != k_none) {
        evict(oldest);
    }
    return oldest;
}

// Both lines of a new account are full: an account whose other line has an empty entry moves there. In between it has
// two entries and is the one to be wiped.
bool Table::Writing::make_place(IndexLine& first, IndexLine& second) noexcept {
    for (IndexLine* line : {&first, &second}) {
        for (std::uint64_t& entry : line->entry) {
            const auto number = static_cast<std::uint32_t>(entry >> 32) - 1;
            const std::uint64_t key1 = record(number).key1;
            IndexLine& one = table_.index_[first_line(key1, table_.line_count_)];
            IndexLine& other = table_.index_[second_line(key1, table_.line_count_)];
            if (std::uint64_t* place = place_in(one, other); place != nullptr) {
                enter(number, key1);
                set(*place, entry);
                set(entry, 0);
                leave();
                return true;
            }
        }
    }
    return false;
}

std::uint32_t Table::Writing::insert(AccountKey key, std::uint32_t valid_gen) noexcept {
    IndexLine& first = table_.index_[first_line(key.hi, table_.line_count_)];
    IndexLine& second = table_.index_[second_line(key.hi, table_.line_count_)];
    std::uint32_t number = k_none;
    if (place_in(first, second) == nullptr && !make_place(first, second)) {
        number = victim_in(first, second);
        evict(number);
    } else {
        number = free_unit(k_none);
    }
    std::uint64_t* place = place_in(first, second);
    if (number == k_none || place == nullptr) {
        return k_none;
    }
    Record& fresh = record(number);
    enter(number, key.hi);
    const std::uint32_t seq = (shared::load(fresh.seq) | 1) + 2;
    set(fresh.seq, seq);
    set(fresh.key0, table_detail::key0_of(key));
    set(fresh.key1, key.hi);
    set(fresh.account_id, 0);
    set(fresh.stamp, 0);
    set(fresh.base, 0);
    set(fresh.link, 0);
    set(fresh.mark, valid_gen & k_valid_gen_mask);
    set(fresh.touched, 0);
    set(fresh.tokens, token::make(token::k_first_mark | generation(seq), 0, 0));
    set(fresh.kind, 1);
    set(*place, std::uint64_t{number + 1} << 32 | table_detail::tag_of(key));
    leave();
    return number;
}

void Table::Writing::unlink_entries(std::uint32_t number, std::uint32_t line) noexcept {
    for (std::uint64_t& entry : table_.index_[line].entry) {
        if (entry >> 32 == number + 1) {
            set(entry, 0);
        }
    }
}

void Table::Writing::evict(std::uint32_t number) noexcept {
    Record& gone = record(number);
    enter(number, gone.key1);
    set(gone.seq, shared::load(gone.seq) | 1);
    unlink_entries(number, shared::load(zone_.cs_line[0]));
    unlink_entries(number, shared::load(zone_.cs_line[1]));
    each_slot(number, [&](const Slot& slot) { take_out(number, slot, After::retire); });
    shared::exchange(gone.tokens, 0);
    free_chain(number);
    set(gone.mark, 0);
    set(gone.kind, k_unit_free);
    leave();
    table_.count(Counter::evictions);
}

void Table::Writing::free_chain(std::uint32_t number) noexcept {
    Record& owner = record(number);
    for (std::uint32_t hop = 0; hop < k_longest_chain; hop++) {
        const std::uint32_t link = shared::load(owner.link);
        if (link == 0) {
            return;
        }
        set(zone_.cs_unit, link);
        set(owner.link, shared::load(table_.units_[link - 1].quotas.link));
        free_extension(link - 1);
        set(zone_.cs_unit, 0);
    }
}

void Table::Writing::free_extension(std::uint32_t number) noexcept {
    QuotaExtension& gone = table_.units_[number].quotas;
    for (std::uint64_t& word : gone.words) {
        shared::exchange(word, 0);
    }
    set(gone.link, 0);
    set(record(number).mark, 0);
    set(gone.seq, (shared::load(gone.seq) | 1) + 2);
    set(gone.kind, k_unit_free);
}

// In front of the chain, by one store; within an owner's stay chains only grow, which lock-free readers rely on.
bool Table::Writing::add_extension(std::uint32_t number, std::uint8_t kind) noexcept {
    const std::uint32_t unit = free_unit(number);
    if (unit == k_none) {
        return false;
    }
    enter(number, record(number).key1, unit);
    const std::uint32_t seq = (shared::load(record(unit).seq) | 1) + 2;
    if (kind == k_unit_quotas) {
        QuotaExtension& more = table_.units_[unit].quotas;
        set(more.seq, seq);
        for (std::size_t i = 0; i < 3; i++) {
            set(more.limit_no[i], k_no_limit);
            set(more.base[i], 0);
            set(more.words[i], token::make(token::k_more_mark | generation(seq), 0, 0));
        }
    } else if (kind == k_unit_overrides) {
        OverrideExtension& more = table_.units_[unit].overrides;
        set(more.seq, seq);
        pack(more, 0, AccountFacts{}, {});
    } else {
        ZoneExtension& more = table_.units_[unit].zone;
        set(more.seq, seq);
        pack(more, ZoneOffsets{});
    }
    set(record(unit).link, shared::load(record(number).link));
    set(record(unit).kind, kind);
    set(record(number).link, unit + 1);
    set(zone_.cs_unit, 0);
    leave();
    return true;
}

bool Table::Writing::provide_units(std::uint32_t number, std::uint8_t kind, std::size_t wanted) noexcept {
    std::size_t have = 0;
    for (std::uint32_t link = shared::load(record(number).link); link != 0;
         link = shared::load(table_.units_[link - 1].record.link)) {
        have += shared::load(table_.units_[link - 1].record.kind) == kind;
    }
    for (; have < wanted; have++) {
        if (!add_extension(number, kind)) {
            return false;
        }
    }
    return true;
}

// Between enter() and leave(), with room for the amounts. Readers miss the record meanwhile.
void Table::Writing::write_facts(std::uint32_t number, const AccountFacts& facts, std::uint32_t valid_gen,
                                 std::span<const LimitAmount> amounts, const ZoneOffsets& zone) noexcept {
    Record& to = record(number);
    const std::uint32_t seq = shared::load(to.seq) | 1;
    set(to.seq, seq);
    set(to.account_id, (facts.id & k_account_id_mask) | std::uint64_t{facts.calendar.bits} << k_account_id_bits);
    set(to.stamp, facts.stamp);
    set(to.until, facts.until);
    set(to.mark, (shared::load(to.mark) & ~k_valid_gen_mask) | (valid_gen & k_valid_gen_mask));
    set(to.plan, facts.plan);
    set(to.kind, static_cast<std::uint8_t>(static_cast<std::uint8_t>(facts.status) + 1));
    set(to.flags, static_cast<std::uint8_t>((facts.flags & 63) | static_cast<unsigned>(facts.until_kind) << 6));
    std::size_t at = 0;
    for (std::uint32_t link = shared::load(to.link); link != 0;
         link = shared::load(table_.units_[link - 1].record.link)) {
        if (shared::load(table_.units_[link - 1].record.kind) == k_unit_overrides) {
            pack(table_.units_[link - 1].overrides, at++, facts, amounts);
            table_.lock_->stored();
        } else if (shared::load(table_.units_[link - 1].record.kind) == k_unit_zone) {
            pack(table_.units_[link - 1].zone, zone);
            table_.lock_->stored();
        }
    }
    set(to.seq, seq + 1);
}

} // namespace billing
