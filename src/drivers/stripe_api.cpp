#include "drivers/stripe_api.hpp"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "async/sleep.hpp"

namespace billing {

namespace {

constexpr std::int64_t k_max_pause_ms = 5000;

HttpConfig http_config(const StripeConfig& config) {
    HttpConfig http;
    http.name = "Stripe";
    http.timeout_ms = config.try_ms;
    http.max_body = config.max_answer;
    http.plain_http = config.base_url.starts_with("http://");
    http.ca_file = config.ca_file;
    return http;
}

bool is_path(std::string_view path) noexcept {
    return path.starts_with("/v") && std::all_of(path.begin(), path.end(), [](char byte) {
               return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
                      byte == '_' || byte == '/' || byte == '-';
           });
}

bool is_idempotency_key(std::string_view key) noexcept {
    return !key.empty() && key.size() <= 255 &&
           std::all_of(key.begin(), key.end(), [](char byte) { return byte > 0x20 && byte < 0x7f; });
}

StripeReply reply_of(const HttpResponse& response) {
    if (response.outcome == HttpOutcome::unreachable || response.outcome == HttpOutcome::lost)
        return no_reply(response.outcome == HttpOutcome::lost);
    RawReply raw;
    raw.status = response.status;
    raw.should_retry = response.headers.find("Stripe-Should-Retry");
    raw.retry_after = response.headers.find("Retry-After");
    raw.request_id = response.headers.find("Request-Id");
    raw.replayed = response.headers.find("Idempotent-Replayed");
    raw.body = response.body;
    return read_reply(raw);
}

} // namespace

StripeApi::StripeApi(Reactor& reactor, StripeConfig config)
    : reactor_(reactor), config_(std::move(config)), http_(reactor, http_config(config_)),
      random_((static_cast<std::uint64_t>(::getpid()) * 7919U + reinterpret_cast<std::uintptr_t>(this)) *
                  0x9E3779B97F4A7C15U |
              1U) {}

HttpRequest StripeApi::request(const char* method, const std::string& path) const {
    HttpRequest out;
    out.method = method;
    out.url = config_.base_url + path;
    out.headers.add("Authorization", "Bearer " + config_.key);
    if (!config_.version.empty())
        out.headers.add("Stripe-Version", config_.version);
    return out;
}

Task<StripeReply> StripeApi::post(std::string path, Form form, std::string idempotency_key, std::int64_t until_ms) {
    if (!configured())
        co_return refused_reply(Refusal::credentials);
    if (!is_path(path) || !is_idempotency_key(idempotency_key))
        co_return refused_reply(Refusal::invalid_request);
    HttpRequest what = request("POST", path);
    what.headers.add("Content-Type", "application/x-www-form-urlencoded");
    what.headers.add("Idempotency-Key", idempotency_key);
    what.body = form.text();
    StripeReply reply = co_await call(std::move(what), until_ms);
    co_return reply;
}

Task<StripeReply> StripeApi::get(std::string path, Form query, std::int64_t until_ms) {
    if (!configured())
        co_return refused_reply(Refusal::credentials);
    if (!is_path(path))
        co_return refused_reply(Refusal::invalid_request);
    HttpRequest what = request("GET", path);
    if (!query.empty())
        what.url += "?" + query.text();
    StripeReply reply = co_await call(std::move(what), until_ms);
    co_return reply;
}

// Half to the whole of the doubled pause, so that hosts do not come all at once; more if Stripe asks for it.
std::int64_t StripeApi::pause_before(int retry, const StripeReply& reply) noexcept {
    const std::int64_t whole = std::min(config_.pause_ms << std::min(retry, 10), k_max_pause_ms);
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    const auto spread = static_cast<std::uint64_t>(whole / 2 + 1);
    return std::max(whole - whole / 2 + static_cast<std::int64_t>(random_ % spread), reply.retry_after_ms);
}

Task<StripeReply> StripeApi::call(HttpRequest request, std::int64_t until_ms) {
    ++counters_.calls;
    const std::int64_t whole = reactor_.now_ms() + config_.total_ms;
    const std::int64_t deadline = until_ms == 0 ? whole : std::min(whole, until_ms);
    if (reactor_.now_ms() >= deadline) {
        co_return finished(no_reply(false), request);
    }
    StripeReply reply;
    bool uncertain = false; // of any try
    for (int tries = 0;; ++tries) {
        HttpRequest once = request;
        once.timeout_ms = std::clamp<std::int64_t>(deadline - reactor_.now_ms(), 1, config_.try_ms);
        HttpResponse response = co_await http_.send(std::move(once));
        reply = reply_of(response);
        uncertain = uncertain || reply.uncertain;
        if (!reply.retry || tries == config_.retries)
            break;
        const std::int64_t pause = pause_before(tries, reply);
        if (reactor_.now_ms() + pause >= deadline)
            break;
        co_await sleep_for(reactor_, pause);
        ++counters_.retries;
    }
    reply.uncertain = reply.uncertain || (reply.kind == ReplyKind::later && uncertain);
    co_return finished(std::move(reply), request);
}

// Outages are told by the HTTP client; here the answers which should not be.
StripeReply StripeApi::finished(StripeReply reply, const HttpRequest& request) noexcept {
    counters_.later += reply.kind == ReplyKind::later ? 1U : 0U;
    counters_.refused += reply.kind == ReplyKind::refused ? 1U : 0U;
    if (config_.told)
        config_.told(reply.kind);
    if (!reply.ok() && reply.status != 0) {
        const std::string path = request.url.substr(config_.base_url.size());
        const bool usual = reply.refusal == Refusal::already || reply.refusal == Refusal::card;
        reactor_.log(usual ? LogLevel::info : LogLevel::warn, "billing: Stripe answered " + request.method + " " +
                                                                  path.substr(0, path.find('?')) + " with " +
                                                                  reply.log_text());
    }
    return reply;
}

} // namespace billing
