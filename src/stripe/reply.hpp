// What an answer of Stripe's API means to us: done, try again later, or refused and why. Pure; used by StripeApi and by
// those who call it. Stripe's own words are never kept: they quote parameters and keys.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "domain/json.hpp"

namespace billing {

enum class ReplyKind {
    ok,      // json has the object
    later,   // unreachable, in conflict, limited or failing: the same call with the same key may do later
    refused, // trying again changes nothing
};

enum class Refusal {
    none,
    credentials,      // the key is missing, wrong, or may not do this
    invalid_request,  // our settings or parameters are not accepted
    missing_customer, // the customer that was named does not exist (any more)
    missing_object,   // another object that was named does not exist, in this mode
    idempotency,      // the key was used before, with other parameters
    already,    // done before, or too late for it: a meter event that is there, a session no longer open; look again
    card,       // the payment was declined
    unreadable, // an answer which is not Stripe's: no JSON, a redirect, too large
};

// What matters of an HTTP answer. Values "" if the header was missing.
struct RawReply {
    int status = 0;
    std::string_view should_retry; // Stripe-Should-Retry
    std::string_view retry_after;  // Retry-After
    std::string_view request_id;   // Request-Id
    std::string_view replayed;     // Idempotent-Replayed
    std::string_view body;
};

struct StripeReply {
    ReplyKind kind = ReplyKind::later;
    Refusal refusal = Refusal::none; // of `refused`
    Json json;                       // of `ok`: an object
    int status = 0;                  // of HTTP; 0: none came
    bool retry = false;              // of `later`: worth the same call, with the same key, at once
    bool uncertain = false;          // unless `ok`: it may have been carried out nevertheless
    bool replayed = false;           // Stripe has given the answer to an earlier call with that key
    std::int64_t retry_after_ms = 0; // what Stripe asks for, at most an hour; 0: nothing
    std::string request_id;          // for the log: Stripe's support and dashboard know it
    std::string type;                // of the error; these four are at most 80 bytes of [A-Za-z0-9_.-[]]
    std::string code;
    std::string param;

    bool ok() const noexcept { return kind == ReplyKind::ok; }
    explicit operator bool() const noexcept { return ok(); }
    // "HTTP 400 invalid_request_error resource_missing (customer), request req_..."; without anything secret.
    std::string log_text() const;
};

// Nothing came back; `sent`: it may have been carried out.
StripeReply no_reply(bool sent);
// Not sent: refused by ourselves.
StripeReply refused_reply(Refusal refusal);
StripeReply read_reply(const RawReply& raw);

// What to tell our own client who waits for this: 503 (with Retry-After), 502, or 500 where our settings are at fault;
// 0 for `ok`. And a text without anything of Stripe's in it.
int client_status(const StripeReply& reply) noexcept;
const char* client_text(const StripeReply& reply) noexcept;

} // namespace billing
