// Tells Stripe of the overage that has been charged, as meter events, each exactly once: the event's identifier is the
// charge's own. Run by the worker that holds the host's lease; several hosts may run it at once.
#pragma once

#include "async/complaint.hpp"
#include "async/task.hpp"
#include "drivers/postgres.hpp"
#include "drivers/stripe_api.hpp"

#include <cstdint>
#include <optional>
#include <string>

namespace billing {

class OverageReporter {
public:
    // All references outlive the object.
    OverageReporter(Reactor& reactor, Postgres& postgres, StripeApi& stripe) noexcept
        : reactor_(reactor), postgres_(postgres), stripe_(stripe), trouble_(reactor) {}

    // For ever: each few seconds, and at once again while there is more. Without a key of Stripe's nothing is sent;
    // nothing is begun once the process is leaving.
    Task<void> run();

private:
    struct Charge {
        std::int64_t no = 0;
        std::int64_t attempt = 0;
        std::int64_t refusals = 0;
        bool unsure = false; // an earlier try may have arrived
        std::string customer;
        std::string meter;
        std::string quantity;
        std::string identifier;
    };

    Task<std::optional<Charge>> claim();
    Task<StripeReply> send(const Charge& charge);
    Task<void> note(const Charge& charge, const StripeReply& reply);

    Reactor& reactor_;
    Postgres& postgres_;
    StripeApi& stripe_;
    Complaint trouble_;
};

} // namespace billing
