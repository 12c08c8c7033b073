// A look at Stripe: objects and whole lists as they are now, in bounded time. Shared by the looks of the jobs and of
// the command, which say what is kept of them.
#pragma once

#include "async/task.hpp"
#include "drivers/stripe_api.hpp"
#include "jobs/stripe_list.hpp"

#include <cstdint>
#include <functional>
#include <string>

namespace billing {

struct StripeLook {
    enum class Outcome : std::uint8_t {
        ok,
        later,       // Stripe could not be reached, or was too slow
        credentials, // the key may not do this
        failed,      // an answer that cannot be right: another look will hardly bring a better one
    };
    Outcome outcome = Outcome::ok;
    std::string problem;  // unless ok: what, fit for the log
    std::string json;     // of ok: what was seen, as billing.stripe_apply() wants it
    bool missing = false; // of ok: Stripe does not know the customer, who so has nothing
};

class StripeReader {
public:
    StripeReader(Reactor& reactor, StripeApi& stripe);
    StripeReader(const StripeReader&) = delete;
    StripeReader& operator=(const StripeReader&) = delete;

    // An error: it cannot be read.
    using Keep = std::function<Result<Done>(const json_t* object)>;

    // All pages of a list, each element to `keep`: at most 50, and none asked for after 25 s since the reader was made.
    // Both calls do nothing once something has failed.
    Task<void> read_pages(std::string path, Form query, Keep keep);
    // The same of a list that belongs to an object; the object's id has come from elsewhere.
    Task<void> read_parts(std::string folder, std::string id, std::string parts, Form query, Keep keep);
    // One object; its id has come from elsewhere.
    Task<void> read_one(std::string folder, std::string id, Form query, Keep keep);

    bool ok() const noexcept { return look_.outcome == StripeLook::Outcome::ok; }
    // How it ended, with what was seen.
    StripeLook finish(std::string json) &&;

private:
    void keep_all(const StripePage& page, const Keep& keep);
    bool in_time();
    void keep_one(const json_t* object, const Keep& keep);
    void refused(const StripeReply& reply);
    void stop(StripeLook::Outcome outcome, std::string problem);

    Reactor& reactor_;
    StripeApi& stripe_;
    std::int64_t end_ms_;
    bool kept_ = false;
    StripeLook look_;
};

} // namespace billing
