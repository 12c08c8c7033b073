// The problem documents of the last refusals: most are one that was said before, to another account of the same plan.
// One to a worker.
#pragma once

#include "gate/decision.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace billing {

class RecentProblems {
public:
    // What makes two documents the same: where the refusal was met, by which catalog, and all that was decided.
    struct Key {
        const void* location = nullptr;
        std::uint64_t catalog = 0; // its stamp
        int status = 0;
        Decision decision;

        bool operator==(const Key&) const = default;
    };

    // The document; `make` writes it where it is not among the last ones. Good until the next call.
    template <class Make>
    const std::string& find(const Key& key, Make make) {
        Slot& slot = slots_[place_of(key)];
        if (slot.text.empty() || slot.key != key) {
            slot.text = make();
            slot.key = key;
        }
        return slot.text;
    }

private:
    struct Slot {
        Key key;
        std::string text;
    };

    static std::size_t place_of(const Key& key) noexcept {
        const Decision& decision = key.decision;
        std::uint64_t mixed = reinterpret_cast<std::uintptr_t>(key.location) >> 4;
        mixed = mixed * 31 + static_cast<std::uint64_t>(decision.reason);
        mixed = mixed * 31 + decision.plan_no;
        mixed = mixed * 31 + decision.meter.remaining;
        mixed = mixed * 31 + decision.meter.quota;
        return mixed % k_slots;
    }

    static constexpr std::size_t k_slots = 256;
    std::array<Slot, k_slots> slots_;
};

} // namespace billing
