// An account's customer at Stripe: made once, linked before anything is sold to it, used ever after.
#pragma once

#include "async/task.hpp"
#include "endpoints/exchange.hpp"
#include "endpoints/services.hpp"

#include <optional>
#include <string>

namespace billing {

struct MadeCustomer {
    std::string id;                  // the one in force, whoever made it
    std::optional<Response> refusal; // then there is none
};

// `plan`: what PostgreSQL says of an account without one. until_ms: of the reactor's clock, for all calls together.
Task<MadeCustomer> make_customer(std::string account, CustomerPlan plan, std::string metadata_name, Services& services,
                                 std::int64_t until_ms);

// What Stripe has definitely refused, or keeps as the answer to this key, would only come again under it: the intent
// is given up. Returns what to answer.
Task<Response> give_up(std::string intent, const StripeReply& reply, Services& services);

} // namespace billing
