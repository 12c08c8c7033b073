#include "state/event_writer.hpp"

#include <optional>
#include <utility>

namespace billing {

namespace {

constexpr std::size_t k_batch = 64; // of half a megabyte each, at the most
constexpr std::size_t k_max_waiters = 512;
constexpr std::size_t k_rounds = 1;       // two would be two commits, one after the other on their connection
constexpr std::int64_t k_store_ms = 4000; // Stripe waits for it

constexpr std::string_view k_store =
    "SELECT fresh FROM billing.stripe_events_store($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[], "
    "$6::bigint[], $7::text[], $8::text[], $9::integer[], $10) ORDER BY n";

using Column = std::vector<std::optional<std::string>>;

// Where there is none, PostgreSQL is told NULL.
std::optional<std::string> some(const std::string& text) {
    return text.empty() ? std::nullopt : std::optional<std::string>(text);
}

// The arrays of one call, a row for each event.
struct StoreRows {
    Column accounts, ids, types, api_versions, livemodes, created, customers, ignored;
    std::vector<std::int32_t> sizes;
    std::string payloads; // one after the other: as an array they would have to be escaped

    void add(const NewEvent& event, const std::string& payload) {
        accounts.emplace_back(event.stripe_account);
        ids.emplace_back(event.id);
        types.emplace_back(event.type);
        api_versions.push_back(some(event.api_version));
        livemodes.push_back(event.livemode ? std::optional<std::string>(*event.livemode ? "t" : "f") : std::nullopt);
        created.push_back(event.created ? std::optional<std::string>(std::to_string(*event.created)) : std::nullopt);
        customers.push_back(some(event.customer));
        ignored.push_back(some(event.ignored));
        sizes.push_back(static_cast<std::int32_t>(payload.size()));
        payloads += payload;
    }

    PgParams parameters() const {
        PgParams parameters{accounts, ids, types, api_versions, livemodes, created, customers, ignored, sizes};
        parameters.add_bytes(payloads);
        return parameters;
    }
};

// Something in one of the events: data that no column takes.
bool of_an_event(const PgResult& result) noexcept {
    return result.outcome() == PgOutcome::refused &&
           (result.sqlstate().starts_with("22") || result.sqlstate().starts_with("23"));
}

} // namespace

EventWriter::EventWriter(Scope& scope, Postgres& postgres)
    : postgres_(postgres), trouble_(scope.reactor()),
      batch_(
          scope, [this](std::vector<Ask> asks) { return run(std::move(asks)); }, k_batch, k_max_waiters, k_rounds) {}

Task<Stored> EventWriter::store(NewEvent event, std::string_view payload) {
    Ask ask{std::move(event), std::string(payload)};
    return join(std::move(ask));
}

Task<Stored> EventWriter::join(Ask ask) {
    std::optional<Stored> stored = co_await batch_.join(std::move(ask));
    co_return stored.value_or(Stored::failed);
}

Task<std::vector<Stored>> EventWriter::run(std::vector<Ask> asks) {
    StoreRows rows;
    for (const Ask& ask : asks) {
        rows.add(ask.event, ask.payload);
    }
    PgResult result = co_await postgres_.query(k_store, rows.parameters(), k_store_ms);
    if (of_an_event(result) && asks.size() > 1) {
        co_return co_await run_each(std::move(asks));
    }
    std::vector<Stored> answers;
    if (result) {
        trouble_.settled();
        for (int row = 0; row < result.rows(); ++row) {
            answers.push_back(result.boolean(row, 0) ? Stored::stored : Stored::duplicate);
        }
    } else if (result.outcome() == PgOutcome::refused) {
        trouble_.say("PostgreSQL refuses to store Stripe's events: " + result.message() +
                     "; has ngx-billing migrate been run?");
    }
    co_return answers;
}

// What is wrong with one event is nothing to the others.
Task<std::vector<Stored>> EventWriter::run_each(std::vector<Ask> asks) {
    std::vector<Stored> answers;
    for (Ask& ask : asks) {
        std::vector<Ask> alone;
        alone.push_back(std::move(ask));
        std::vector<Stored> answer = co_await run(std::move(alone));
        answers.push_back(answer.empty() ? Stored::failed : answer.front());
    }
    co_return answers;
}

} // namespace billing
