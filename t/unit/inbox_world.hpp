// What the tests of the inbox share: a migrated database of their own with a catalog, Stripe's side told by path, and
// the job between them. The pool is that of a role which may do no more than the jobs.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "async/signal.hpp"
#include "drivers/postgres.hpp"
#include "drivers/stripe_api.hpp"
#include "http_server.hpp"
#include "jobs/inbox.hpp"
#include "loop.hpp"
#include "servers.hpp"
#include "state/event_queue.hpp"
#include "state/event_writer.hpp"

namespace billing::test {

// A connection for the test's own questions.
class Sql {
public:
    explicit Sql(std::string conninfo) : conninfo_(std::move(conninfo)) {}
    Sql(const Sql&) = delete;
    Sql& operator=(const Sql&) = delete;
    ~Sql() { close(); }
    // The next question opens it again.
    void close() { PQfinish(std::exchange(connection_, nullptr)); }

    // The first value of the last statement, or "".
    std::string ask(const std::string& statements) {
        if (!connection_ || PQstatus(connection_) != CONNECTION_OK) {
            close();
            connection_ = PQconnectdb(conninfo_.c_str());
            PQsetNoticeProcessor(
                connection_, [](void*, const char*) {}, nullptr);
        }
        PGresult* const result = PQexec(connection_, statements.c_str());
        const auto status = PQresultStatus(result);
        EXPECT_TRUE(status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK) << PQerrorMessage(connection_);
        std::string value = PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "";
        PQclear(result);
        return value;
    }

private:
    std::string conninfo_;
    PGconn* connection_ = nullptr;
};

constexpr const char* k_catalog = R"({"default_plan":"free","credits":{"logo":{}},"plans":{
    "free":{"free":true,"credits":{"logo":4}},
    "starter":{"rank":1,"price":{"month":{"id":"price_starter","amount":2900,"currency":"usd"}},"credits":{"logo":20}},
    "pro":{"rank":2,"price":{"month":{"id":"price_pro","amount":7900,"currency":"usd"}},"credits":{"logo":50}}},
    "packs":{"logo_10":{"credit":"logo","quantity":10,"price":{"id":"price_pack","amount":1000,"currency":"usd"}}}})";

inline std::string text_of(const std::filesystem::path& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

// Databases are copied from one that has been migrated once.
inline std::string fresh_database(const PostgresServer& server) {
    static int count = 0;
    Sql maintenance(server.conninfo());
    if (count == 0) {
        maintenance.ask("CREATE DATABASE inbox_template");
        Sql sql(server.conninfo() + " dbname=inbox_template");
        std::vector<std::filesystem::path> files;
        for (const auto& entry : std::filesystem::directory_iterator(BILLING_MIGRATIONS))
            files.push_back(entry.path());
        std::sort(files.begin(), files.end());
        sql.ask("CREATE SCHEMA billing");
        for (const auto& file : files)
            sql.ask(text_of(file));
        sql.ask("SELECT billing.catalog_apply('" + std::string(k_catalog) + "'::jsonb)");
        sql.ask("CREATE ROLE inbox_worker LOGIN IN ROLE billing_gate, billing_jobs");
    }
    const std::string name = "inbox_" + std::to_string(++count);
    maintenance.ask("CREATE DATABASE " + name + " TEMPLATE inbox_template");
    return name;
}

struct InboxWorld : LoopTest {
    InboxWorld()
        : server(PostgresServer::shared()), database(fresh_database(server)),
          sql(server.conninfo() + " dbname=" + database),
          conninfo(server.conninfo() + " user=inbox_worker dbname=" + database) {
        PgConfig config;
        config.conninfo = conninfo;
        config.connections = 1;
        config.timeout_ms = 10000;
        config.tells_outages = false;
        postgres = std::make_unique<Postgres>(reactor, config);
        postgres->start();
        events = std::make_unique<EventWriter>(*scope, *postgres);
        queue = std::make_unique<EventQueue>(reactor, *postgres);
        StripeConfig stripe_config;
        stripe_config.base_url = stripe.url();
        stripe_config.key = "sk_test_topsecret";
        stripe_config.pause_ms = 1;
        api = std::make_unique<StripeApi>(reactor, stripe_config);
    }
    void close() override {
        scope->cancel();
        inbox.reset();
        events.reset();
        queue.reset();
        api.reset();
        postgres.reset();
    }

    // The job begins.
    void work(InboxSettings settings = {}) {
        inbox = std::make_unique<Inbox>(reactor, *postgres, *api, wake, std::move(settings));
        scope->spawn(inbox->run());
    }

    // What Stripe says to a path with its query: the longest beginning that has been told counts.
    struct Answer {
        int status = 200;
        std::string body;
        bool gate = false; // only once the gate is open
    };
    void stripe_says(const std::string& target, const std::string& body, int status = 200, bool gate = false) {
        const std::lock_guard lock(mutex);
        answers[target] = Answer{status, body, gate};
    }
    bool answer(HttpPeer& peer, const HttpAsk& ask) {
        Answer found{404, "{}", false};
        {
            const std::lock_guard lock(mutex);
            std::size_t longest = 0;
            for (const auto& [target, known] : answers)
                if (ask.target.starts_with(target) && target.size() >= longest) {
                    longest = target.size();
                    found = known;
                }
        }
        if (found.gate)
            stripe.gate();
        return peer.answer(found.status, found.body, "Request-Id: req_7\r\n");
    }
    static std::string list_of(const std::string& customer) { return "/v1/subscriptions?customer=" + customer + "&"; }
    static std::string page(const std::string& elements, bool more = false) {
        return R"({"object":"list","has_more":)" + std::string(more ? "true" : "false") + R"(,"data":[)" + elements +
               "]}";
    }
    static std::string subscription(const std::string& id, const std::string& price = "price_starter",
                                    const std::string& status = "active") {
        return R"({"id":")" + id + R"(","object":"subscription","customer":"cus_of_)" + id + R"(","status":")" +
               status + R"(","created":1800000000,"items":{"data":[{"id":"si_1","quantity":1,"price":{"id":")" + price +
               R"("},"current_period_start":1800000000,"current_period_end":1802592000}]}})";
    }

    // An account with a customer of Stripe.
    void account(const std::string& name, const std::string& customer = {}) {
        sql.ask("SELECT billing.ensure_accounts(ARRAY['" + name + "'])");
        if (!customer.empty())
            link(name, customer);
    }
    void link(const std::string& name, const std::string& customer) {
        sql.ask("SELECT billing.customer_link('" + name + "', '" + customer + "')");
    }
    std::string plan_of(const std::string& name) {
        return sql.ask("SELECT plan_key || ' ' || a.status || ' ' || maintenance FROM billing.accounts a "
                       "JOIN billing.plans USING (plan_no) WHERE external_id = '" +
                       name + "'");
    }
    std::string credits_of(const std::string& name) {
        return sql.ask("SELECT remaining FROM billing.credit_balances b JOIN billing.accounts a ON a.id = b.account_id "
                       "WHERE external_id = '" +
                       name + "'");
    }

    // Stored as the webhook endpoint does it; the job is woken as PostgreSQL's notification would do it.
    Stored put(const std::string& id, const std::string& type, const std::string& customer,
               const std::string& payload) {
        NewEvent event;
        event.id = id;
        event.type = type;
        event.customer = customer;
        event.livemode = false;
        event.created = 1800000000;
        const Stored stored = await(events->store(event, payload));
        wake.set();
        return stored;
    }
    static std::string payload(const std::string& id, const std::string& type, const std::string& object) {
        return R"({"id":")" + id + R"(","object":"event","type":")" + type + R"(","data":{"object":)" + object + "}}";
    }
    // "Look again at this customer's subscriptions."
    void changed(const std::string& id, const std::string& customer) {
        const std::string type = "customer.subscription.updated";
        EXPECT_EQ(put(id, type, customer,
                      payload(id, type, R"({"id":"sub_1","object":"subscription","customer":")" + customer + R"("})")),
                  Stored::stored);
    }
    // status/failures/waits/attempts
    std::string state_of(const std::string& event) {
        return sql.ask("SELECT concat_ws('/', status, failures, waits, attempts) FROM billing.webhook_events "
                       "WHERE event_id = '" +
                       event + "'");
    }
    std::string error_of(const std::string& event) {
        return sql.ask("SELECT last_error FROM billing.webhook_events WHERE event_id = '" + event + "'");
    }
    bool becomes(const std::string& event, const std::string& state) {
        const bool reached = until([&] { return state_of(event) == state; });
        EXPECT_TRUE(reached) << event << " is " << state_of(event) << ", " << error_of(event);
        return reached && until([&] { return inbox->idle(); });
    }
    // The back-off is over.
    void due(const std::string& event) {
        sql.ask("UPDATE billing.webhook_events SET next_attempt_at = now() WHERE event_id = '" + event + "'");
        wake.set();
    }

    PostgresServer& server;
    std::string database;
    Sql sql;
    std::string conninfo;
    std::mutex mutex;
    std::map<std::string, Answer> answers;
    HttpServer stripe{[this](HttpPeer& peer, const HttpAsk& ask) { return answer(peer, ask); }};
    Signal wake{reactor};
    std::unique_ptr<Postgres> postgres;
    std::unique_ptr<EventWriter> events;
    std::unique_ptr<EventQueue> queue;
    std::unique_ptr<StripeApi> api;
    std::unique_ptr<Inbox> inbox;
};

} // namespace billing::test
