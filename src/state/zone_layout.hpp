// What lies in the zone, byte by byte: one block of shared memory that every process of a host may map at an address of
// its own. So no pointers, only numbers; trivially copyable structs; each word that two processes can meet on is
// accessed through shared::. Owned by Table (state/table.hpp); nobody else writes here.
#pragma once

#include "domain/account.hpp"
#include "state/siphash.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace billing {

// Accesses to words in shared memory. Loads acquire and stores release: on x86 they are plain moves, and the sequence
// words below need no fences.
namespace shared {

template <class T>
inline T load(const T& word) noexcept {
    static_assert(std::atomic_ref<T>::is_always_lock_free);
    return std::atomic_ref<T>(const_cast<T&>(word)).load(std::memory_order_acquire);
}
// In the one order that all processes agree on.
template <class T>
inline T load_ordered(const T& word) noexcept {
    return std::atomic_ref<T>(const_cast<T&>(word)).load();
}
template <class T>
inline void store(T& word, std::type_identity_t<T> value) noexcept {
    std::atomic_ref<T>(word).store(value, std::memory_order_release);
}
template <class T>
inline bool swap(T& word, T& expected, std::type_identity_t<T> desired) noexcept {
    return std::atomic_ref<T>(word).compare_exchange_strong(expected, desired);
}
template <class T>
inline T exchange(T& word, std::type_identity_t<T> value) noexcept {
    return std::atomic_ref<T>(word).exchange(value);
}
template <class T>
inline T add(T& word, std::type_identity_t<T> value) noexcept {
    return std::atomic_ref<T>(word).fetch_add(value, std::memory_order_relaxed);
}
template <class T>
inline void set_bits(T& word, std::type_identity_t<T> bits) noexcept {
    std::atomic_ref<T>(word).fetch_or(bits);
}
template <class T>
inline void clear_bits(T& word, std::type_identity_t<T> bits) noexcept {
    std::atomic_ref<T>(word).fetch_and(static_cast<T>(~bits));
}

} // namespace shared

inline constexpr std::uint64_t k_zone_magic = 0x31656e6f7a6c6962; // "bilzone1"
inline constexpr std::uint32_t k_zone_layout = 3;                 // another number = another layout: refuse to attach
inline constexpr std::uint32_t k_min_units = 1024;
inline constexpr std::uint32_t k_line_entries = 8;
inline constexpr std::size_t k_limit_numbers = 64;
inline constexpr std::size_t k_catalog_bytes = 128 * 1024;
inline constexpr std::size_t k_position_bytes = 48;
inline constexpr std::size_t k_batch_rows = 4096;
inline constexpr std::size_t k_late_rows = 256;
inline constexpr std::size_t k_unknown_entries = 4096;
inline constexpr std::size_t k_attached_workers = 512; // two generations of 256

// A token word: mark 2 bits | generation 10 | period 20 | value 32. The value's top bit clear: tokens held; set: no
// more to have until a moment of the monotonic clock, in units of 1/8 s. Mark and generation change with every owner of
// the word, so a compare-and-swap that comes late fails. Whatever else may lie at a token word's place while its unit
// serves as something different has another mark.
namespace token {

inline constexpr std::uint32_t k_first_mark = 1u << 10; // the quota slot in a record
inline constexpr std::uint32_t k_more_mark = 2u << 10;  // the slots in extensions: top bit set, unlike any id or stamp
inline constexpr std::uint32_t k_exhausted = 1u << 31;
inline constexpr std::uint32_t k_most = k_exhausted - 1;
inline constexpr std::uint32_t k_period_mask = (1u << 20) - 1;

constexpr std::uint32_t owner_of(std::uint64_t word) noexcept { return static_cast<std::uint32_t>(word >> 52); }
constexpr std::uint32_t period_of(std::uint64_t word) noexcept {
    return static_cast<std::uint32_t>(word >> 32) & k_period_mask;
}
constexpr std::uint32_t value_of(std::uint64_t word) noexcept { return static_cast<std::uint32_t>(word); }
constexpr bool is_exhausted(std::uint64_t word) noexcept { return (value_of(word) & k_exhausted) != 0; }
constexpr std::uint32_t held_in(std::uint64_t word) noexcept { return is_exhausted(word) ? 0 : value_of(word); }
// owner = mark and generation (12 bits) as owner_of() gives them.
constexpr std::uint64_t head(std::uint32_t owner, std::uint64_t period) noexcept {
    return std::uint64_t{owner} << 20 | (period & k_period_mask);
}
constexpr std::uint64_t make(std::uint32_t owner, std::uint64_t period, std::uint32_t value) noexcept {
    return head(owner, period) << 32 | value;
}
constexpr std::uint64_t with_value(std::uint64_t word, std::uint32_t value) noexcept {
    return (word & ~std::uint64_t{0xffffffff}) | value;
}

// A rate's word in an extension: mark and generation as above | microseconds of the monotonic clock at which the bucket
// will be as if nothing had been taken, 52 bits.
inline constexpr std::uint64_t k_rate_mask = (std::uint64_t{1} << 52) - 1;

} // namespace token

// What a unit of 64 bytes serves as. Records and extensions come from one pool, so that memory goes where it is needed.
enum UnitKind : std::uint8_t {
    k_unit_free = 0, // a record: status + 1
    k_unit_quotas = 0x81,
    k_unit_overrides = 0x82,
    k_unit_zone = 0x83,
};

// One account: all that a warm request with one quota needs, in one cache line.
struct alignas(64) Record {
    std::uint32_t seq;  // odd while the facts are being written, and as long as the unit is no record
    std::uint32_t key0; // 96 of the identity's 128 bits; the other 32 are the index entry's tag
    std::uint64_t key1;
    std::uint64_t account_id; // PostgreSQL's, < 2^40, and above it AccountFacts::calendar
    std::uint64_t stamp;      // < 2^63
    std::uint64_t tokens;     // token word of the account's first quota
    std::uint32_t base;       // tokens not yet accounted for: spent since the last report = base - held
    std::uint32_t outside;    // left to be issued by PostgreSQL at the last funding; k_no_bound = unlimited
    std::uint32_t until;      // unix seconds
    std::uint32_t link;       // first extension + 1
    std::uint32_t mark;       // valid_gen 25 bits | first slot in use 1 | its limit number 6
    std::uint8_t plan;
    std::uint8_t kind;    // status + 1
    std::uint8_t flags;   // AccountFacts' flags 6 bits | kind of until 2
    std::uint8_t touched; // 0 idle, else the flush epoch in which a request last marked it
};

// Three more quotas of an account. Token words lie where a record has account_id, stamp and tokens.
struct alignas(64) QuotaExtension {
    std::uint32_t seq;
    std::uint32_t base[3];
    std::uint64_t words[3];
    std::uint32_t outside[3];
    std::uint32_t link;       // next extension + 1
    std::uint8_t limit_no[3]; // k_no_limit = slot not in use; from k_rate_slots on the word is a rate's
    std::uint8_t unused[2];
    std::uint8_t kind;
    std::uint8_t unused_too;
    std::uint8_t touched; // never read; a late touch() may write it
};

// Exceptions to the plan. The words at 16, 24 and 32 keep their two top bits clear (see token).
struct alignas(64) OverrideExtension {
    std::uint32_t seq;
    std::uint32_t until; // unix seconds at which the first of them ends; 0 = never
    std::uint64_t on_low;
    std::uint64_t amount[2];
    std::uint64_t off_low; // without its two top bits: those are in limit[0]
    std::uint64_t on_high;
    std::uint32_t off_high_low;
    std::uint32_t link;
    std::uint32_t off_high_high;
    std::uint8_t limit0; // limit number 6 bits | top bits of off_low 2
    std::uint8_t kind;
    std::uint8_t limit1; // limit number 6 bits | slots of amount in use 2
    std::uint8_t touched;
};

// What a host knows of the account's time zone. The words at 16, 24 and 32 keep their two top bits clear (see token).
struct alignas(64) ZoneExtension {
    std::uint32_t seq;
    std::uint32_t until; // unix seconds at which it has to be read anew
    std::uint64_t unused;
    std::uint64_t changed_at; // unix seconds; 0 = not for long
    std::uint64_t change_at;  // 0 = not before `until`
    std::uint64_t offsets;    // three of 20 bits, seconds east + k_offset_bias: before, now, after
    std::uint32_t unused_too[3];
    std::uint32_t link;
    std::uint8_t unused_three[5];
    std::uint8_t kind;
    std::uint8_t unused_four;
    std::uint8_t touched;
};
inline constexpr std::int32_t k_offset_bias = 1 << 19;

union Unit {
    Record record;
    QuotaExtension quotas;
    OverrideExtension overrides;
    ZoneExtension zone;
};

static_assert(sizeof(Record) == 64 && sizeof(QuotaExtension) == 64 && sizeof(OverrideExtension) == 64);
static_assert(sizeof(Unit) == 64 && std::is_trivially_copyable_v<Unit>);
static_assert(offsetof(QuotaExtension, words) == offsetof(Record, account_id));
static_assert(offsetof(QuotaExtension, words) + 16 == offsetof(Record, tokens));
static_assert(offsetof(OverrideExtension, amount) == offsetof(QuotaExtension, words));
static_assert(offsetof(OverrideExtension, off_low) == offsetof(Record, tokens));
static_assert(offsetof(Record, link) == offsetof(QuotaExtension, link));
static_assert(offsetof(Record, link) == offsetof(OverrideExtension, link));
static_assert(offsetof(Record, link) == offsetof(ZoneExtension, link));
static_assert(offsetof(Record, kind) == offsetof(ZoneExtension, kind));
static_assert(offsetof(Record, touched) == offsetof(ZoneExtension, touched));
static_assert(offsetof(ZoneExtension, changed_at) == offsetof(Record, account_id));
static_assert(sizeof(ZoneExtension) == 64);
static_assert(offsetof(Record, kind) == offsetof(QuotaExtension, kind));
static_assert(offsetof(Record, kind) == offsetof(OverrideExtension, kind));
static_assert(offsetof(Record, touched) == offsetof(QuotaExtension, touched));
static_assert(offsetof(Record, touched) == offsetof(OverrideExtension, touched));

// Parts of Record::account_id.
inline constexpr int k_account_id_bits = 40;
inline constexpr std::uint64_t k_account_id_mask = (std::uint64_t{1} << k_account_id_bits) - 1;

inline constexpr std::uint32_t k_no_bound = 0xffffffff;
inline constexpr std::uint32_t k_all_beyond = 0xfffffffe;   // tokens that are held are overage
inline constexpr std::uint32_t k_most_outside = 0x7ffffffe; // together with what is held it is less than those two
inline constexpr std::uint8_t k_no_limit = 0xff;
inline constexpr std::uint8_t k_rate_slots = 64;

// Parts of Record::mark.
inline constexpr std::uint32_t k_valid_gen_mask = (1u << 25) - 1;
inline constexpr std::uint32_t k_slot_in_use = 1u << 25;
constexpr std::uint32_t first_slot_mark(std::uint8_t limit_no) noexcept {
    return k_slot_in_use | std::uint32_t{limit_no} << 26;
}

// A line of the index: entry = tag (low 32 bits) | record number + 1 (high 32 bits), 0 = empty.
struct alignas(64) IndexLine {
    std::uint64_t entry[k_line_entries];
};

// One quota's usage since the last report, as PostgreSQL's usage_flush takes it. spent may be negative (refunds).
struct UsageRow {
    std::uint64_t account_id;
    std::int64_t period; // the full number
    std::int64_t spent;
    std::int64_t returned;
    std::uint64_t limit_no;
};

// What was let through while nobody could be asked, as PostgreSQL's charge_late takes it. Texts end with their field or
// a zero byte.
struct LateRow {
    char account[k_account_id_max];
    char limit[64];  // its key
    std::int64_t at; // unix seconds
    std::int64_t units;
    std::uint64_t creates; // an account that PostgreSQL does not know is made
};

// Two buffers: one collects (open), the other may be frozen. state = sequence << 2 | frozen << 1 | number of the open
// one.
template <class Row, std::size_t Rows>
struct BatchRegion {
    std::uint64_t state;
    std::uint32_t count[2];
    Row rows[2][Rows];
};

// A text that one writes and all read: two buffers in turn. version's lowest bit names the valid one.
template <std::size_t Bytes>
struct SharedText {
    static_assert(Bytes % 8 == 0);
    std::uint64_t version; // 0 = nothing yet
    struct {
        std::uint64_t stamp;
        std::uint64_t length;
        std::uint64_t words[Bytes / 8];
    } side[2];
};

struct UnknownEntry {
    std::uint64_t hi, lo;
    std::uint64_t until; // monotonic ms, 0 = empty
};

// What is counted in the zone, summed over workers; never reset. Append only, as long as the layout is the same: a
// zone outlives the module that made it. endpoints/metrics_text names them.
enum class Counter : std::uint8_t {
    funds,     // fundings put into a slot
    unknown,   // accounts that PostgreSQL did not know
    evictions, // accounts that made room for others
    wipes,     // records lost to a worker killed while writing one
    forfeited, // tokens lost: wiped records, a full batch

    // Decisions (gate/tally). Nearly all requests are let through by what shared memory holds: those are counted once,
    // all others by what was decided and by where the facts came from.
    allowed_warm,
    allowed,
    allowed_grace,
    allowed_fallback,
    // Refusals, and behind each what `billing observe` only says.
    denied_no_account,
    observed_no_account,
    denied_invalid_token,
    observed_invalid_token,
    denied_invalid_key,
    observed_invalid_key,
    denied_invalid_account,
    observed_invalid_account,
    denied_invalid_cost,
    observed_invalid_cost,
    denied_unknown_account,
    observed_unknown_account,
    denied_write_disabled,
    observed_write_disabled,
    denied_maintenance,
    observed_maintenance,
    denied_enforced,
    observed_enforced,
    denied_inactive,
    observed_inactive,
    denied_plan,
    observed_plan,
    denied_feature,
    observed_feature,
    denied_limit,
    observed_limit,
    denied_rate,
    observed_rate,
    denied_unavailable,
    observed_unavailable,
    from_nowhere,
    from_shm,
    from_redis,
    from_postgres,
    from_stale,

    // Webhooks, as they were answered.
    webhook_received,
    webhook_duplicate,
    webhook_ignored,
    webhook_bad_signature,
    webhook_error,

    // Events, as they were processed.
    event_applied,
    event_ignored,
    event_parked,
    event_retried,
    event_dead,

    // Calls of Stripe, with all their tries.
    stripe_ok,
    stripe_refused,
    stripe_unavailable,

    // Units let through while nobody could be asked: to be charged later, or lost where there was no room to note them.
    late_noted,
    late_lost,

    denied_credits,
    observed_credits,
    // Takings of credits: taken, and what became of them: kept, given back.
    credits_taken,
    credits_committed,
    credits_given_back,

    denied_stock,
    observed_stock,
    // Places of a stock: reserved for creates, and what became of them; and deletes.
    stock_reserved,
    stock_made,
    stock_given_back,
    stock_removed,
    // Requests with an Idempotency-Key: refused for it, or let through, since one of them was charged.
    denied_invalid_idempotency_key,
    observed_invalid_idempotency_key,
    denied_key_outstanding,
    observed_key_outstanding,
    denied_key_misused,
    observed_key_misused,
    repeated,
    count_, // keep last; at most k_counters
};
constexpr Counter observed(Counter denied) noexcept { return static_cast<Counter>(static_cast<unsigned>(denied) + 1); }
inline constexpr std::size_t k_counters = 128;
inline constexpr std::size_t k_counter_stripes = 16; // by process, so that workers do not share a line

// How a worker stands with what is behind it, as it told last. One word, so that it is read as it was written.
struct WorkerState {
    bool told = false;
    bool postgres_up = false;
    bool has_redis = false;
    bool redis_up = false;
    std::uint16_t postgres_pending = 0; // queries without an answer
    std::uint16_t redis_pending = 0;
};
static_assert(sizeof(WorkerState) == sizeof(std::uint64_t) && std::has_unique_object_representations_v<WorkerState>);

struct alignas(64) ZoneHeader {
    // Fixed at creation.
    std::uint64_t magic;
    std::uint32_t layout;
    std::uint32_t units;
    std::uint32_t lines;
    std::uint32_t header_bytes;
    std::uint64_t bytes;
    SipKey hash_key;
    std::uint8_t instance_id[16];

    // Read by every request, seldom written.
    alignas(64) std::uint32_t valid_gen;
    std::uint32_t epoch; // 1..254, advances when a batch is built
    std::uint64_t watermark;
    std::uint64_t watermark_arrival;
    std::uint64_t lease; // pid 22 bits | deadline, monotonic ms, 42 bits

    // Written under the lock. in_cs != 0 where a writer died: wipe that record, free cs_unit, go on.
    alignas(64) std::uint32_t in_cs; // record + 1
    std::uint32_t cs_line[2];        // where its index entry may be
    std::uint32_t cs_unit;           // extension + 1 in transit between pool and chain
    std::uint32_t clock_hand;
    std::uint32_t sweep_hand;
    std::uint32_t flush_hand; // word of the dirty bitmap where the next batch goes on; 0 = begins anew

    std::uint64_t current_period[k_limit_numbers]; // the greatest funded, gives back the 44 bits that words leave out
    alignas(64) std::uint64_t counters[k_counter_stripes][k_counters];
    SharedText<k_position_bytes> position;
    SharedText<k_catalog_bytes> catalog;
    std::uint32_t workers[k_attached_workers]; // pids of the processes that use the zone, 0 = free
    std::uint64_t states[k_attached_workers];  // of each, a WorkerState
    UnknownEntry unknown[k_unknown_entries];
    BatchRegion<UsageRow, k_batch_rows> batch;
    BatchRegion<LateRow, k_late_rows> late;
};
static_assert(std::is_trivially_copyable_v<ZoneHeader>);
static_assert(static_cast<std::size_t>(Counter::count_) <= k_counters);

// How a block is divided: header, index, two dirty bitmaps, units; each begins at a multiple of 64.
struct Geometry {
    std::uint32_t units = 0;
    std::uint32_t lines = 0;       // two thirds full when every unit is a record
    std::uint32_t dirty_words = 0; // in each bitmap
    std::size_t index_at = 0;
    std::size_t dirty_at = 0;
    std::size_t units_at = 0;
    std::size_t bytes = 0;

    static Geometry of(std::uint32_t units) noexcept;
    // The most units that fit; units = 0 where not even k_min_units do.
    static Geometry within(std::size_t bytes) noexcept;
};

} // namespace billing
