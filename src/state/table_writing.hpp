// A writer's critical section over the zone, and the steps it is made of. Internal to state/table*.cpp.
//
// Every change to a record happens between enter() and leave(): the zone then names the record, the index lines that
// may mention it and an extension in transit. A writer that dies leaves the name behind, and the next one wipes the
// record. So the rules are: name first, store after; an index entry, a link and a row count change by one store each;
// usage is added to the batch before the record forgets it, tokens leave the record before they are added.
#pragma once

#include "state/numbered_batch.hpp"
#include "state/table.hpp"

#include <span>

namespace billing {

inline constexpr std::uint32_t k_none = 0xffffffff;
inline constexpr std::uint32_t k_longest_chain = 64; // 21 of quotas, 32 of overrides

class Table::Writing {
public:
    explicit Writing(Table& table) noexcept;
    ~Writing() { table_.lock_->unlock(); }
    Writing(const Writing&) = delete;
    Writing& operator=(const Writing&) = delete;

    // Where a quota's tokens are.
    struct Slot {
        std::uint64_t* word = nullptr;
        std::uint32_t* base = nullptr;
        std::uint32_t* outside = nullptr;
        std::uint8_t limit_no = 0;
    };
    // Of a word whose tokens are taken out: it stays in use, the same even where the batch has no room, or it ends.
    enum class After { keep, drop, retire };

    // --- records (table_writing.cpp) ---
    Record& record(std::uint32_t number) noexcept { return table_.units_[number].record; }
    bool is_record(std::uint32_t number) const noexcept;
    std::uint32_t look_up(AccountKey key) noexcept;                         // k_none: not here
    std::uint32_t insert(AccountKey key, std::uint32_t valid_gen) noexcept; // not readable before facts are written
    void evict(std::uint32_t number) noexcept;
    void write_facts(std::uint32_t number, const AccountFacts& facts, std::uint32_t valid_gen,
                     std::span<const LimitAmount> amounts, const ZoneOffsets& zone) noexcept;
    bool provide_units(std::uint32_t number, std::uint8_t kind, std::size_t wanted) noexcept;
    std::uint64_t account_id(std::uint32_t number) noexcept {
        return shared::load(record(number).account_id) & k_account_id_mask;
    }

    // --- tokens (table_tokens.cpp) ---
    bool slot_for(std::uint32_t number, std::uint8_t limit_no, Slot& slot) noexcept; // made where missing
    bool extension_slot(std::uint32_t number, std::uint8_t limit_no, Slot& slot) noexcept;
    bool turn_to(std::uint32_t number, const Slot& slot, std::int64_t period) noexcept;
    bool take_out(std::uint32_t number, const Slot& slot, After after) noexcept;
    bool take_out_all(std::uint32_t number) noexcept;
    bool add_tokens(std::uint32_t number, const Slot& slot, std::uint32_t granted, std::uint32_t spent_now) noexcept;
    bool report(std::uint32_t number) noexcept;
    bool report_dirty(std::uint32_t number, std::uint64_t& dirty) noexcept;
    bool has_something(std::uint32_t number) noexcept;
    // Calls f(Slot) for each slot in use, of quotas.
    template <class F>
    void each_slot(std::uint32_t number, F&& f) noexcept;

    // --- the critical part of a critical section ---
    void enter(std::uint32_t number, std::uint64_t key1, std::uint32_t unit = k_none) noexcept;
    void leave() noexcept;
    template <class T>
    void set(T& word, std::type_identity_t<T> value) noexcept {
        shared::store(word, value);
        table_.lock_->stored();
    }

    UsageBatch& batch() noexcept { return batch_; }
    LateBatch& late() noexcept { return late_; }
    void forfeit(std::uint64_t tokens) noexcept { table_.count(Counter::forfeited, tokens); }

private:
    void recover() noexcept;
    void wipe(std::uint32_t number) noexcept;
    std::uint32_t free_unit(std::uint32_t keep) noexcept;
    std::uint32_t victim_in(const IndexLine& first, const IndexLine& second) noexcept;
    std::uint64_t* place_in(IndexLine& first, IndexLine& second) noexcept;
    bool make_place(IndexLine& first, IndexLine& second) noexcept;
    std::uint32_t age_of(std::uint32_t number) noexcept;
    void unlink_entries(std::uint32_t number, std::uint32_t line) noexcept;
    void free_chain(std::uint32_t number) noexcept;
    void free_extension(std::uint32_t number) noexcept;
    bool add_extension(std::uint32_t number, std::uint8_t kind) noexcept;

    std::int64_t full_period(std::uint8_t limit_no, std::uint32_t period20) const noexcept;
    void note_period(std::uint8_t limit_no, std::int64_t period) noexcept;

    Table& table_;
    ZoneHeader& zone_;
    UsageBatch batch_;
    LateBatch late_;
};

template <class F>
void Table::Writing::each_slot(std::uint32_t number, F&& f) noexcept {
    Record& first = record(number);
    const std::uint32_t mark = shared::load(first.mark);
    if ((mark & k_slot_in_use) != 0) {
        f(Slot{&first.tokens, &first.base, &first.outside, static_cast<std::uint8_t>(mark >> 26)});
    }
    std::uint32_t link = shared::load(first.link);
    for (std::uint32_t hop = 0; link != 0 && hop < k_longest_chain; hop++) {
        QuotaExtension& more = table_.units_[link - 1].quotas;
        if (shared::load(more.kind) == k_unit_quotas) {
            for (std::size_t i = 0; i < 3; i++) {
                if (const std::uint8_t limit_no = shared::load(more.limit_no[i]); limit_no < k_rate_slots) {
                    f(Slot{&more.words[i], &more.base[i], &more.outside[i], limit_no});
                }
            }
        }
        link = shared::load(more.link);
    }
}

} // namespace billing
