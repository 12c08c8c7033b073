// What checkout and portal make of Stripe's answers for their own client.
#pragma once

#include "endpoints/exchange.hpp"
#include "stripe/reply.hpp"

#include <string>
#include <string_view>

namespace billing {

// Of an answer that is not ok: nothing of Stripe's words, with Retry-After where waiting helps.
Response stripe_problem(const StripeReply& reply);

// An idempotency key that nobody else has: for calls that may be repeated without harm, or are an intent of their own.
std::string one_time_key(std::string_view what);

// The address of a session at Stripe, once more under `alias` for older clients.
Response session_answer(const std::string& url, const char* alias, bool redirect);

// An address that a browser may be sent to: https, or http where Stripe's API itself is a stand-in on http.
bool is_page(std::string_view url, bool plain_http) noexcept;

} // namespace billing
