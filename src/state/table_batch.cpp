// Usage on its way to PostgreSQL: building, handing out and closing the batch; returning what idle accounts hold.
// Called by the worker that flushes; any other may go on where it ended.
#include "state/table_writing.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

namespace billing {

namespace {

template <class Row, std::size_t Rows>
bool copy_frozen(const Batch<Row, Rows>& batch, std::vector<Row>& rows, std::uint64_t& sequence) noexcept {
    rows.clear();
    if (!batch.is_frozen()) {
        return false;
    }
    try {
        const std::span<const Row> from = batch.frozen_rows();
        rows.assign(from.begin(), from.end());
    } catch (const std::bad_alloc&) {
        return false;
    }
    sequence = batch.last_sequence();
    return true;
}

// Of one account, quota and minute: no period is shorter.
bool are_one(const LateRow& one, const LateRow& other) noexcept {
    constexpr std::int64_t k_minute = 60;
    return one.at / k_minute == other.at / k_minute && one.creates == other.creates &&
           std::memcmp(one.account, other.account, sizeof one.account) == 0 &&
           std::memcmp(one.limit, other.limit, sizeof one.limit) == 0;
}

} // namespace

bool Table::add_usage(std::uint64_t account_id, std::uint8_t limit_no, std::int64_t period, std::int64_t spent,
                      std::int64_t returned) noexcept {
    if (spent == 0 && returned == 0) {
        return true;
    }
    Writing writing(*this);
    if (writing.batch().append({account_id, period, spent, returned, limit_no})) {
        return true;
    }
    writing.forfeit(static_cast<std::uint64_t>(std::max<std::int64_t>(0, spent + returned)));
    return false;
}

// Takes the dirty marks of the epoch that ends here; from now on requests set the other bitmap's.
bool Table::freeze() noexcept {
    Writing writing(*this);
    if (writing.batch().is_frozen()) {
        return true;
    }
    std::uint32_t at = shared::load(zone_->flush_hand);
    if (at == 0) {
        const std::uint32_t epoch = shared::load(zone_->epoch);
        shared::exchange(zone_->epoch, epoch < 254 ? epoch + 1 : 1);
    }
    std::uint64_t* dirty = dirty_[(shared::load(zone_->epoch) & 1) ^ 1];
    for (bool room = true; at < dirty_words_ && room; at += room) {
        for (std::uint64_t bits = shared::load(dirty[at]); bits != 0 && room; bits &= bits - 1) {
            room = writing.report_dirty(at * 64 + static_cast<std::uint32_t>(std::countr_zero(bits)), dirty[at]);
        }
    }
    writing.set(zone_->flush_hand, at < dirty_words_ ? at : 0);
    return writing.batch().freeze();
}

// The mark goes first: what is spent after the words are read makes a new one. False: no room.
bool Table::Writing::report_dirty(std::uint32_t number, std::uint64_t& dirty) noexcept {
    const std::uint64_t bit = std::uint64_t{1} << (number & 63);
    if (!is_record(number)) {
        shared::clear_bits(dirty, bit);
        return true;
    }
    enter(number, record(number).key1);
    shared::clear_bits(dirty, bit);
    table_.lock_->stored();
    const bool all = report(number);
    if (!all) {
        shared::set_bits(dirty, bit);
    }
    leave();
    return all;
}

bool Table::frozen(std::vector<UsageRow>& rows, std::uint64_t& sequence) noexcept {
    Writing writing(*this);
    return copy_frozen(writing.batch(), rows, sequence);
}

bool Table::acknowledge(std::uint64_t sequence) noexcept {
    Writing writing(*this);
    return writing.batch().acknowledge(sequence);
}

bool Table::charge_late(const LateCharge& charge) noexcept {
    LateRow row{};
    std::memcpy(row.account, charge.account.data(), std::min(charge.account.size(), sizeof row.account));
    std::memcpy(row.limit, charge.limit.data(), std::min(charge.limit.size(), sizeof row.limit));
    row.at = charge.at;
    row.units = charge.units;
    row.creates = charge.creates ? 1 : 0;
    Writing writing(*this);
    const std::span<LateRow> open = writing.late().open_rows();
    const auto same = std::find_if(open.begin(), open.end(), [&row](const LateRow& one) { return are_one(one, row); });
    bool noted = true;
    if (same != open.end()) {
        writing.set(same->units, same->units + row.units);
    } else {
        noted = writing.late().append(row);
    }
    count(noted ? Counter::late_noted : Counter::late_lost, charge.units);
    return noted;
}

bool Table::freeze_late() noexcept {
    Writing writing(*this);
    return writing.late().is_frozen() || writing.late().freeze();
}

bool Table::frozen_late(std::vector<LateRow>& rows, std::uint64_t& sequence) noexcept {
    Writing writing(*this);
    return copy_frozen(writing.late(), rows, sequence);
}

bool Table::acknowledge_late(std::uint64_t sequence) noexcept {
    Writing writing(*this);
    return writing.late().acknowledge(sequence);
}

void Table::sweep(std::uint32_t units) noexcept {
    Writing writing(*this);
    std::uint32_t hand = shared::load(zone_->sweep_hand);
    for (std::uint32_t i = 0; i < std::min(units, unit_count_); i++) {
        const std::uint32_t number = hand;
        hand = hand + 1 < unit_count_ ? hand + 1 : 0;
        if (!writing.is_record(number)) {
            continue;
        }
        Record& record = writing.record(number);
        if (shared::load(record.touched) != 0) {
            shared::store(record.touched, 0);
        } else if (writing.has_something(number)) {
            writing.enter(number, record.key1);
            writing.take_out_all(number);
            writing.leave();
        }
    }
    shared::store(zone_->sweep_hand, hand);
}

bool Table::return_all() noexcept {
    Writing writing(*this);
    for (std::uint32_t number = 0; number < unit_count_; number++) {
        if (writing.is_record(number) && writing.has_something(number)) {
            writing.enter(number, writing.record(number).key1);
            const bool all = writing.take_out_all(number);
            writing.leave();
            if (!all) {
                return false;
            }
        }
    }
    return true;
}

} // namespace billing
