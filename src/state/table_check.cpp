// Looking at a whole zone: what it is used for, and whether it is consistent. For metrics, tests and the debug page.
#include "state/table_writing.hpp"

namespace billing {

ZoneUse Table::use() const noexcept {
    ZoneUse use{unit_count_, 0, 0, 0};
    add_use(0, unit_count_, use);
    return use;
}

void Table::add_use(std::uint32_t from, std::uint32_t count, ZoneUse& use) const noexcept {
    const std::uint32_t end = count < unit_count_ - from ? from + count : unit_count_;
    for (std::uint32_t number = from; number < end; number++) {
        const Unit& unit = units_[number];
        const std::uint8_t kind = shared::load(unit.record.kind);
        if (kind == k_unit_quotas) {
            for (std::size_t i = 0; i < 3; i++) {
                const bool tokens = shared::load(unit.quotas.limit_no[i]) < k_rate_slots;
                use.held += tokens ? token::held_in(shared::load(unit.quotas.words[i])) : 0;
            }
        } else if (kind != k_unit_free && kind < k_unit_quotas) {
            use.held += token::held_in(shared::load(unit.record.tokens));
        }
        use.records += kind != k_unit_free && kind < k_unit_quotas;
        use.extensions += kind >= k_unit_quotas;
    }
}

std::string Table::check() noexcept {
    Writing writing(*this);
    std::vector<std::uint8_t> reached(unit_count_);
    const auto say = [](const char* what, std::uint32_t number) { return what + (" " + std::to_string(number)); };
    for (std::uint32_t line = 0; line < line_count_; line++) {
        for (const std::uint64_t entry : index_[line].entry) {
            const auto number = static_cast<std::uint32_t>(entry >> 32) - 1;
            if (number == k_none) {
                continue;
            }
            if (number >= unit_count_ || !writing.is_record(number)) {
                return say("an index entry for what is no record:", number);
            }
            const std::uint64_t key1 = units_[number].record.key1;
            if (table_detail::first_line(key1, line_count_) != line &&
                table_detail::second_line(key1, line_count_) != line) {
                return say("an index entry in the wrong line:", number);
            }
            if (reached[number]++ != 0) {
                return say("two index entries for one record:", number);
            }
        }
    }
    for (std::uint32_t number = 0; number < unit_count_; number++) {
        if (!writing.is_record(number)) {
            continue;
        }
        const Record& record = units_[number].record;
        if (reached[number] != 1) {
            return say("a record that the index does not know:", number);
        }
        if ((record.seq & 1) != (record.stamp == 0)) {
            return say("a record that readers wait for:", number);
        }
        if (token::owner_of(record.tokens) >> 10 != token::k_first_mark >> 10) {
            return say("a token word without its mark:", number);
        }
        std::uint32_t hops = 0;
        for (std::uint32_t link = record.link; link != 0; link = units_[link - 1].record.link) {
            if (link > unit_count_ || units_[link - 1].record.kind < k_unit_quotas || reached[link - 1]++ != 0 ||
                ++hops > k_longest_chain) {
                return say("a broken chain of extensions:", number);
            }
        }
    }
    for (std::uint32_t number = 0; number < unit_count_; number++) {
        if (units_[number].record.kind >= k_unit_quotas && reached[number] == 0) {
            return say("an extension that nobody has:", number);
        }
    }
    return {};
}

} // namespace billing
