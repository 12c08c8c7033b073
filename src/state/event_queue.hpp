// Stripe's events in PostgreSQL, after event_writer has stored them: claimed, given their effect and marked by the
// inbox job. One coroutine for each SQL function.
#pragma once

#include "async/complaint.hpp"
#include "async/task.hpp"
#include "drivers/postgres.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace billing {

// An event that is ours until the lease ends. `attempt` fences: whoever comes with another one changes nothing.
struct ClaimedEvent {
    std::string stripe_account;
    std::string id;
    std::string type;
    std::optional<bool> livemode;
    std::int64_t attempt = 0;
    std::string payload; // the bytes that were signed
};

enum class Marked : std::uint8_t {
    done,
    released,   // of park(): its customer has become known meanwhile, the event is waiting again
    dead,       // of failed(): that was the last try
    stale,      // another attempt has it
    unanswered, // PostgreSQL did not say
};

// Whose event it is, and the number of the look at Stripe that follows.
struct CustomerTicket {
    enum class Outcome : std::uint8_t {
        known,
        unknown,    // no account has that customer
        conflict,   // the account that the checkout names and the link in force differ; there is no ticket
        unanswered, // PostgreSQL did not say
    };
    Outcome outcome = Outcome::unanswered;
    std::int64_t account_id = 0;
    std::string account;
    std::string customer; // the link in force, or ""
    std::int64_t ticket = 0;
    bool former = false; // the customer that was asked for is gone: what Stripe lists of it says nothing any more
};

struct Applied {
    enum class Outcome : std::uint8_t {
        ok,
        lost_to_another,    // another attempt has the event; nothing has happened
        belongs_to_another, // something of it belongs to another account; nothing has happened
        refused,            // it will not do any better the next time; nothing has happened
        unanswered,         // PostgreSQL did not say, or cannot at the moment: it may have happened
    };
    Outcome outcome = Outcome::unanswered;
    std::string message; // unless ok: why
    // Of ok, for the log.
    std::string account;
    std::string plan_before;
    std::string plan;
    std::string status;
    bool stale = false; // a later look at Stripe had been applied before
};

// What is passed is copied before a call returns; the pool outlives whoever awaits.
class EventQueue {
public:
    EventQueue(Reactor& reactor, Postgres& postgres);

    // At most `batch` events, oldest first, one of a customer; each is ours for `lease_s` seconds.
    Task<std::vector<ClaimedEvent>> claim(int batch, int lease_s);

    // `counts`: false where somebody could not be reached, which uses no try up.
    Task<Marked> failed(const ClaimedEvent& event, std::string_view error, bool counts);
    Task<Marked> ignore(const ClaimedEvent& event, std::string_view reason);
    // Until its customer is linked; `reason` "": the customer is unknown. Else it stays until an operator looks at it.
    Task<Marked> park(const ClaimedEvent& event, std::string_view customer, std::string_view reason);

    // `customer`, `account`, `payment` (an intent of Stripe) "": none is named.
    Task<CustomerTicket> ticket(std::string_view customer, std::string_view account, std::string_view payment);

    // All effects of the event and its mark, in one transaction. `subscriptions`: JSON as stripe_apply() wants it, or
    // "" where nobody looked.
    Task<Applied> apply(const ClaimedEvent& event, const CustomerTicket& ticket, std::string_view subscriptions,
                        std::string_view effect);

private:
    Task<std::vector<ClaimedEvent>> run_claim(PgParams parameters);
    Task<Marked> run_mark(std::string_view sql, PgParams parameters);
    Task<CustomerTicket> run_ticket(PgParams parameters);
    Task<Applied> run_apply(PgParams parameters);
    void note(const PgResult& result);

    Postgres& postgres_;
    Complaint trouble_;
};

} // namespace billing
