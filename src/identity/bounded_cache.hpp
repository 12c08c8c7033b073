// What a worker remembers by a keyed hash: a fixed number of places, four for each hash, the one that was not used for
// longest gives way. A find is one hash and four comparisons; nobody without the key can aim at a place. One thread.
#pragma once

#include "state/siphash.hpp"

#include <openssl/rand.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <utility>
#include <vector>

namespace billing {

// A key of this process's own.
inline SipKey random_sip_key() noexcept {
    std::array<std::uint64_t, 2> key{};
    if (RAND_bytes(reinterpret_cast<unsigned char*>(key.data()), sizeof key) != 1) {
        std::abort(); // what is remembered under a known key could be aimed at
    }
    return SipKey::of(key[0], key[1]);
}

template <class Value>
class BoundedCache {
public:
    // `sets`: a power of two; four places each.
    explicit BoundedCache(std::size_t sets) : places_(sets * k_ways), sets_(sets), key_(random_sip_key()) {}

    Hash128 hash(std::string_view text) const noexcept { return siphash128(key_, text.data(), text.size()); }

    // Null: not remembered. Good until the next put().
    Value* find(Hash128 hash) noexcept {
        for (std::size_t way = 0; way < k_ways; ++way) {
            Place& place = places_[first(hash) + way];
            if (place.used != 0 && place.hash.lo == hash.lo && place.hash.hi == hash.hi) {
                place.used = ++clock_;
                return &place.value;
            }
        }
        return nullptr;
    }

    void put(Hash128 hash, Value value) {
        Place* chosen = &places_[first(hash)];
        for (std::size_t way = 0; way < k_ways; ++way) {
            Place& place = places_[first(hash) + way];
            if (place.used != 0 && place.hash.lo == hash.lo && place.hash.hi == hash.hi) {
                chosen = &place;
                break;
            }
            if (place.used < chosen->used) {
                chosen = &place;
            }
        }
        *chosen = {hash, ++clock_, std::move(value)};
    }

    void forget(Hash128 hash) noexcept {
        for (std::size_t way = 0; way < k_ways; ++way) {
            Place& place = places_[first(hash) + way];
            if (place.hash.lo == hash.lo && place.hash.hi == hash.hi) {
                place = Place{};
            }
        }
    }

private:
    static constexpr std::size_t k_ways = 4;

    struct Place {
        Hash128 hash{};
        std::uint64_t used = 0; // 0: empty
        Value value{};
    };

    std::size_t first(Hash128 hash) const noexcept { return (hash.lo & (sets_ - 1)) * k_ways; }

    std::vector<Place> places_;
    std::size_t sets_;
    SipKey key_;
    std::uint64_t clock_ = 0;
};

} // namespace billing
