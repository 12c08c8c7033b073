#include "jobs/stripe_purge.hpp"

#include "async/sleep.hpp"

#include <utility>

namespace billing {

namespace {

constexpr const char* k_kind = "purge";
constexpr std::int64_t k_every_s = 600;
constexpr std::int64_t k_round_ms = 5000;
constexpr int k_batch = 200; // a few milliseconds, which whoever waits for the connection hardly sees
constexpr std::int64_t k_pause_ms = 100;

} // namespace

StripePurge::StripePurge(Reactor& reactor, Postgres& postgres, std::int64_t keep_s)
    : reactor_(reactor), keep_s_(keep_s), store_(postgres), trouble_(reactor) {}

Task<void> StripePurge::run() {
    for (;;) {
        co_await sleep_for(reactor_, k_round_ms, true);
        if (!reactor_.leaving()) {
            co_await pass();
        }
    }
}

Task<void> StripePurge::pass() {
    std::optional<PassHeld> held = co_await store_.begin_pass(k_kind, k_every_s);
    if (!held) {
        co_return;
    }
    const bool done = co_await all(held->holder);
    if (done) {
        co_await store_.finish_pass(k_kind, held->holder);
    }
}

Task<bool> StripePurge::all(std::string holder) {
    for (;;) {
        Asked<std::int64_t> purged = co_await store_.purge(keep_s_, k_batch);
        if (!purged) {
            if (purged.outcome == Asked<std::int64_t>::Outcome::refused) {
                trouble_.say("old events cannot be purged: " + purged.problem);
            }
            co_return false;
        }
        trouble_.settled();
        if (purged.value == 0) {
            co_return true;
        }
        co_await sleep_for(reactor_, k_pause_ms, true);
        const bool kept = co_await store_.keep_pass(k_kind, holder);
        if (!kept || reactor_.leaving()) {
            co_return false;
        }
    }
}

} // namespace billing
