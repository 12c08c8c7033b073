// The accounts a host knows, with the quota tokens it holds, in shared memory. Every worker has a Table of its own over
// the same zone; a request reads and spends without a lock, an allocation or a wait.
//
// Writers (put, fund, freeze, sweep ...) take the ZoneLock inside and hold it for microseconds. A worker may be killed
// anywhere: the next writer wipes the record it was writing, whose tokens are lost, never doubled.
#pragma once

#include "domain/account.hpp"
#include "domain/period.hpp"
#include "domain/result.hpp"
#include "state/zone_layout.hpp"
#include "state/zone_lock.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace billing {

// Identity of an account in this zone: a keyed hash of its text id. Worthless in another zone.
struct AccountKey {
    std::uint64_t hi;
    std::uint64_t lo;
};

struct FeatureMask {
    std::uint64_t word[2];
    bool test(std::size_t feature_no) const noexcept { return (word[feature_no >> 6] >> (feature_no & 63) & 1) != 0; }
    void set(std::size_t feature_no) noexcept { word[feature_no >> 6] |= std::uint64_t{1} << (feature_no & 63); }
};

// What AccountFacts::until ends; the first three are Lapse::Rule's.
enum class UntilKind : std::uint8_t { none, enforcement, subscription };

struct AccountFlags {
    static constexpr std::uint8_t k_maintenance_payment = 1;
    static constexpr std::uint8_t k_maintenance_operator = 2;
    static constexpr std::uint8_t k_write_disabled = 4;
    static constexpr std::uint8_t k_enforced = 8;
    static constexpr std::uint8_t k_overage_on = 16;
    static constexpr std::uint8_t k_deleted = 32;
};

// An account's own calendar, in 23 bits: when its billing months begin, and whether it has a time zone.
struct AccountCalendar {
    std::uint32_t bits;

    static constexpr AccountCalendar of(CycleAnchor anchor, bool zoned) noexcept {
        return {anchor.second | std::uint32_t{anchor.day} << 17 | std::uint32_t{zoned} << 22};
    }
    constexpr CycleAnchor anchor() const noexcept {
        return {static_cast<std::uint8_t>(bits >> 17 & 31), bits & ((1u << 17) - 1)};
    }
    constexpr bool zoned() const noexcept { return bits >> 22 != 0; }
};

// A decoded snapshot as the table keeps it. Plain data.
struct AccountFacts {
    std::uint64_t id;    // PostgreSQL's, 1..k_account_number_max
    std::uint64_t stamp; // 1..2^63-1
    // Exceptions to the plan's features: (plan & ~off) | on. All zero without overrides.
    FeatureMask on;
    FeatureMask off;
    // Unix seconds at which the first override ends, or what is known of the time zone: read the snapshot anew; 0 =
    // never.
    std::uint32_t overrides_until;
    std::uint32_t until; // unix seconds, for until_kind
    AccountCalendar calendar;
    UntilKind until_kind;
    std::uint8_t plan;
    Status status;
    std::uint8_t flags; // AccountFlags
    bool has_overrides; // of features or of limits
};

// An override of a limit.
struct LimitAmount {
    std::uint8_t limit_no;
    std::uint64_t amount; // k_unlimited = no bound
};
inline constexpr std::uint64_t k_unlimited = ~std::uint64_t{0};
// What is left to be issued of what the account has where nothing is, and its plan lets it take more.
inline constexpr std::uint64_t k_overage = k_unlimited - 1;

// A record as it was when found. Goes stale when the account leaves the table: then spend() says gone, refund() false.
// May be kept for as long as the request lives.
struct RecordRef {
    std::uint32_t record;
    std::uint32_t owner; // the token word's owner bits
    std::uint64_t check; // key1
};

struct AccountView : AccountFacts {
    RecordRef ref;
    bool current; // confirmed since the last loss in the change stream (valid_gen)
};

enum class Spend : std::uint8_t {
    taken,
    short_of_tokens, // ask PostgreSQL (fund), then spend again
    exhausted,       // PostgreSQL said lately that there are no more: refuse
    gone,            // the account left the table: find it anew
};

struct SpendOutcome {
    std::uint64_t remaining;           // tokens here and, when last asked, in PostgreSQL; k_unlimited = no bound
    std::uint32_t held;                // of them here; begin a refill in the background when it gets low
    std::uint32_t retry_after_eighths; // with exhausted: 1/8 seconds until PostgreSQL is asked again, >= 1
    std::uint32_t resets;              // with exhausted: unix seconds, as exhausted() was told; 0 = not told

    // Then remaining is no number: nothing is left, and what is taken is overage.
    bool is_overage() const noexcept { return remaining >= k_all_beyond && remaining != k_unlimited; }
};

enum class Put : std::uint8_t {
    inserted,    // a new account
    updated,     // greater stamp; tokens went into the batch as returned
    revalidated, // same stamp: now current, or its overrides evaluated anew
    kept,        // what is there is as new or newer
    no_room,     // its overrides found no place; the account is not in the table
};

// Units of the zone by what they serve as. A walk over the whole zone: for metrics, not for requests.
struct ZoneUse {
    std::uint32_t units;
    std::uint32_t records;
    std::uint32_t extensions;
    std::uint64_t held; // tokens
};
inline constexpr std::size_t k_unit_bytes = sizeof(Unit);

// A rate as a bucket: so many microseconds between two requests on average, and no more ahead than this.
struct RateShape {
    static constexpr std::uint64_t k_never = ~std::uint64_t{0}; // as interval: nothing passes; as a wait: for ever

    std::uint64_t interval_us = 0; // 0: no limit
    std::uint64_t burst_us = 0;
    bool is_unlimited() const noexcept { return interval_us == 0; }
};

enum class Pass : std::uint8_t {
    passed,
    refused,
    no_slot, // the account has no place for this rate yet: provide_rate()
    gone,    // the account left the table: find it anew
};

// Units that were let through without being taken. account and limit are valid names.
struct LateCharge {
    std::string_view account;
    std::string_view limit; // its key
    std::int64_t at = 0;    // unix seconds
    std::uint32_t units = 0;
    bool creates = false; // an account that PostgreSQL does not know is made
};

class Table {
public:
    // Makes the zone anew in a block of shared memory (aligned to 64 bytes): its own identity, no accounts. The error
    // names a size that is large enough. The lock must outlive the Table.
    static Result<Table> create(void* block, std::size_t bytes, ZoneLock& lock);
    // Takes over what another process or an earlier configuration created. Refuses another layout.
    static Result<Table> attach(void* block, std::size_t bytes, ZoneLock& lock);
    // Bytes of a block for so many accounts without extensions (further quotas, overrides: 64 bytes each).
    static std::size_t bytes_for(std::uint32_t accounts) noexcept { return Geometry::of(accounts).bytes; }

    std::span<const std::uint8_t, 16> instance_id() const noexcept { return zone_->instance_id; }

    // --- requests: lock-free

    AccountKey key_of(std::string_view account) const noexcept;
    // False also for the instant in which the record is written or moved: then the caller fetches, which is always
    // right.
    bool find(AccountKey key, AccountView& view) const noexcept;
    // The account is in use. spend() and refund() say so themselves.
    void touch(RecordRef ref) noexcept;
    // limit_no 0..63; period = full period number; now_ms = monotonic clock.
    Spend spend(RecordRef ref, std::uint8_t limit_no, std::int64_t period, std::uint32_t cost, std::uint64_t now_ms,
                SpendOutcome& outcome) noexcept;
    // Gives back what spend() took. False: account or period is gone; then add_usage(id, limit_no, period, -cost,
    // cost).
    bool refund(RecordRef ref, std::uint8_t limit_no, std::int64_t period, std::uint32_t cost) noexcept;
    // Counts a request against a rate. now_us = monotonic clock; wait_us, when refused: until one would pass.
    Pass pass(RecordRef ref, std::uint8_t rate_no, RateShape shape, std::uint64_t now_us,
              std::uint64_t& wait_us) noexcept;
    // The account's own amount of a limit (has_overrides); false where the plan's holds.
    bool limit_amount(RecordRef ref, std::uint8_t limit_no, std::uint64_t& amount) const noexcept;
    // The account's time zone (calendar.zoned()); false: the account is gone.
    bool zone_of(RecordRef ref, ZoneOffsets& zone) const noexcept;

    // --- facts

    // valid_gen as it was before the facts were read from their source.
    Put put(AccountKey key, const AccountFacts& facts, std::uint32_t valid_gen,
            std::span<const LimitAmount> amounts = {}, const ZoneOffsets& zone = {}) noexcept;
    std::uint32_t valid_gen() const noexcept { return shared::load(zone_->valid_gen); }
    // The change stream lost something: every account has to be read anew before it is current again.
    void invalidate_all() noexcept { shared::add(zone_->valid_gen, 1); }

    // Accounts that do not exist, in a table of their own (direct-mapped); put() forgets.
    void remember_unknown(AccountKey key, std::uint64_t until_mono_ms) noexcept;
    bool is_unknown(AccountKey key, std::uint64_t now_mono_ms) const noexcept;

    // --- tokens

    // Puts tokens from PostgreSQL into a slot; spent_now (<= granted) of them are spent by the caller already. outside
    // = left to be issued, k_unlimited = no bound, k_overage = they are beyond what the account has. False: the account
    // is not here, or the slot serves a later period; then add_usage(id, limit_no, period, spent_now, granted -
    // spent_now).
    bool fund(AccountKey key, std::uint8_t limit_no, std::int64_t period, std::uint32_t granted, std::uint64_t outside,
              std::uint32_t spent_now) noexcept;
    // PostgreSQL has no more: refuse until then. Does nothing (false) while the slot holds tokens. resets: what
    // SpendOutcome tells meanwhile.
    bool exhausted(AccountKey key, std::uint8_t limit_no, std::int64_t period, std::uint64_t deadline_mono_ms,
                   std::uint32_t resets = 0) noexcept;
    // A place for the account's state of a rate, if it has none. False: the account is not here, or there is no room.
    bool provide_rate(AccountKey key, std::uint8_t rate_no) noexcept;
    // Usage that no record can carry. False: the batch is full; returned tokens and the report are lost, which is
    // counted.
    bool add_usage(std::uint64_t account_id, std::uint8_t limit_no, std::int64_t period, std::int64_t spent,
                   std::int64_t returned) noexcept;

    // Builds the next batch from what was spent and returned. True if one is now waiting to be sent, new or from
    // before.
    bool freeze() noexcept;
    // The batch to send: the same rows and sequence for every worker until acknowledge(). False: none.
    bool frozen(std::vector<UsageRow>& rows, std::uint64_t& sequence) noexcept;
    // PostgreSQL has applied it (or had already). False: not the sequence that is waiting.
    bool acknowledge(std::uint64_t sequence) noexcept;

    // The same for what was let through while nobody could be asked. False: no room to note it, which is counted.
    bool charge_late(const LateCharge& charge) noexcept;
    bool freeze_late() noexcept;
    bool frozen_late(std::vector<LateRow>& rows, std::uint64_t& sequence) noexcept;
    bool acknowledge_late(std::uint64_t sequence) noexcept;

    // One step of a walk over the zone: returns the tokens of accounts that were idle since the walk's last visit.
    // A whole turn each 30 s returns them after 30-60 s.
    void sweep(std::uint32_t units) noexcept;
    // Everything that is held goes back (clean exit). Stops where the batch is full: false; call again after a flush.
    bool return_all() noexcept;

    // --- for the host as a whole

    // Greater stamp wins; false: not newer, or longer than k_catalog_bytes. One of another epoch than the one before
    // invalidates all accounts: a PostgreSQL that was promoted or restored may never have known what is held of them.
    bool put_catalog(std::uint64_t stamp, std::string_view document) noexcept;
    std::uint64_t catalog_stamp() const noexcept {
        const std::uint64_t version = shared::load(zone_->catalog.version);
        return version == 0 ? 0 : shared::load(zone_->catalog.side[version & 1].stamp);
    }
    bool read_catalog(std::string& document, std::uint64_t& stamp) const noexcept;

    // Where the reader of the change stream goes on; at most k_position_bytes.
    bool put_position(std::string_view position) noexcept;
    std::string position() const noexcept;

    // All commits before watermark (unix ms, PostgreSQL's clock) are applied here, as of now (monotonic ms).
    void put_watermark(std::uint64_t watermark, std::uint64_t now_mono_ms) noexcept;
    std::uint64_t watermark() const noexcept { return shared::load(zone_->watermark); }
    std::uint64_t watermark_arrival() const noexcept { return shared::load(zone_->watermark_arrival); }

    // One worker of the host does the jobs. True: this process holds the lease, for ttl_ms from now; taken over when
    // its time is up or its holder is dead. Only saves work: nothing may rest on there being one.
    bool hold_lease(std::uint32_t pid, std::uint64_t now_mono_ms, std::uint64_t ttl_ms) noexcept;
    void release_lease(std::uint32_t pid) noexcept;

    // A worker begins to use the zone, and ends. leave() is true for the last one alive: nobody else will give back
    // what is held. Of several that leave at once at least one is told so.
    void join(std::uint32_t pid) noexcept;
    bool leave(std::uint32_t pid) noexcept;
    // What a worker that has joined says of itself, and what all who are alive have said.
    void tell_state(std::uint32_t pid, WorkerState state) noexcept;
    std::vector<WorkerState> states() const;

    // Counters have a part for each of 16 workers; call it once in each after the fork.
    void as_worker(std::uint32_t number) noexcept { stripe_ = number % k_counter_stripes; }
    void count(Counter counter, std::uint64_t by = 1) noexcept {
        shared::add(zone_->counters[stripe_][static_cast<std::size_t>(counter)], by);
    }
    std::uint64_t counted(Counter counter) const noexcept;
    ZoneUse use() const noexcept;
    // The same of so many units from there on, added to `use`: a large zone takes longer than a worker may.
    void add_use(std::uint32_t from, std::uint32_t count, ZoneUse& use) const noexcept;
    // Units in the zone: how far sweep() has to walk for a whole turn.
    std::uint32_t units() const noexcept { return unit_count_; }

    // Empty, or what is inconsistent: for tests and a debug page. Takes the lock, walks the zone.
    std::string check() noexcept;

private:
    template <class See>
    bool find_extension(RecordRef ref, See see) const noexcept;
    class Writing; // a writer's critical section (state/table_writing.hpp)

    Table(void* block, const Geometry& geometry, ZoneLock& lock) noexcept;

    bool read_record(std::uint32_t number, AccountKey key, AccountView& view) const noexcept;
    void read_extensions(std::uint32_t link, AccountFacts& facts) const noexcept;
    Spend spend_slowly(RecordRef ref, std::uint8_t limit_no, std::int64_t period, std::uint32_t cost,
                       std::uint64_t now_ms, SpendOutcome& outcome) noexcept;
    void mark_touched(std::uint32_t record, std::uint32_t epoch) noexcept;
    // The slot of a limit: its word and what PostgreSQL had left. Null: none. No lock, so verify the owner afterwards.
    std::uint64_t* word_of(const Record& record, std::uint8_t limit_no, std::uint32_t*& outside) const noexcept;
    std::uint64_t* rate_word_of(const Record& record, std::uint8_t rate_no) const noexcept;
    bool is_owner(RecordRef ref) const noexcept;

    ZoneHeader* zone_;
    IndexLine* index_;
    std::uint64_t* dirty_[2]; // by the epoch's lowest bit
    Unit* units_;
    ZoneLock* lock_;
    std::uint32_t unit_count_;
    std::uint32_t line_count_;
    std::uint32_t dirty_words_;
    std::uint32_t stripe_;
};

namespace table_detail {

// Two lines for each key, from bits that the record keeps, so that a record's place can be found from the record.
constexpr std::uint32_t first_line(std::uint64_t key1, std::uint32_t lines) noexcept {
    return static_cast<std::uint32_t>((key1 & 0xffffffff) * lines >> 32);
}
constexpr std::uint32_t second_line(std::uint64_t key1, std::uint32_t lines) noexcept {
    return static_cast<std::uint32_t>((key1 >> 32) * lines >> 32);
}
constexpr std::uint32_t tag_of(AccountKey key) noexcept { return static_cast<std::uint32_t>(key.lo); }
constexpr std::uint32_t key0_of(AccountKey key) noexcept { return static_cast<std::uint32_t>(key.lo >> 32); }

// What SpendOutcome::is_overage() knows is no number.
constexpr std::uint64_t remaining(std::uint32_t outside, std::uint32_t held) noexcept {
    return outside == k_no_bound ? k_unlimited : std::uint64_t{outside} + held;
}

} // namespace table_detail

[[gnu::always_inline]] inline AccountKey Table::key_of(std::string_view account) const noexcept {
    const Hash128 hash = siphash128(zone_->hash_key, account.data(), account.size());
    return {hash.hi, hash.lo};
}

[[gnu::always_inline]] inline bool Table::read_record(std::uint32_t number, AccountKey key,
                                                      AccountView& view) const noexcept {
    const Record& record = units_[number].record;
    for (int attempt = 0; attempt < 4; attempt++) {
        const std::uint32_t seq = shared::load(record.seq);
        if ((seq & 1) != 0) {
            continue;
        }
        if (shared::load(record.key1) != key.hi || shared::load(record.key0) != table_detail::key0_of(key)) {
            return false;
        }
        const std::uint64_t id = shared::load(record.account_id);
        view.id = id & k_account_id_mask;
        view.calendar.bits = static_cast<std::uint32_t>(id >> k_account_id_bits);
        view.stamp = shared::load(record.stamp);
        view.until = shared::load(record.until);
        view.plan = shared::load(record.plan);
        view.status = static_cast<Status>(shared::load(record.kind) - 1);
        const std::uint8_t flags = shared::load(record.flags);
        view.flags = flags & 63;
        view.until_kind = static_cast<UntilKind>(flags >> 6);
        view.current = ((shared::load(record.mark) ^ shared::load(zone_->valid_gen)) & k_valid_gen_mask) == 0;
        view.ref = {number, token::owner_of(shared::load(record.tokens)), key.hi};
        view.on = {};
        view.off = {};
        view.overrides_until = 0;
        view.has_overrides = false;
        if (const std::uint32_t link = shared::load(record.link); link != 0) [[unlikely]] {
            read_extensions(link, view);
        }
        if (shared::load(record.seq) == seq) [[likely]] {
            return true;
        }
    }
    return false;
}

[[gnu::always_inline]] inline bool Table::find(AccountKey key, AccountView& view) const noexcept {
    const std::uint32_t tag = table_detail::tag_of(key);
    const IndexLine* line = &index_[table_detail::first_line(key.hi, line_count_)];
    for (int probe = 0; probe < 2; probe++) {
#pragma GCC unroll 8
        for (std::uint32_t i = 0; i < k_line_entries; i++) {
            const std::uint64_t entry = shared::load(line->entry[i]);
            if (static_cast<std::uint32_t>(entry) == tag && entry >> 32 != 0 &&
                read_record(static_cast<std::uint32_t>(entry >> 32) - 1, key, view)) {
                return true;
            }
        }
        line = &index_[table_detail::second_line(key.hi, line_count_)];
    }
    return false;
}

// The order matters: a spender changes its word, then looks whether its mark is of this epoch; the builder of a batch
// advances the epoch, then reads the words. So what the one leaves unmarked the other sees.
[[gnu::always_inline]] inline void Table::touch(RecordRef ref) noexcept {
    const std::uint8_t touched = shared::load(units_[ref.record].record.touched);
    const std::uint32_t epoch = shared::load_ordered(zone_->epoch);
    if (touched != static_cast<std::uint8_t>(epoch)) [[unlikely]] {
        mark_touched(ref.record, epoch);
    }
}

[[gnu::always_inline]] inline Spend Table::spend(RecordRef ref, std::uint8_t limit_no, std::int64_t period,
                                                 std::uint32_t cost, std::uint64_t now_ms,
                                                 SpendOutcome& outcome) noexcept {
    Record& record = units_[ref.record].record;
    if ((shared::load(record.mark) & ~k_valid_gen_mask) == first_slot_mark(limit_no)) [[likely]] {
        std::uint64_t word = shared::load(record.tokens);
        const auto held = static_cast<std::int32_t>(token::value_of(word)); // negative: exhausted
        if (word >> 32 == token::head(ref.owner, static_cast<std::uint64_t>(period)) && cost <= token::k_most &&
            held >= static_cast<std::int32_t>(cost) && shared::load(record.key1) == ref.check &&
            shared::swap(record.tokens, word, word - cost)) [[likely]] {
            outcome.held = static_cast<std::uint32_t>(held) - cost;
            outcome.remaining = table_detail::remaining(shared::load(record.outside), outcome.held);
            outcome.retry_after_eighths = 0;
            touch(ref);
            return Spend::taken;
        }
    }
    return spend_slowly(ref, limit_no, period, cost, now_ms, outcome);
}

} // namespace billing
