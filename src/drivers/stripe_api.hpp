// Stripe's API over HttpClient: key, version and idempotency key on each call, tries again what may be tried again, in
// bounded time. Transport only: what to ask and what an answer changes is its callers' matter. Owner: the worker (or
// the command); it outlives its calls.
//
//   StripeReply reply = co_await stripe.post("/v1/customers", std::move(form), "customer:" + account + ":1");
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "async/task.hpp"
#include "drivers/http_client.hpp"
#include "stripe/form.hpp"
#include "stripe/reply.hpp"

namespace billing {

struct StripeConfig {
    std::string base_url = "https://api.stripe.com"; // without a path; http:// for tests
    std::string key;                                 // "sk_..." or "rk_..."; empty: billing is not configured
    std::string version = "2026-02-25.clover";       // empty: the account's own
    std::int64_t try_ms = 8000;                      // one try
    std::int64_t total_ms = 12000;                   // all tries and the pauses between them
    int retries = 2;                                 // after the first try
    std::int64_t pause_ms = 500;                     // before the first retry, then doubled, to 5 s at most
    std::size_t max_answer = std::size_t{8} << 20;   // bytes: a page of 100 events is large
    std::string ca_file;                             // PEM; empty: those of the system
    std::function<void(ReplyKind)> told;             // of each call that was sent: how it ended
};

struct StripeCounters {
    std::uint64_t calls = 0;
    std::uint64_t retries = 0;
    std::uint64_t later = 0;   // calls which ended so
    std::uint64_t refused = 0; // calls which ended so
};

class StripeApi {
public:
    StripeApi(Reactor& reactor, StripeConfig config);
    StripeApi(const StripeApi&) = delete;
    StripeApi& operator=(const StripeApi&) = delete;

    // There is a key. Without one every call is refused (credentials).
    bool configured() const noexcept { return !config_.key.empty(); }
    // The configured address is http: a stand-in, whose pages are too.
    bool plain_http() const noexcept { return config_.base_url.starts_with("http://"); }

    // `path`: "/v1/..." with ids which is_object_id() has seen; anything but [A-Za-z0-9_/-] is refused unsent
    // (invalid_request), as is an idempotency key which is not 1 to 255 bytes of printable ASCII. The key names the
    // intent: the same for each try, on whichever host, and kept until the outcome is known. A caller who is destroyed
    // does not take back what is being sent.
    // `until_ms`: on the reactor's clock, for a caller whose several calls have one bound; 0: total_ms from now.
    Task<StripeReply> post(std::string path, Form form, std::string idempotency_key, std::int64_t until_ms = 0);
    Task<StripeReply> get(std::string path, Form query, std::int64_t until_ms = 0);

    // Cuts what is under way. Idempotent.
    void stop() noexcept { http_.stop(); }
    const StripeCounters& counters() const noexcept { return counters_; }
    const HttpClient& http() const noexcept { return http_; }

private:
    Task<StripeReply> call(HttpRequest request, std::int64_t until_ms);
    HttpRequest request(const char* method, const std::string& path) const;
    StripeReply finished(StripeReply reply, const HttpRequest& request) noexcept;
    std::int64_t pause_before(int retry, const StripeReply& reply) noexcept;

    Reactor& reactor_;
    StripeConfig config_;
    HttpClient http_;
    StripeCounters counters_;
    std::uint64_t random_;
};

} // namespace billing
