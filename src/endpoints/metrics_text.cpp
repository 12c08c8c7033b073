#include "endpoints/metrics_text.hpp"

#include "domain/version.hpp"

#include <cstdio>
#include <span>

namespace billing {

namespace {

struct Reading {
    Counter counter;
    std::string_view label; // the value of the family's label
};

constexpr std::array k_denied = {
    Reading{Counter::denied_no_account, "no_account"},
    Reading{Counter::denied_invalid_token, "invalid_token"},
    Reading{Counter::denied_invalid_key, "invalid_key"},
    Reading{Counter::denied_invalid_account, "invalid_account"},
    Reading{Counter::denied_invalid_cost, "invalid_cost"},
    Reading{Counter::denied_invalid_idempotency_key, "invalid_idempotency_key"},
    Reading{Counter::denied_unknown_account, "unknown_account"},
    Reading{Counter::denied_write_disabled, "write_disabled"},
    Reading{Counter::denied_maintenance, "maintenance"},
    Reading{Counter::denied_enforced, "enforced"},
    Reading{Counter::denied_inactive, "inactive"},
    Reading{Counter::denied_plan, "plan"},
    Reading{Counter::denied_feature, "feature"},
    Reading{Counter::denied_key_outstanding, "key_outstanding"},
    Reading{Counter::denied_key_misused, "key_misused"},
    Reading{Counter::denied_limit, "limit"},
    Reading{Counter::denied_rate, "rate"},
    Reading{Counter::denied_credits, "credits"},
    Reading{Counter::denied_stock, "stock"},
    Reading{Counter::denied_unavailable, "unavailable"},
};
constexpr std::array k_webhooks = {
    Reading{Counter::webhook_received, "received"}, Reading{Counter::webhook_duplicate, "duplicate"},
    Reading{Counter::webhook_ignored, "ignored"},   Reading{Counter::webhook_bad_signature, "bad_signature"},
    Reading{Counter::webhook_error, "error"},
};
constexpr std::array k_events = {
    Reading{Counter::event_applied, "applied"}, Reading{Counter::event_ignored, "ignored"},
    Reading{Counter::event_parked, "parked"},   Reading{Counter::event_retried, "retried"},
    Reading{Counter::event_dead, "dead"},
};
constexpr std::array k_stripe = {
    Reading{Counter::stripe_ok, "ok"},
    Reading{Counter::stripe_refused, "refused"},
    Reading{Counter::stripe_unavailable, "unavailable"},
};

// The page as it grows: families one after another, each with its samples behind it.
class Page {
public:
    void family(std::string_view name, const char* type, std::string_view help) {
        name_ = name;
        add({"# HELP ", name, " ", help, "\n# TYPE ", name, " ", type, "\n"});
    }
    // `labels` as they stand between the braces; the values are ours and need no escapes.
    void sample(std::string_view labels, std::string_view value) {
        add({name_, labels.empty() ? "" : "{", labels, labels.empty() ? " " : "} ", value, "\n"});
    }
    void sample(std::string_view labels, std::uint64_t value) { sample(labels, std::to_string(value)); }

    void counter(std::string_view name, std::string_view help, std::uint64_t value) {
        family(name, "counter", help);
        sample("", value);
    }
    void gauge(std::string_view name, std::string_view help, std::uint64_t value) {
        family(name, "gauge", help);
        sample("", value);
    }

    std::string take() { return std::move(text_); }

private:
    void add(std::initializer_list<std::string_view> parts) {
        for (const std::string_view part : parts) {
            text_ += part;
        }
    }

    std::string text_;
    std::string name_;
};

std::string label(std::string_view name, std::string_view value) {
    return std::string{name} + "=\"" + std::string{value} + "\"";
}

void add_readings(Page& page, const HostMetrics& host, std::string_view name, std::span<const Reading> readings) {
    for (const Reading& reading : readings) {
        page.sample(label(name, reading.label), host.count(reading.counter));
    }
}

void add_decisions(Page& page, const HostMetrics& host) {
    const std::uint64_t warm = host.count(Counter::allowed_warm);
    page.family("billing_decisions_total", "counter", "Requests that the gate has decided, by decision and reason.");
    page.sample(R"(decision="allow",reason="none")", warm + host.count(Counter::allowed));
    page.sample(R"(decision="allow_grace",reason="grace")", host.count(Counter::allowed_grace));
    page.sample(R"(decision="allow_fallback",reason="unavailable")", host.count(Counter::allowed_fallback));
    for (const Reading& reading : k_denied) {
        page.sample(R"(decision="deny",)" + label("reason", reading.label), host.count(reading.counter));
    }
    for (const Reading& reading : k_denied) {
        page.sample(R"(decision="would_deny",)" + label("reason", reading.label),
                    host.count(observed(reading.counter)));
    }
    page.family("billing_cache_lookups_total", "counter", "Decisions by where the facts came from.");
    page.sample(label("source", "shm"), warm + host.count(Counter::from_shm));
    page.sample(label("source", "redis"), host.count(Counter::from_redis));
    page.sample(label("source", "postgres"), host.count(Counter::from_postgres));
    page.sample(label("source", "stale"), host.count(Counter::from_stale));
    page.sample(label("source", "none"), host.count(Counter::from_nowhere));
    page.counter("billing_unknown_accounts_total", "Look-ups of accounts that PostgreSQL did not know.",
                 host.count(Counter::unknown));
}

void add_zone(Page& page, const HostMetrics& host) {
    const std::uint64_t used = std::uint64_t{host.zone.records} + host.zone.extensions;
    page.gauge("billing_cache_entries", "Accounts in shared memory.", host.zone.records);
    page.family("billing_cache_bytes", "gauge", "Shared memory for accounts: in use, and in all.");
    page.sample(label("state", "used"), used * k_unit_bytes);
    page.sample(label("state", "total"), std::uint64_t{host.zone.units} * k_unit_bytes);
    page.counter("billing_cache_evictions_total", "Accounts that made room for others.",
                 host.count(Counter::evictions));
    page.counter("billing_cache_wipes_total", "Accounts lost to a worker that was killed while it wrote one.",
                 host.count(Counter::wipes));
    page.gauge("billing_quota_held_tokens", "Units of quotas that this host holds.", host.zone.held);
    page.counter("billing_quota_fundings_total", "Takes of quota units from PostgreSQL.", host.count(Counter::funds));
    page.counter("billing_quota_forfeited_tokens_total", "Units of quotas that were lost until their period ends.",
                 host.count(Counter::forfeited));
    page.family("billing_credit_takings_total", "counter",
                "Takings of credits: made, and of those, kept by what became of the request, and given back.");
    page.sample(label("state", "taken"), host.count(Counter::credits_taken));
    page.sample(label("state", "committed"), host.count(Counter::credits_committed));
    page.sample(label("state", "given_back"), host.count(Counter::credits_given_back));
    page.family("billing_repeated_requests_total", "counter",
                "Requests let through uncharged, since one with their Idempotency-Key was charged.");
    page.sample("", host.count(Counter::repeated));
    page.family("billing_stock_total", "counter",
                "Creates of a stock's things: places reserved, and of those, made and given back; and deletes.");
    page.sample(label("state", "reserved"), host.count(Counter::stock_reserved));
    page.sample(label("state", "made"), host.count(Counter::stock_made));
    page.sample(label("state", "given_back"), host.count(Counter::stock_given_back));
    page.sample(label("state", "removed"), host.count(Counter::stock_removed));
    page.family("billing_late_units_total", "counter",
                "Units let through while nobody could be asked: noted to be charged, or lost for want of room.");
    page.sample(label("outcome", "noted"), host.count(Counter::late_noted));
    page.sample(label("outcome", "lost"), host.count(Counter::late_lost));
    if (host.watermark_age_ms) {
        std::array<char, 32> text{};
        const int length =
            std::snprintf(text.data(), text.size(), "%.3f", static_cast<double>(*host.watermark_age_ms) / 1000);
        page.family("billing_watermark_age_seconds", "gauge", "Since this host last heard that it knows all changes.");
        page.sample("", std::string_view{text.data(), static_cast<std::size_t>(length)});
    }
}

void add_stripe(Page& page, const HostMetrics& host) {
    page.family("billing_webhook_events_total", "counter", "Webhook requests, by what they were answered.");
    add_readings(page, host, "result", k_webhooks);
    page.family("billing_webhook_processed_total", "counter",
                "Stored events that were looked at, by what became of them.");
    add_readings(page, host, "outcome", k_events);
    page.family("billing_stripe_requests_total", "counter", "Calls of Stripe with all their tries, by how they ended.");
    add_readings(page, host, "outcome", k_stripe);
}

struct Backend {
    std::uint64_t connected = 0;
    std::uint64_t pending = 0;
    bool used = false;
};

void add_backends(Page& page, const HostMetrics& host) {
    Backend postgres;
    Backend redis;
    postgres.used = true;
    for (const WorkerState& worker : host.workers) {
        postgres.connected += worker.postgres_up;
        postgres.pending += worker.postgres_pending;
        redis.connected += worker.redis_up;
        redis.pending += worker.redis_pending;
        redis.used = redis.used || worker.has_redis;
    }
    const std::uint64_t workers = host.workers.size();
    const auto each = [&](const char* name, const char* help, auto value) {
        page.family(name, "gauge", help);
        page.sample(label("backend", "postgres"), value(postgres));
        if (redis.used) {
            page.sample(label("backend", "redis"), value(redis));
        }
    };
    page.gauge("billing_workers", "Worker processes of this host.", workers);
    each("billing_backend_up", "1 while every worker has a connection.",
         [workers](const Backend& backend) { return std::uint64_t{backend.connected == workers && workers > 0}; });
    each("billing_backend_connected_workers", "Workers that have a connection.",
         [](const Backend& backend) { return backend.connected; });
    each("billing_backend_pending_requests", "What was asked and is not answered yet.",
         [](const Backend& backend) { return backend.pending; });
}

void add_queues(Page& page, const QueueDepths& queues) {
    const auto depth = [](std::int64_t number) { return static_cast<std::uint64_t>(number); };
    page.family("billing_webhook_backlog", "gauge", "Events in PostgreSQL that are not done, by status.");
    page.sample(label("status", "received"), depth(queues.received));
    page.sample(label("status", "processing"), depth(queues.processing));
    page.sample(label("status", "parked"), depth(queues.parked));
    page.sample(label("status", "dead"), depth(queues.dead));
    page.gauge("billing_webhook_oldest_unprocessed_seconds", "Since the event came that is next in line.",
               depth(queues.oldest_event_s));
    page.gauge("billing_dirty_accounts", "Accounts whose last change is not published yet.", depth(queues.dirty));
    page.gauge("billing_outbox_pending", "Notices in the outbox that are not delivered.", depth(queues.outbox));
}

} // namespace

std::string metrics_text(const HostMetrics& host) {
    Page page;
    add_decisions(page, host);
    add_zone(page, host);
    add_stripe(page, host);
    add_backends(page, host);
    if (host.queues) {
        add_queues(page, *host.queues);
    }
    page.family("billing_build_info", "gauge", "Which module in which nginx; always 1.");
    page.sample(label("version", k_version) + "," + label("nginx", host.nginx), "1");
    return page.take();
}

} // namespace billing
