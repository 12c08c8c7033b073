#include "jobs/inbox.hpp"

#include "async/sleep.hpp"
#include "jobs/object_looks.hpp"
#include "jobs/subscription_list.hpp"
#include "stripe/event.hpp"

#include <utility>
#include <vector>

namespace billing {

namespace {

constexpr int k_slots = 8;
constexpr int k_lease_s = 60;
constexpr std::int64_t k_round_ms = 1000;
constexpr std::int64_t k_retry_ms = 1000;

constexpr const char* k_no_answer = "PostgreSQL did not answer";

EventEffect nothing(const std::string& why) {
    EventEffect effect;
    effect.ignored = why;
    return effect;
}

std::string change_text(const Applied& applied) {
    std::string text = " of account " + applied.account + ": ";
    if (applied.plan != applied.plan_before) {
        text += applied.plan_before + " -> ";
    }
    text += applied.plan + " (" + applied.status + ")";
    return applied.stale ? text + ", after a later look at Stripe" : text;
}

} // namespace

// Held while an event is in work. When it becomes free there may be more to claim, of the same customer too.
class Inbox::Slot {
public:
    explicit Slot(Inbox& inbox) noexcept : inbox_(inbox) { ++inbox_.busy_; }
    Slot(const Slot&) = delete;
    Slot& operator=(const Slot&) = delete;
    ~Slot() {
        --inbox_.busy_;
        inbox_.wake_.set();
    }

private:
    Inbox& inbox_;
};

Inbox::Inbox(Reactor& reactor, Postgres& postgres, StripeApi& stripe, Signal& wake, InboxSettings settings)
    : reactor_(reactor), stripe_(stripe), wake_(wake), settings_(std::move(settings)), queue_(reactor, postgres),
      key_trouble_(reactor), works_(reactor) {}

Task<void> Inbox::run() {
    for (;;) {
        // A call of Stripe holds up a process that is leaving: it finishes what it has begun and begins nothing.
        if (!reactor_.leaving() && busy_ < k_slots) {
            co_await claim();
        }
        co_await wake_.wait(k_round_ms);
    }
}

Task<void> Inbox::claim() {
    const std::int64_t lease_end_ms = reactor_.now_ms() + std::int64_t{k_lease_s} * 1000;
    claiming_ = true;
    std::vector<ClaimedEvent> events = co_await queue_.claim(k_slots - busy_, k_lease_s);
    claiming_ = false;
    for (ClaimedEvent& event : events) {
        Work one;
        one.event = std::move(event);
        one.lease_end_ms = lease_end_ms;
        works_.spawn(work(std::move(one)));
    }
}

Task<void> Inbox::work(Work work) {
    const Slot slot{*this};
    co_await process(work);
}

Task<void> Inbox::process(const Work& work) {
    auto read = effect_of(work.event);
    if (!read) {
        co_await fail(work, read.error(), true);
        co_return;
    }
    EventEffect& effect = read.value();
    if (!effect.ignored.empty()) {
        co_await ignore(work, effect.ignored);
        co_return;
    }
    // The ticket is taken before the look begins: of two looks the one with the later ticket saw the later state.
    CustomerTicket ticket = co_await queue_.ticket(effect.customer, effect.account, effect.payment);
    if (ticket.outcome == CustomerTicket::Outcome::unknown && effect.customer.empty() && !effect.charge.empty()) {
        StripeLook owner = co_await whose(effect);
        if (owner.outcome != StripeLook::Outcome::ok) {
            co_await fail(work, owner.problem, owner.outcome == StripeLook::Outcome::failed);
            co_return;
        }
        if (owner.json.empty()) {
            co_await ignore(work, "a payment of nobody");
            co_return;
        }
        effect.customer = owner.json;
        ticket = co_await queue_.ticket(effect.customer, "", "");
    }
    switch (ticket.outcome) {
    case CustomerTicket::Outcome::known:
        break;
    case CustomerTicket::Outcome::unknown:
        co_await park(work, effect.customer, "");
        co_return;
    case CustomerTicket::Outcome::conflict:
        co_await park(work, effect.customer,
                      "its checkout names account " + effect.account + ", which has another customer");
        co_return;
    case CustomerTicket::Outcome::unanswered:
        co_await fail(work, k_no_answer, false);
        co_return;
    }
    co_await apply(work, effect, ticket);
}

Task<void> Inbox::apply(const Work& work, EventEffect& effect, const CustomerTicket& ticket) {
    StripeLook seen = co_await look(effect, ticket);
    if (seen.outcome != StripeLook::Outcome::ok) {
        co_await fail(work, seen.problem, seen.outcome == StripeLook::Outcome::failed);
        co_return;
    }
    std::string subscriptions;
    if (effect.subscriptions) {
        subscriptions = std::move(seen.json);
    } else if (!seen.json.empty()) {
        auto object = parse_json(seen.json);
        if (object) {
            json_object_set_new(effect.effect.get(), "seen", object.value().release());
        }
    }
    Applied applied = co_await queue_.apply(work.event, ticket, subscriptions, dump_json(effect.effect.get()));
    co_await conclude(work, applied);
}

// The payload is what was signed; what is stored beside it was read from it.
Result<EventEffect> Inbox::effect_of(const ClaimedEvent& event) const {
    const std::string foreign = foreign_event(event.stripe_account, event.livemode, settings_.livemode);
    if (!foreign.empty()) {
        return nothing(foreign);
    }
    const auto payload = parse_payload(event.payload);
    if (!payload) {
        return Error{payload.error()};
    }
    rename_account(payload.value().get(), settings_.account_name);
    auto read = read_effect(payload.value().get());
    if (read && read.value().effect) {
        json_t* const effect = read.value().effect.get();
        put_member(effect, "policy", settings_.payment_policy);
        put_member(effect, "dispute_policy", settings_.dispute_policy);
        if (settings_.grace_seconds) {
            put_member(effect, "grace_seconds", *settings_.grace_seconds);
        }
    }
    return read;
}

// Refunds and disputes do not name the customer.
Task<StripeLook> Inbox::whose(const EventEffect& effect) {
    StripeLook owner = co_await customer_of_charge(reactor_, stripe_, effect.charge);
    note(owner);
    co_return owner;
}

// Nothing seen, and that is all right: nobody has to look, or there is no customer, yet or any more.
Task<StripeLook> Inbox::look(EventEffect& effect, const CustomerTicket& ticket) {
    StripeLook seen;
    const std::string customer = effect.customer.empty() ? ticket.customer : effect.customer;
    const bool by_customer =
        effect.subscriptions || effect.look == LookAt::customer || effect.look == LookAt::entitlements;
    if (by_customer && (customer.empty() || ticket.former)) {
        co_return seen;
    }
    if (!effect.cut_invoice.empty()) {
        seen = co_await look_at_lines(reactor_, stripe_, effect);
        if (seen.outcome != StripeLook::Outcome::ok) {
            note(seen);
            co_return seen;
        }
    }
    if (effect.subscriptions) {
        seen = co_await list_subscriptions(reactor_, stripe_, customer);
    } else if (effect.look != LookAt::nothing) {
        seen = co_await look_at(reactor_, stripe_, effect, customer);
    } else {
        co_return seen;
    }
    note(seen);
    co_return seen;
}

void Inbox::note(const StripeLook& seen) {
    if (seen.outcome == StripeLook::Outcome::credentials) {
        key_trouble_.say(
            "Stripe does not let the secret key read what events are about, and they wait until it may: it needs "
            "to read customers, subscriptions, invoices, charges, disputes and entitlements");
    } else if (seen.outcome == StripeLook::Outcome::ok) {
        key_trouble_.settled();
    }
}

Task<void> Inbox::conclude(const Work& work, const Applied& applied) {
    switch (applied.outcome) {
    case Applied::Outcome::ok:
        count(Counter::event_applied);
        tell(LogLevel::info, work.event, change_text(applied));
        break;
    case Applied::Outcome::lost_to_another:
        tell(LogLevel::info, work.event, ": the lease was over, it is in other hands");
        break;
    case Applied::Outcome::belongs_to_another:
        co_await park(work, "", applied.message);
        break;
    case Applied::Outcome::refused:
        co_await fail(work, applied.message, true);
        break;
    case Applied::Outcome::unanswered:
        co_await fail(work, applied.message, false);
        break;
    }
}

Task<void> Inbox::ignore(const Work& work, std::string reason) {
    Marked marked = co_await queue_.ignore(work.event, reason);
    if (marked == Marked::unanswered) {
        co_await fail(work, k_no_answer, false);
    } else {
        count(Counter::event_ignored);
        tell(LogLevel::info, work.event, ": ignored, " + reason);
    }
}

Task<void> Inbox::park(const Work& work, std::string customer, std::string reason) {
    Marked marked = co_await queue_.park(work.event, customer, reason);
    if (marked == Marked::unanswered) {
        co_await fail(work, k_no_answer, false);
    } else if (marked == Marked::done) {
        const bool usual = reason.empty();
        count(Counter::event_parked);
        tell(usual ? LogLevel::info : LogLevel::warn, work.event, ": parked, " + (usual ? "unknown customer" : reason));
    }
}

// Said until PostgreSQL has heard it or the lease is over. It may have applied the event all the same: then, as after
// the lease, the attempt is not in force any more and nothing changes.
Task<void> Inbox::fail(const Work& work, std::string problem, bool counts) {
    Marked marked = co_await queue_.failed(work.event, problem, counts);
    while (marked == Marked::unanswered && reactor_.now_ms() < work.lease_end_ms) {
        co_await sleep_for(reactor_, k_retry_ms, true);
        marked = co_await queue_.failed(work.event, problem, counts);
    }
    if (marked == Marked::dead) {
        count(Counter::event_dead);
        tell(LogLevel::error, work.event, ": given up after its last try: " + problem);
    } else if (marked != Marked::stale) {
        count(Counter::event_retried);
        tell(LogLevel::warn, work.event, ": failed, to be tried again: " + problem);
    }
}

void Inbox::count(Counter outcome) noexcept {
    if (settings_.table != nullptr) {
        settings_.table->count(outcome);
    }
}

void Inbox::tell(LogLevel level, const ClaimedEvent& event, std::string_view outcome) {
    reactor_.log(level, "billing: event " + event.id + " " + event.type + std::string(outcome));
}

} // namespace billing
