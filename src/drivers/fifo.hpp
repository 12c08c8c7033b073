// A bounded ring whose entries have running numbers: what was sent, in order, so that the answers find their askers and
// an asker who goes away finds its entry. Memory is taken once.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace billing {

template <class Entry>
class Fifo {
public:
    explicit Fifo(std::size_t capacity) : ring_(std::bit_ceil(capacity)) {}

    bool empty() const noexcept { return head_ == tail_; }
    bool full() const noexcept { return size() == ring_.size(); }
    std::size_t size() const noexcept { return static_cast<std::size_t>(tail_ - head_); }

    // Only if not full. The entry's number.
    std::uint64_t push(const Entry& entry) noexcept {
        at(tail_) = entry;
        return tail_++;
    }
    // Only if not empty.
    Entry& front() noexcept { return at(head_); }
    void pop() noexcept { ++head_; }

    // Numbers in use: first() up to but not including last().
    std::uint64_t first() const noexcept { return head_; }
    std::uint64_t last() const noexcept { return tail_; }
    Entry& at(std::uint64_t number) noexcept { return ring_[static_cast<std::size_t>(number) & (ring_.size() - 1)]; }

private:
    std::vector<Entry> ring_;
    std::uint64_t head_ = 0;
    std::uint64_t tail_ = 0;
};

} // namespace billing
