#include "stripe/reply.hpp"

#include <algorithm>
#include <charconv>
#include <cstddef>

#include "stripe/event.hpp"

namespace billing {

namespace {

constexpr std::size_t k_max_word = 80;
constexpr std::int64_t k_max_retry_after_s = 3600;

// What may go to the log: words of Stripe's vocabulary have no other bytes.
std::string word(std::string_view text) {
    const bool plain = text.size() <= k_max_word && std::all_of(text.begin(), text.end(), [](char byte) {
                           return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                                  (byte >= '0' && byte <= '9') || byte == '_' || byte == '.' || byte == '-' ||
                                  byte == '[' || byte == ']';
                       });
    return plain ? std::string(text) : std::string();
}

std::string word_member(const json_t* object, const char* key) {
    return word(text_member(object, key).value_or(std::string_view()));
}

std::int64_t retry_after_ms(std::string_view text) noexcept {
    std::int64_t seconds = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), seconds);
    if (problem != std::errc() || end != text.data() + text.size() || seconds <= 0)
        return 0; // also for a date, which Stripe does not send
    return std::min(seconds, k_max_retry_after_s) * 1000;
}

// Stripe gives these no code of their own: its words are all there is.
bool says_already(std::string_view message) noexcept {
    return message.find("event already exists with identifier") != message.npos ||
           message.find("Checkout Sessions with a status in") != message.npos;
}

Refusal refusal_of(const StripeReply& reply, std::string_view message) noexcept {
    if (reply.status == 401 || reply.status == 403)
        return Refusal::credentials;
    if (reply.type == "idempotency_error")
        return Refusal::idempotency;
    if (reply.status == 402 || reply.type == "card_error")
        return Refusal::card;
    if (reply.code == "resource_missing")
        return reply.param == "customer" ? Refusal::missing_customer : Refusal::missing_object;
    if (reply.code == "resource_already_exists" || reply.code == "duplicate_meter_event" || says_already(message))
        return Refusal::already;
    return Refusal::invalid_request;
}

} // namespace

StripeReply no_reply(bool sent) {
    StripeReply reply;
    reply.retry = true;
    reply.uncertain = sent;
    return reply;
}

StripeReply refused_reply(Refusal refusal) {
    StripeReply reply;
    reply.kind = ReplyKind::refused;
    reply.refusal = refusal;
    return reply;
}

StripeReply read_reply(const RawReply& raw) {
    StripeReply reply;
    reply.status = raw.status;
    reply.replayed = raw.replayed == "true";
    reply.request_id = word(raw.request_id);
    reply.retry_after_ms = retry_after_ms(raw.retry_after);
    auto parsed = parse_payload(raw.body);
    Json body = parsed ? std::move(parsed).value() : Json();
    if (raw.status >= 200 && raw.status < 300 && body) {
        reply.kind = ReplyKind::ok;
        reply.json = std::move(body);
        return reply;
    }
    const json_t* const error = json_object_get(body.get(), "error");
    reply.type = word_member(error, "type");
    reply.code = word_member(error, "code");
    reply.param = word_member(error, "param");
    const bool busy = raw.status == 409 || raw.status >= 500 || reply.code == "idempotency_key_in_use";
    const bool asks = raw.status >= 400 && raw.should_retry == "true";
    if (busy || asks || raw.status == 429) {
        reply.retry = asks || (busy && raw.should_retry != "false");
        reply.uncertain = raw.status >= 500;
        return reply;
    }
    reply.kind = ReplyKind::refused;
    reply.uncertain = raw.status < 400;
    const bool readable = raw.status >= 400 && (json_is_object(error) || raw.status == 401 || raw.status == 403);
    reply.refusal = readable ? refusal_of(reply, text_member(error, "message").value_or("")) : Refusal::unreadable;
    return reply;
}

std::string StripeReply::log_text() const {
    std::string text = status == 0 ? std::string("no answer") : "HTTP " + std::to_string(status);
    for (const std::string* part : {&type, &code})
        if (!part->empty())
            text += " " + *part;
    if (!param.empty())
        text += " (" + param + ")";
    if (refusal == Refusal::unreadable)
        text += " which is not an answer of Stripe's API";
    if (!request_id.empty())
        text += ", request " + request_id;
    return text;
}

int client_status(const StripeReply& reply) noexcept {
    if (reply.kind != ReplyKind::refused)
        return reply.kind == ReplyKind::ok ? 0 : 503;
    const bool ours = reply.refusal == Refusal::invalid_request || reply.refusal == Refusal::missing_object ||
                      reply.refusal == Refusal::missing_customer || reply.refusal == Refusal::idempotency ||
                      reply.refusal == Refusal::already;
    return ours ? 500 : 502;
}

const char* client_text(const StripeReply& reply) noexcept {
    switch (client_status(reply)) {
    case 0:
        return "";
    case 503:
        return "The payment service cannot be reached at the moment; please try again";
    case 502:
        return "The payment service did not accept the request";
    default:
        return "Billing is not set up correctly";
    }
}

} // namespace billing
