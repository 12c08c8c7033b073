#include "endpoints/webhook.hpp"

#include "domain/json.hpp"
#include "stripe/signature.hpp"

namespace billing {

namespace {

Counter counter_of(Stored stored, bool ignored) noexcept {
    switch (stored) {
    case Stored::stored:
        return ignored ? Counter::webhook_ignored : Counter::webhook_received;
    case Stored::duplicate:
        return Counter::webhook_duplicate;
    case Stored::failed:
        break;
    }
    return Counter::webhook_error;
}

Response received(bool duplicate) {
    const Json body{json_object()};
    json_object_set_new(body.get(), "received", json_true());
    if (duplicate) {
        json_object_set_new(body.get(), "duplicate", json_true());
    }
    return json_response(200, body.get());
}

// `why` is for the answer, which Stripe's dashboard shows to its owner.
Response refused(Services& services, Counter counter, std::string_view code, std::string_view why) {
    services.table.count(counter);
    return problem(400, code, "Invalid webhook", why);
}

// Anybody can send such things: one line in the log, until a good event comes.
constexpr const char* k_unsigned =
    "a webhook is refused, because it is not signed with a secret of this location; if Stripe "
    "has sent it, billing_webhook_secret is not that of its endpoint";

} // namespace

Task<Response> webhook(Request request, Services& services, const EndpointSettings& settings) {
    if (settings.secrets.empty() || !services.stripe.configured()) {
        services.table.count(Counter::webhook_error);
        co_return not_configured();
    }
    const auto verdict = verify_signature(request.signature, request.body, settings.secrets,
                                          services.reactor.unix_ms() / 1000, settings.tolerance_seconds);
    if (verdict != SignatureVerdict::valid) {
        services.webhook_trouble.say(k_unsigned);
        co_return refused(services, Counter::webhook_bad_signature, "INVALID_SIGNATURE",
                          signature_verdict_text(verdict));
    }
    services.webhook_trouble.settled();
    const auto head = read_event_head(request.body);
    if (!head) {
        services.reactor.log(LogLevel::warn, "billing: a signed webhook is no event: " + head.error());
        co_return refused(services, Counter::webhook_error, "INVALID_EVENT", "The body is no event: " + head.error());
    }
    if (head.value().kind == EventKind::other) {
        co_return refused(services, Counter::webhook_error, "INVALID_EVENT",
                          "The body is no event with an id and a type");
    }
    const NewEvent event = new_event(head.value(), services.livemode);
    Stored stored = co_await services.events.store(event, request.body);
    services.table.count(counter_of(stored, !event.ignored.empty()));
    if (stored == Stored::failed) {
        co_return try_later("NOT_STORED", "The event could not be stored; send it again");
    }
    if (stored == Stored::stored && !event.ignored.empty()) {
        services.reactor.log(LogLevel::info,
                             "billing: event " + event.id + " " + event.type + ": ignored, " + event.ignored);
    }
    co_return received(stored == Stored::duplicate);
}

} // namespace billing
