#include "jobs/reconcile_schedule.hpp"

#include "async/sleep.hpp"

#include <utility>

namespace billing {

namespace {

constexpr std::string_view k_events = "events";
constexpr std::string_view k_subscriptions = "subscriptions";
constexpr std::string_view k_months = "months";
constexpr std::int64_t k_minute_s = 60;
constexpr std::int64_t k_events_every_s = 5 * k_minute_s;
constexpr std::int64_t k_subscriptions_every_s = 60 * k_minute_s;
constexpr std::int64_t k_months_every_s = k_minute_s;
constexpr std::int64_t k_overlap_s = 10 * k_minute_s; // clocks differ, and Stripe may list an event a little late
constexpr std::int64_t k_round_ms = 5000;
constexpr ListPace k_pace{25, 250}; // a page is read between requests, and should be as short as these

Task<bool> keep(ReconcileStore& store, std::string kind, std::string holder, const Reactor& reactor) {
    const bool kept = co_await store.keep_pass(kind, holder);
    co_return kept && !reactor.leaving();
}

} // namespace

ReconcileSchedule::ReconcileSchedule(Reactor& reactor, Postgres& postgres, StripeApi& stripe, bool livemode,
                                     LookSettings settings)
    : reactor_(reactor), postgres_(postgres), stripe_(stripe), livemode_(livemode), settings_(std::move(settings)),
      store_(postgres), trouble_(reactor) {}

Task<void> ReconcileSchedule::run() {
    for (;;) {
        co_await sleep_for(reactor_, k_round_ms, true);
        if (!reactor_.leaving()) {
            co_await pass(k_events, k_events_every_s);
            co_await pass(k_subscriptions, k_subscriptions_every_s);
            co_await months();
        }
    }
}

Task<void> ReconcileSchedule::pass(std::string_view kind, std::int64_t every_s) {
    std::optional<PassHeld> held = co_await store_.begin_pass(kind, every_s);
    if (!held) {
        co_return;
    }
    Reconciler reconciler{reactor_, postgres_, stripe_, livemode_, settings_, listener(kind, held->holder)};
    Trouble trouble;
    if (kind == k_events) {
        trouble = co_await reconciler.missed_events(held->since - k_overlap_s);
    } else {
        trouble = co_await reconciler.all_subscriptions();
    }
    if (!trouble) {
        co_await store_.finish_pass(kind, held->holder);
    }
    conclude(kind, trouble, reconciler.counts());
}

Task<void> ReconcileSchedule::months() {
    std::optional<PassHeld> held = co_await store_.begin_pass(k_months, k_months_every_s);
    if (!held) {
        co_return;
    }
    bool more = true;
    while (more) {
        more = co_await store_.refill_months();
        more = more && !reactor_.leaving();
    }
    co_await store_.finish_pass(k_months, held->holder);
}

Reconciler::Listener ReconcileSchedule::listener(std::string_view kind, const std::string& holder) {
    Reconciler::Listener listener;
    listener.pace = k_pace;
    listener.missed = [this](const NewEvent& event) {
        reactor_.log(LogLevel::warn, "billing: event " + event.id + " " + event.type + " has never come; it is stored");
    };
    listener.drifted = [this](const json_t* answer) {
        const auto text = [answer](const char* key) { return std::string{text_member(answer, key).value_or("")}; };
        reactor_.log(LogLevel::warn, "billing: account " + text("account") +
                                         " was not as Stripe has it; it is now: " + text("plan_before") + " (" +
                                         text("status_before") + ") -> " + text("plan") + " (" + text("status") + ")");
    };
    listener.failed = [this](const LinkedCustomer& whose, const std::string& problem) {
        reactor_.log(LogLevel::warn, "billing: account " + whose.account + " cannot be compared: " + problem);
    };
    listener.go_on = [this, kind = std::string{kind}, holder] { return keep(store_, kind, holder, reactor_); };
    return listener;
}

void ReconcileSchedule::conclude(std::string_view kind, const Trouble& trouble, const ReconcileCounts& counts) {
    if (trouble.kind == Trouble::Kind::refused) {
        trouble_.say("reconciling with Stripe's " + std::string{kind} + " is not possible: " + trouble.text);
        return;
    }
    if (!trouble) {
        trouble_.settled();
    }
    const LogLevel level = counts.missed + counts.drifted > 0 ? LogLevel::notice : LogLevel::info;
    reactor_.log(level, "billing: reconciled with Stripe's " + std::string{kind} + ": " +
                            std::to_string(counts.missed) + " events had not come, " + std::to_string(counts.drifted) +
                            " accounts had drifted" + (trouble ? "; not finished: " + trouble.text : ""));
}

} // namespace billing
