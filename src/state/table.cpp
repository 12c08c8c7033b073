// The zone's making, the accounts' facts, and what the host shares beside accounts: catalog, position in the change
// stream, watermark, lease, counters. In every worker; create() and attach() in the master.
#include "state/table.hpp"

#include "state/table_writing.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <new>
#include <sys/random.h>

namespace billing {

namespace {

constexpr std::uint32_t k_pid_bits = 22;
constexpr std::uint64_t k_pid_mask = (1u << k_pid_bits) - 1;

// Under the zone's lock: the side that nobody reads is filled, then one store makes it the valid one.
template <std::size_t Bytes>
void write_text(SharedText<Bytes>& to, std::uint64_t stamp, std::string_view text) noexcept {
    const std::uint64_t version = shared::load(to.version) + 1;
    auto& side = to.side[version & 1];
    shared::store(side.stamp, stamp);
    shared::store(side.length, text.size());
    for (std::size_t at = 0; at < text.size(); at += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, text.data() + at, std::min<std::size_t>(8, text.size() - at));
        shared::store(side.words[at / 8], word);
    }
    shared::store(to.version, version);
}

// The side of a version is written again only after the next version is out: if none is, what was read is whole.
template <std::size_t Bytes>
bool read_text(const SharedText<Bytes>& from, std::string& text, std::uint64_t& stamp) noexcept {
    for (int attempt = 0; attempt < 8; attempt++) {
        const std::uint64_t version = shared::load(from.version);
        if (version == 0) {
            return false;
        }
        const auto& side = from.side[version & 1];
        stamp = shared::load(side.stamp);
        const std::size_t length = std::min<std::size_t>(shared::load(side.length), Bytes);
        try {
            text.resize(length);
        } catch (const std::bad_alloc&) {
            return false;
        }
        for (std::size_t at = 0; at < length; at += 8) {
            const std::uint64_t word = shared::load(side.words[at / 8]);
            std::memcpy(text.data() + at, &word, std::min<std::size_t>(8, length - at));
        }
        if (shared::load(from.version) == version) {
            return true;
        }
    }
    return false;
}

ZoneOffsets unpack(const ZoneExtension& unit) noexcept {
    const std::uint64_t offsets = shared::load(unit.offsets);
    const auto offset = [offsets](int at) {
        return static_cast<std::int32_t>(offsets >> at & 0xfffff) - k_offset_bias;
    };
    return {static_cast<std::int64_t>(shared::load(unit.changed_at)),
            static_cast<std::int64_t>(shared::load(unit.change_at)),
            shared::load(unit.until),
            offset(0),
            offset(20),
            offset(40)};
}

bool is_dead(std::uint32_t pid) noexcept { return kill(static_cast<pid_t>(pid), 0) == -1 && errno == ESRCH; }

std::string in_kib(std::size_t bytes) { return std::to_string((bytes + 1023) / 1024) + "k"; }

} // namespace

// --- making

Table::Table(void* block, const Geometry& geometry, ZoneLock& lock) noexcept
    : zone_(static_cast<ZoneHeader*>(block)), lock_(&lock), unit_count_(geometry.units), line_count_(geometry.lines),
      dirty_words_(geometry.dirty_words), stripe_(0) {
    auto* bytes = static_cast<std::byte*>(block);
    index_ = reinterpret_cast<IndexLine*>(bytes + geometry.index_at);
    dirty_[0] = reinterpret_cast<std::uint64_t*>(bytes + geometry.dirty_at);
    dirty_[1] = dirty_[0] + dirty_words_;
    units_ = reinterpret_cast<Unit*>(bytes + geometry.units_at);
}

Result<Table> Table::create(void* block, std::size_t bytes, ZoneLock& lock) {
    const Geometry geometry = Geometry::within(bytes);
    if (geometry.units == 0) {
        return Error{"the billing zone has " + in_kib(bytes) + ", too little: give it at least " +
                     in_kib(Geometry::of(k_min_units).bytes + std::size_t{64} * 1024) + ", 80 bytes for each account"};
    }
    if (reinterpret_cast<std::uintptr_t>(block) % 64 != 0) {
        return Error{"the billing zone's block of memory is not aligned to 64 bytes"};
    }
    std::uint8_t secrets[32];
    if (getrandom(secrets, sizeof secrets, 0) != static_cast<ssize_t>(sizeof secrets)) {
        return Error{"the billing zone needs 32 random bytes and the system gave none"};
    }
    std::memset(block, 0, geometry.bytes);
    Table table(block, geometry, lock);
    ZoneHeader& zone = *table.zone_;
    zone.layout = k_zone_layout;
    zone.units = geometry.units;
    zone.lines = geometry.lines;
    zone.header_bytes = sizeof(ZoneHeader);
    zone.bytes = geometry.bytes;
    std::uint64_t key[2];
    std::memcpy(key, secrets, 16);
    zone.hash_key = SipKey::of(key[0], key[1]);
    std::memcpy(zone.instance_id, secrets + 16, 16);
    zone.instance_id[6] = static_cast<std::uint8_t>((zone.instance_id[6] & 0x0f) | 0x40); // uuid, version 4
    zone.instance_id[8] = static_cast<std::uint8_t>((zone.instance_id[8] & 0x3f) | 0x80);
    zone.epoch = 1;
    shared::store(zone.magic, k_zone_magic);
    return table;
}

Result<Table> Table::attach(void* block, std::size_t bytes, ZoneLock& lock) {
    const auto& zone = *static_cast<const ZoneHeader*>(block);
    if (bytes < sizeof(ZoneHeader) || shared::load(zone.magic) != k_zone_magic) {
        return Error{"the shared memory is not a billing zone"};
    }
    const Geometry geometry = Geometry::of(zone.units);
    if (zone.layout != k_zone_layout || zone.header_bytes != sizeof(ZoneHeader) || zone.lines != geometry.lines ||
        zone.bytes != geometry.bytes || zone.bytes > bytes) {
        return Error{
            "the billing zone was laid out by another version of the module: restart nginx, a reload cannot take "
            "it over"};
    }
    return Table(block, geometry, lock);
}

// --- facts

void Table::read_extensions(std::uint32_t link, AccountFacts& facts) const noexcept {
    std::uint32_t zone_until = 0;
    bool more_overrides = true; // features and the moment are in the first unit
    for (std::uint32_t hop = 0; link != 0 && hop < k_longest_chain; hop++) {
        const OverrideExtension& unit = units_[link - 1].overrides;
        const std::uint8_t kind = shared::load(unit.kind);
        if (kind == k_unit_zone && facts.calendar.zoned()) {
            zone_until = shared::load(units_[link - 1].zone.until);
        } else if (kind == k_unit_overrides && more_overrides) {
            const std::uint8_t limit0 = shared::load(unit.limit0);
            facts.on = {{shared::load(unit.on_low), shared::load(unit.on_high)}};
            facts.off.word[0] = shared::load(unit.off_low) | std::uint64_t{limit0 & 0xc0u} << 56;
            facts.off.word[1] = std::uint64_t{shared::load(unit.off_high_high)} << 32 | shared::load(unit.off_high_low);
            facts.overrides_until = shared::load(unit.until);
            facts.has_overrides = (facts.on.word[0] | facts.on.word[1] | facts.off.word[0] | facts.off.word[1]) != 0 ||
                                  facts.overrides_until != 0 || shared::load(unit.limit1) >> 6 != 0;
            more_overrides = false;
        }
        if (!more_overrides && (!facts.calendar.zoned() || zone_until != 0)) {
            break;
        }
        link = shared::load(unit.link);
    }
    if (zone_until != 0 && (facts.overrides_until == 0 || zone_until < facts.overrides_until)) {
        facts.overrides_until = zone_until;
    }
}

// Looks through a record's extensions until `see` has found what it wants; asked anew where a writer was about.
template <class See>
bool Table::find_extension(RecordRef ref, See see) const noexcept {
    const Record& record = units_[ref.record].record;
    for (int attempt = 0; attempt < 4; attempt++) {
        const std::uint32_t seq = shared::load(record.seq);
        bool found = false;
        std::uint32_t link = shared::load(record.link);
        for (std::uint32_t hop = 0; link != 0 && !found && hop < k_longest_chain; hop++) {
            const Unit& unit = units_[link - 1];
            found = see(unit);
            link = shared::load(unit.record.link);
        }
        if (!is_owner(ref)) {
            return false;
        }
        if ((seq & 1) == 0 && shared::load(record.seq) == seq) {
            return found;
        }
    }
    return false;
}

bool Table::zone_of(RecordRef ref, ZoneOffsets& zone) const noexcept {
    return find_extension(ref, [&zone](const Unit& unit) {
        const bool is_zone = shared::load(unit.zone.kind) == k_unit_zone;
        if (is_zone) {
            zone = unpack(unit.zone);
        }
        return is_zone;
    });
}

bool Table::limit_amount(RecordRef ref, std::uint8_t limit_no, std::uint64_t& amount) const noexcept {
    return find_extension(ref, [limit_no, &amount](const Unit& any) {
        const OverrideExtension& unit = any.overrides;
        const std::uint8_t limits[2] = {shared::load(unit.limit0), shared::load(unit.limit1)};
        const unsigned used = shared::load(unit.kind) == k_unit_overrides ? limits[1] >> 6 : 0;
        for (unsigned i = 0; i < used && i < 2; i++) {
            if ((limits[i] & 63) == limit_no) {
                const std::uint64_t kept = shared::load(unit.amount[i]);
                amount = kept == k_unlimited >> 2 ? k_unlimited : kept;
                return true;
            }
        }
        return false;
    });
}

Put Table::put(AccountKey key, const AccountFacts& facts, std::uint32_t valid_gen, std::span<const LimitAmount> amounts,
               const ZoneOffsets& zone) noexcept {
    Writing writing(*this);
    UnknownEntry& unknown = zone_->unknown[key.lo % k_unknown_entries];
    if (shared::load(unknown.hi) == key.hi) {
        shared::store(unknown.until, 0);
    }
    std::uint32_t number = writing.look_up(key);
    if (number == k_none) {
        number = writing.insert(key, valid_gen);
        if (number == k_none) {
            return Put::no_room;
        }
    }
    Record& record = writing.record(number);
    const std::uint32_t now = shared::load(zone_->valid_gen);
    const bool was_current = ((shared::load(record.mark) ^ now) & k_valid_gen_mask) == 0;
    const bool is_current = ((valid_gen ^ now) & k_valid_gen_mask) == 0;
    const std::uint64_t stamp = shared::load(record.stamp); // 0: inserted just now
    if (stamp > facts.stamp) {
        return Put::kept;
    }
    AccountFacts old{};
    old.calendar.bits = static_cast<std::uint32_t>(shared::load(record.account_id) >> k_account_id_bits);
    read_extensions(shared::load(record.link), old);
    const bool override_ended = stamp == facts.stamp && old.overrides_until != facts.overrides_until;
    if (stamp == facts.stamp && (was_current || !is_current) && !override_ended) {
        return Put::kept;
    }
    const std::size_t wanted = facts.has_overrides ? std::max<std::size_t>(1, (amounts.size() + 1) / 2) : 0;
    if (!writing.provide_units(number, k_unit_overrides, wanted) ||
        !writing.provide_units(number, k_unit_zone, facts.calendar.zoned() ? 1 : 0)) {
        writing.evict(number);
        return Put::no_room;
    }
    writing.enter(number, key.hi);
    if (stamp != 0 && (stamp < facts.stamp || override_ended)) { // tokens may be more than the present limit gives
        writing.take_out_all(number);
    }
    writing.write_facts(number, facts, was_current ? now : valid_gen, facts.has_overrides ? amounts : amounts.first(0),
                        zone);
    writing.leave();
    return stamp == 0 ? Put::inserted : stamp < facts.stamp ? Put::updated : Put::revalidated;
}

// No lock: two writers in one entry leave at worst an entry that matches nobody.
void Table::remember_unknown(AccountKey key, std::uint64_t until_mono_ms) noexcept {
    UnknownEntry& entry = zone_->unknown[key.lo % k_unknown_entries];
    count(Counter::unknown);
    shared::store(entry.until, 0);
    shared::store(entry.hi, key.hi);
    shared::store(entry.lo, key.lo);
    shared::store(entry.until, until_mono_ms);
}

bool Table::is_unknown(AccountKey key, std::uint64_t now_mono_ms) const noexcept {
    const UnknownEntry& entry = zone_->unknown[key.lo % k_unknown_entries];
    return shared::load(entry.until) > now_mono_ms && shared::load(entry.hi) == key.hi &&
           shared::load(entry.lo) == key.lo;
}

// --- the host's

bool Table::put_catalog(std::uint64_t stamp, std::string_view document) noexcept {
    Writing writing(*this);
    const std::uint64_t held = catalog_stamp();
    if (document.size() > k_catalog_bytes || stamp <= held) {
        return false;
    }
    write_text(zone_->catalog, stamp, document);
    if (held != 0 && epoch_of(stamp) != epoch_of(held)) {
        invalidate_all();
    }
    return true;
}

bool Table::read_catalog(std::string& document, std::uint64_t& stamp) const noexcept {
    return read_text(zone_->catalog, document, stamp);
}

bool Table::put_position(std::string_view position) noexcept {
    Writing writing(*this);
    if (position.size() > k_position_bytes) {
        return false;
    }
    write_text(zone_->position, 0, position);
    return true;
}

std::string Table::position() const noexcept {
    std::string text;
    std::uint64_t stamp = 0;
    return read_text(zone_->position, text, stamp) ? text : std::string{};
}

// In this order, and read in the other: a torn pair looks older than it is, never fresher.
void Table::put_watermark(std::uint64_t watermark, std::uint64_t now_mono_ms) noexcept {
    shared::store(zone_->watermark, watermark);
    shared::store(zone_->watermark_arrival, now_mono_ms);
}

void Table::join(std::uint32_t pid) noexcept {
    for (auto& place : zone_->workers) {
        std::uint32_t there = shared::load(place);
        if ((there == 0 || is_dead(there)) && shared::swap(place, there, pid)) {
            tell_state(pid, {});
            return;
        }
    }
}

bool Table::leave(std::uint32_t pid) noexcept {
    for (auto& place : zone_->workers) {
        std::uint32_t mine = pid;
        shared::swap(place, mine, 0);
    }
    return std::all_of(std::begin(zone_->workers), std::end(zone_->workers), [](const std::uint32_t& place) {
        const std::uint32_t there = shared::load(place);
        return there == 0 || is_dead(there);
    });
}

void Table::tell_state(std::uint32_t pid, WorkerState state) noexcept {
    for (std::size_t place = 0; place < k_attached_workers; ++place) {
        if (shared::load(zone_->workers[place]) == pid) {
            shared::store(zone_->states[place], std::bit_cast<std::uint64_t>(state));
            return;
        }
    }
}

std::vector<WorkerState> Table::states() const {
    std::vector<WorkerState> states;
    for (std::size_t place = 0; place < k_attached_workers; ++place) {
        const std::uint32_t pid = shared::load(zone_->workers[place]);
        const auto state = std::bit_cast<WorkerState>(shared::load(zone_->states[place]));
        if (pid != 0 && state.told && !is_dead(pid)) {
            states.push_back(state);
        }
    }
    return states;
}

bool Table::hold_lease(std::uint32_t pid, std::uint64_t now_mono_ms, std::uint64_t ttl_ms) noexcept {
    std::uint64_t lease = shared::load(zone_->lease);
    const auto holder = static_cast<std::uint32_t>(lease & k_pid_mask);
    if (holder != 0 && holder != pid && lease >> k_pid_bits > now_mono_ms && !is_dead(holder)) {
        return false;
    }
    return shared::swap(zone_->lease, lease, (now_mono_ms + ttl_ms) << k_pid_bits | (pid & k_pid_mask));
}

void Table::release_lease(std::uint32_t pid) noexcept {
    std::uint64_t lease = shared::load(zone_->lease);
    if ((lease & k_pid_mask) == pid) {
        shared::swap(zone_->lease, lease, 0);
    }
}

std::uint64_t Table::counted(Counter counter) const noexcept {
    std::uint64_t sum = 0;
    for (const auto& stripe : zone_->counters) {
        sum += shared::load(stripe[static_cast<std::size_t>(counter)]);
    }
    return sum;
}

} // namespace billing
