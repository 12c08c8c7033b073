// A list of Stripe's, page by page. Used by looks at what an event is about, and, at a pace that leaves Stripe's rate
// limit to others, by the passes over all that Stripe has; owner: the coroutine that reads it.
#pragma once

#include "async/task.hpp"
#include "drivers/stripe_api.hpp"
#include "stripe/objects.hpp"

#include <cstdint>
#include <string>

namespace billing {

// Why a pass cannot go on.
struct Trouble {
    enum class Kind : std::uint8_t {
        none,
        later,   // somebody could not be reached: the same may do later
        refused, // it will not
    };
    Kind kind = Kind::none;
    std::string text; // fit for the log

    explicit operator bool() const noexcept { return kind != Kind::none; }
};

struct ListPace {
    int page_size = 100;         // as many as Stripe gives
    std::int64_t pause_ms = 100; // between two; ten calls a second, of the hundred that Stripe lets an account make
};

class StripeList {
public:
    // `query` without limit and starting_after.
    StripeList(Reactor& reactor, StripeApi& stripe, std::string path, Form query, ListPace pace);
    StripeList(const StripeList&) = delete;
    StripeList& operator=(const StripeList&) = delete;

    // There may be a further page.
    bool more() const noexcept { return !trouble_ && (!begun_ || page_.more); }
    // False: there is no further page, or there is trouble. The elements live until the next call.
    Task<bool> next();
    const StripePage& page() const noexcept { return page_; }
    const Trouble& trouble() const noexcept { return trouble_; }
    // Stripe's last answer.
    const StripeReply& reply() const noexcept { return reply_; }

private:
    void read(StripeReply reply);

    Reactor& reactor_;
    StripeApi& stripe_;
    std::string path_;
    Form query_;
    std::int64_t pause_ms_;
    StripeReply reply_; // holds the page
    StripePage page_;
    Trouble trouble_;
    bool begun_ = false;
};

} // namespace billing
