// What checkout and portal read and write in PostgreSQL: prices, customers, open sessions, calls to Stripe under way.
// One statement each, one transaction each (migrations/0011, 0015). One for each worker; no state of its own.
#pragma once

#include "async/complaint.hpp"
#include "async/task.hpp"
#include "drivers/postgres.hpp"

#include <cstdint>
#include <optional>
#include <string>

namespace billing {

struct PriceAnswer {
    enum class Outcome : std::uint8_t { ok, unknown, no_price, unavailable };
    Outcome outcome = Outcome::unavailable;
    std::string price; // Stripe's id
    std::string mode;  // subscription | payment
    std::string plan;
};

// How to make an account's customer at Stripe: under which name, and what is known of it.
struct CustomerPlan {
    std::string intent;
    std::string email;
    std::string name;
};

// Who an account's customer is if nobody knows better, as the operator's configuration says; "" for nothing.
struct Contact {
    std::string email;
    std::string name;
};

// One attempt to check out: what the account has, and under which names to call Stripe.
struct CheckoutStart {
    enum class Outcome : std::uint8_t {
        create,
        reuse,
        replace,
        subscribed,
        paid, // the event of a paid checkout is on the way
        unknown_account,
        unknown_price,
        unavailable
    };
    Outcome outcome = Outcome::unavailable;
    std::string customer; // "" : make one first, as planned, and link it
    CustomerPlan customer_plan;
    bool first = false; // the account never had a subscription
    std::string mode;   // subscription | payment
    std::string plan;
    std::string credit; // of a pack
    std::int64_t quantity = 0;
    std::string session; // reuse, replace: the open one
    std::string url;     // reuse. Bearer: never log it
    std::string intent;  // create, replace: names the call to Stripe for all who ask at the same time
    std::string current_plan;
    std::string current_status;
};

enum class SessionStored : std::uint8_t { open, paid, expired, superseded, unavailable };

enum class PlanSet : std::uint8_t { ok, unknown_plan, unknown_account, live, unavailable };

enum class Unlinked : std::uint8_t {
    gone, // the account has another customer by now, or none
    live, // a subscription that is not over says that the customer must exist
    unavailable,
};

class CheckoutStore {
public:
    CheckoutStore(Reactor& reactor, Postgres& postgres) : postgres_(postgres), trouble_(reactor) {}

    // `name`: a plan, a plan with its interval, a pack or a price id. `interval`: "" or as the client says it.
    Task<PriceAnswer> resolve_price(std::string name, std::string interval, bool livemode);

    // `style`: names what the session is made with besides the price; the open one is only reused for the same.
    Task<CheckoutStart> begin(std::string account, std::string price, std::string style, Contact contact);
    // The session that Stripe made for an intent. `expires`: unix seconds, 0 unknown.
    Task<SessionStored> opened(std::string account, std::string intent, std::string session, std::string url,
                               std::int64_t expires);
    // `status`: paid | expired, as Stripe says. Best effort: an event tells the same.
    Task<void> closed(std::string session, std::string status);
    // Stripe gave a definite no to the intent's call. Best effort: an intent lapses.
    Task<void> failed(std::string intent);

    // The customer in force afterwards, which is another one if another call was faster; "" if that cannot be told.
    Task<std::string> link_customer(std::string account, std::string customer);
    // Stripe does not know the customer any more.
    Task<Unlinked> unlink_customer(std::string account, std::string customer);

    struct Customer {
        bool known = false; // false: PostgreSQL is away
        std::string id;     // "" : none
    };
    Task<Customer> customer_of(std::string account);

    struct CustomerStart {
        enum class Outcome : std::uint8_t { known, unknown_account, unavailable };
        Outcome outcome = Outcome::unavailable;
        std::string id; // "" : make one, as planned
        CustomerPlan plan;
    };
    // The customer, or how to make one.
    Task<CustomerStart> begin_customer(std::string account, Contact contact);

    // For development: a plan without paying. `live`: refused, for this database has taken live events.
    Task<PlanSet> set_plan(std::string account, std::string plan);

    // What a person is in an account: "" for no member. Nothing: PostgreSQL is away.
    Task<std::optional<std::string>> member_role(std::string account, std::string subject);

private:
    bool check(const PgResult& result);

    Postgres& postgres_;
    Complaint trouble_;
};

} // namespace billing
