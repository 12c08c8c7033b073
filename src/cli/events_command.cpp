// ngx-billing events list|show|replay. What an event carries is personal, so it is printed only for who asks for it.
#include "cli/command.hpp"
#include "cli/output.hpp"
#include "domain/json.hpp"
#include "stripe/event.hpp"

#include <cstdlib>
#include <fmt/format.h>

namespace billing {

namespace {

void print_event(const json_t* event) {
    const std::string account = text_of(event, "account");
    const std::string trouble = text_of(event, "trouble");
    fmt::print("{}  {:<10}  {}  {}{}{}\n", text_of(event, "received_at"), text_of(event, "status"),
               text_of(event, "id"), text_of(event, "type"), account.empty() ? "" : "  account " + account,
               trouble.empty() ? "" : "  (" + trouble + ")");
}

Task<int> list(Postgres& postgres, EventFilter wanted, bool json) {
    PgParams parameters{given(wanted.status), given(wanted.account), given(since_time(wanted.since)), wanted.most};
    PgResult result =
        co_await postgres.query("SELECT billing.events_list($1, $2, $3::timestamptz, $4)", std::move(parameters));
    if (!result) {
        co_return explain_failure(result);
    }
    if (result.is_null(0, 0)) {
        co_return fail(k_exit_failed, "no account \"" + wanted.account + "\"");
    }
    const auto answer = parse_json(result.text(0, 0));
    if (json || !answer) {
        fmt::print("{}\n", result.text(0, 0));
        co_return k_exit_ok;
    }
    for (std::size_t index = 0; index < json_array_size(answer.value().get()); ++index) {
        print_event(json_array_get(answer.value().get(), index));
    }
    co_return k_exit_ok;
}

// As JSON in ASCII, so that nothing in it is a command to a terminal; null where it cannot be read.
Json payload_of(const PgResult& result) {
    auto payload = parse_payload(result.bytes(0, 1));
    return payload ? std::move(payload).value() : Json{json_null()};
}

void print_payload(const json_t* payload) {
    const std::unique_ptr<char, decltype(&std::free)> text{
        json_dumps(payload, JSON_INDENT(2) | JSON_ENSURE_ASCII | JSON_ENCODE_ANY), &std::free};
    fmt::print("payload: {}\n", text ? text.get() : "");
}

Task<int> show(Postgres& postgres, std::string event, bool payload, bool json) {
    PgParams parameters{event, payload};
    PgResult result =
        co_await postgres.query("SELECT head, payload FROM billing.event_show($1, $2)", std::move(parameters));
    if (!result) {
        co_return explain_failure(result);
    }
    auto head = parse_json(result.text(0, 0));
    if (result.rows() == 0 || !head) {
        co_return fail(k_exit_failed, "no event \"" + event + "\"; ngx-billing events list shows them");
    }
    if (json && payload) {
        json_object_set_new(head.value().get(), "payload", payload_of(result).release());
    }
    if (json) {
        fmt::print("{}\n", dump_json(head.value().get()));
        co_return k_exit_ok;
    }
    print_tree(head.value().get());
    if (payload) {
        print_payload(payload_of(result).get());
    }
    co_return k_exit_ok;
}

// The ids of one group of the answer, each as a line.
std::size_t tell(const json_t* answer, const char* group, const char* what) {
    const json_t* const ids = json_object_get(answer, group);
    for (std::size_t index = 0; index < json_array_size(ids); ++index) {
        fmt::print("{}  {}\n", json_string_value(json_array_get(ids, index)), what);
    }
    return json_array_size(ids);
}

Task<int> replay(Postgres& postgres, std::vector<std::string> events, std::string since, bool json) {
    PgParams parameters;
    if (events.empty()) {
        parameters.add(nullptr);
    } else {
        parameters.add(events);
    }
    parameters.add(given(since_time(since))).add(actor());
    PgResult result =
        co_await postgres.query("SELECT billing.events_replay($1::text[], $2::timestamptz, $3)", std::move(parameters));
    if (!result) {
        co_return explain_failure(result);
    }
    const auto answer = parse_json(result.text(0, 0));
    if (!answer) {
        co_return fail(k_exit_failed, "PostgreSQL's answer cannot be read");
    }
    const json_t* const told = answer.value().get();
    if (json) {
        fmt::print("{}\n", result.text(0, 0));
    } else {
        tell(told, "replayed", "to be processed again");
        tell(told, "busy", "is being processed at this moment");
        tell(told, "purged", "is known, but what it carried is kept no longer (billing_keep_payloads)");
    }
    const json_t* const unknown = json_object_get(told, "unknown");
    for (std::size_t index = 0; index < json_array_size(unknown); ++index) {
        fail(k_exit_failed, std::string{"no event \""} + json_string_value(json_array_get(unknown, index)) + "\"");
    }
    const bool all = json_array_size(unknown) == 0 && json_array_size(json_object_get(told, "busy")) == 0 &&
                     json_array_size(json_object_get(told, "purged")) == 0;
    co_return all ? k_exit_ok : k_exit_failed;
}

} // namespace

int events_list(const CommandOptions& options, const EventFilter& wanted) {
    return with_postgres(options, [&](Postgres& postgres) { return list(postgres, wanted, options.json); });
}

int events_show(const CommandOptions& options, const std::string& event, bool payload) {
    return with_postgres(options, [&](Postgres& postgres) { return show(postgres, event, payload, options.json); });
}

int events_replay(const CommandOptions& options, const std::vector<std::string>& events, bool dead,
                  const std::string& since) {
    if (events.empty() == !dead) {
        return fail(k_exit_usage, "name events to replay, or write --dead for all that were given up");
    }
    return with_postgres(options, [&](Postgres& postgres) { return replay(postgres, events, since, options.json); });
}

} // namespace billing
