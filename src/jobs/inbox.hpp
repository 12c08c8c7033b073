// Turns stored events of Stripe into changes of accounts: claims them, looks at Stripe where they say that something
// has changed, and applies what it saw in one transaction each. Run by the worker that holds the host's lease; any
// number of hosts may run one at once, since an event belongs to whoever claimed it last.
#pragma once

#include "async/complaint.hpp"
#include "async/scope.hpp"
#include "async/signal.hpp"
#include "async/task.hpp"
#include "drivers/postgres.hpp"
#include "drivers/stripe_api.hpp"
#include "jobs/stripe_look.hpp"
#include "state/event_queue.hpp"
#include "state/table.hpp"
#include "stripe/effect.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace billing {

struct InboxSettings {
    std::string account_name = "account";      // of the account in the metadata of checkouts
    bool livemode = false;                     // of Stripe's key: events of the other world change nothing
    std::string payment_policy = "grace";      // or "maintenance": of an account that owes
    std::optional<std::int64_t> grace_seconds; // how long it may
    std::string dispute_policy = "notify";     // or "maintenance": of an account whose payment is disputed
    Table* table = nullptr;                    // where outcomes are counted, if anywhere
};

class Inbox {
public:
    // `wake` is set when an event has come. All references outlive the object.
    Inbox(Reactor& reactor, Postgres& postgres, StripeApi& stripe, Signal& wake, InboxSettings settings);
    Inbox(const Inbox&) = delete;
    Inbox& operator=(const Inbox&) = delete;

    // For ever: claims what there is room for at each wake-up and each second; nothing once the process is leaving.
    Task<void> run();

    // No event is in work or being claimed.
    bool idle() const noexcept { return busy_ == 0 && !claiming_; }

private:
    class Slot;
    struct Work {
        ClaimedEvent event;
        std::int64_t lease_end_ms = 0;
    };

    Task<void> claim();
    Task<void> work(Work work);
    Task<void> process(const Work& work);
    Task<void> apply(const Work& work, EventEffect& effect, const CustomerTicket& ticket);
    Task<StripeLook> whose(const EventEffect& effect);
    Task<StripeLook> look(EventEffect& effect, const CustomerTicket& ticket);
    Task<void> conclude(const Work& work, const Applied& applied);
    Task<void> ignore(const Work& work, std::string reason);
    Task<void> park(const Work& work, std::string customer, std::string reason);
    Task<void> fail(const Work& work, std::string problem, bool counts);

    Result<EventEffect> effect_of(const ClaimedEvent& event) const;
    void tell(LogLevel level, const ClaimedEvent& event, std::string_view outcome);
    void count(Counter outcome) noexcept;
    void note(const StripeLook& seen);

    Reactor& reactor_;
    StripeApi& stripe_;
    Signal& wake_;
    InboxSettings settings_;
    EventQueue queue_;
    Complaint key_trouble_;
    bool claiming_ = false;
    int busy_ = 0; // events in work
    Scope works_;  // last: what runs in it uses the others
};

} // namespace billing
