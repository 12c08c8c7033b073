#include "jobs/change_reader.hpp"

#include "async/sleep.hpp"
#include "domain/json.hpp"

#include <charconv>
#include <utility>

namespace billing {

namespace {

constexpr std::int64_t k_block_ms = 1000;
constexpr std::int64_t k_block_timeout_ms = 3000;
constexpr std::int64_t k_retry_ms = 200;
constexpr std::int64_t k_check_ms = 1000;
constexpr std::int64_t k_doubt_ms = 1000;
constexpr std::uint64_t k_clock_step_ms = 60'000;

using StreamId = std::pair<std::uint64_t, std::uint64_t>;

StreamId stream_id(std::string_view text) noexcept {
    StreamId id;
    const auto milliseconds = std::from_chars(text.data(), text.data() + text.size(), id.first);
    if (milliseconds.ptr < text.data() + text.size()) {
        std::from_chars(milliseconds.ptr + 1, text.data() + text.size(), id.second);
    }
    return id;
}

std::string_view field(const RedisReply& fields, std::string_view name) noexcept {
    for (std::size_t index = 0; index + 1 < fields.size(); index += 2) {
        if (fields[index].text() == name) {
            return fields[index + 1].text();
        }
    }
    return {};
}

} // namespace

ChangeReader::ChangeReader(Reactor& reactor, Redis& stream, RedisCache& redis, Table& table, AccountStore& accounts,
                           CatalogHolder& catalogs, Signal& returned)
    : reactor_(reactor), stream_(stream), redis_(redis), table_(table), accounts_(accounts), catalogs_(catalogs),
      returned_(returned), trouble_(reactor) {}

Task<void> ChangeReader::run() {
    const std::string position = table_.position(); // "id life", as remember() wrote it
    const auto space = position.find(' ');
    if (space != std::string::npos) {
        last_id_ = position.substr(0, space);
        life_ = position.substr(space + 1);
    }
    for (;;) {
        bool same = co_await check_life();
        if (!same) {
            co_await sleep_for(reactor_, k_retry_ms, true);
            continue;
        }
        RedisArgs command{"XREAD", "COUNT", "500", "BLOCK", k_block_ms, "STREAMS", k_changes_key, last_id_};
        RedisReply reply = co_await stream_.command(std::move(command), k_block_timeout_ms);
        if (reply.ok()) {
            co_await apply(reply);
        } else {
            complain(reply);
            checked_ms_ = 0; // the next life may be another one
            co_await sleep_for(reactor_, k_retry_ms, true);
        }
    }
}

// False when Redis does not answer. Another life, or a place in the stream that is gone: entries may have been lost, so
// nothing that shared memory holds is current until it has been read anew.
Task<bool> ChangeReader::check_life() {
    if (checked_ms_ != 0 && reactor_.now_ms() - checked_ms_ < k_check_ms) {
        co_return true;
    }
    const std::string life = co_await redis_.life();
    if (life.empty()) {
        co_return false;
    }
    const bool gap = co_await has_gap();
    if (life != life_ || last_id_.empty() || gap) {
        bool started = co_await start_at_end();
        if (!started) {
            co_return false;
        }
        table_.invalidate_all();
        life_ = life;
        remember();
    }
    checked_ms_ = reactor_.now_ms();
    co_return true;
}

// The entries behind our place have been trimmed away, or the stream ends before it (a failover that lost its tail).
Task<bool> ChangeReader::has_gap() {
    RedisArgs command{"XINFO", "STREAM", k_changes_key};
    RedisReply reply = co_await stream_.command(std::move(command));
    StreamId first;
    StreamId last;
    for (std::size_t index = 0; index + 1 < reply.size(); index += 2) {
        if (reply[index].text() == "first-entry") {
            first = stream_id(reply[index + 1][0].text());
        } else if (reply[index].text() == "last-generated-id") {
            last = stream_id(reply[index + 1].text());
        }
    }
    const StreamId here = stream_id(last_id_);
    co_return reply.is_array() && here != StreamId{} && (first > here || last < here);
}

Task<bool> ChangeReader::start_at_end() {
    RedisArgs command{"XREVRANGE", k_changes_key, "+", "-", "COUNT", "1"};
    RedisReply reply = co_await stream_.command(std::move(command));
    if (!reply.is_array()) {
        complain(reply);
        co_return false;
    }
    last_id_ = reply.size() == 0 ? "0-0" : reply[0][0].text();
    co_return true;
}

// [[stream, [[id, [name, value, ...]], ...]]], or nil when nothing came in time.
Task<void> ChangeReader::apply(const RedisReply& reply) {
    const RedisReply& entries = reply[0][1];
    for (const auto& entry : entries.elements()) {
        apply_entry(entry[1]);
        co_await follow_catalog();
        last_id_ = entry[0].text();
    }
    if (entries.size() > 0) {
        remember();
    }
}

void ChangeReader::apply_entry(const RedisReply& fields) {
    const auto kind = field(fields, "kind");
    if (kind == "account") {
        if (!accounts_.follow(field(fields, "body"))) {
            doubt();
        }
        returned_.set();
    } else if (kind == "catalog") {
        announced_catalog_ = from_hex16(field(fields, "stamp")).value_or(0);
    } else if (kind == "heartbeat") {
        const auto text = field(fields, "watermark");
        std::uint64_t watermark = 0;
        std::from_chars(text.data(), text.data() + text.size(), watermark);
        // A transaction that was open for long makes a later watermark the smaller one: it tells nothing new. Much
        // smaller, and PostgreSQL's clock has been set back.
        if (watermark >= table_.watermark() || table_.watermark() - watermark > k_clock_step_ms) {
            table_.put_watermark(watermark, static_cast<std::uint64_t>(reactor_.now_ms()));
        }
    }
}

// As with a gap: every account is read anew from PostgreSQL. Not more often than that, whoever writes such entries.
void ChangeReader::doubt() {
    const std::int64_t now = reactor_.now_ms();
    if (doubted_ms_ == 0 || now - doubted_ms_ >= k_doubt_ms) {
        doubted_ms_ = now;
        table_.invalidate_all();
    }
}

// Catalogs change seldom, and their stamp says which epoch of PostgreSQL this host believes: so it is PostgreSQL that
// tells, the stream only wakes. While it cannot be asked, the next entries, each heartbeat too, ask again.
Task<void> ChangeReader::follow_catalog() {
    if (announced_catalog_ <= table_.catalog_stamp()) {
        co_return;
    }
    bool told = co_await catalogs_.ask();
    if (told) {
        announced_catalog_ = 0;
    }
}

void ChangeReader::complain(const RedisReply& reply) {
    if (reply.is_error()) {
        trouble_.say("Redis refuses to tell changes: " + reply.text());
    }
}

void ChangeReader::remember() { table_.put_position(last_id_ + " " + life_); }

} // namespace billing
