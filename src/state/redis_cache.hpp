// Redis as the snapshots' cache and the stream of changes: every key and command of it. Used by workers; a copy of
// PostgreSQL's truth, never more: an older stamp never replaces a newer one, and what a restarted Redis still remembers
// is not believed.
#pragma once

#include "async/complaint.hpp"
#include "async/task.hpp"
#include "drivers/redis.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace billing {

// Entries of the stream are pairs of names and texts; the first is always "kind".
inline constexpr std::string_view k_changes_key = "billing:changes";

class RedisCache {
public:
    RedisCache(Reactor& reactor, Redis& redis) noexcept : redis_(redis), trouble_(reactor) {}

    // The body held for the account; empty when there is none, or one from before a restart, or Redis does not answer.
    Task<std::string> account(std::string account);
    Task<std::string> catalog();

    // What is there of an account, believed or not; for the command that explains one.
    struct Held {
        bool told = false;       // Redis has answered
        std::uint64_t stamp = 0; // 0: it holds nothing
        bool trusted = false;    // written by this run of Redis, so that workers believe it
    };
    Task<Held> held(std::string account);

    // True when Redis now holds this stamp or a newer one; false when nobody knows.
    Task<bool> put_account(std::string account, std::uint64_t stamp, std::string body);
    Task<bool> put_catalog(std::uint64_t stamp, std::string body);

    // Appends to the stream; false when it is not sure that the entry is there.
    Task<bool> announce_account(std::string account, std::uint64_t stamp, std::string body);
    Task<bool> announce_catalog(std::uint64_t stamp, std::string body);
    // All commits before `watermark` (unix ms of PostgreSQL's clock) stand in the stream before this entry.
    Task<bool> heartbeat(std::int64_t watermark);

    // Names this very life of Redis's memory: another after a restart, a failover or a flush, when entries of the
    // stream may be lost. Empty when Redis does not answer.
    Task<std::string> life();

private:
    Task<std::string> run_id();
    Task<std::string> body_of(std::string key);
    Task<bool> put(std::string key, std::uint64_t stamp, std::string body);
    Task<bool> announce(RedisArgs change);

    // Redis answers with an error: a value of another type, no right to a command, no memory. Told once.
    void look_at(const RedisReply& reply, std::string_view what);

    Redis& redis_;
    Complaint trouble_;
    std::string run_id_; // of the server behind connection number run_id_of_
    std::uint64_t run_id_of_ = 0;
};

} // namespace billing
