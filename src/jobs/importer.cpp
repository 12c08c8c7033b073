#include "jobs/importer.hpp"

#include "stripe/objects.hpp"

#include <utility>

namespace billing {

namespace {

bool gives_a_plan(const StripeSubscription& subscription) {
    return subscription.status == "active" || subscription.status == "trialing" || subscription.status == "past_due";
}

std::string text(const json_t* object, const char* key) { return std::string{text_member(object, key).value_or("")}; }

} // namespace

Importer::Importer(Reactor& reactor, Postgres& postgres, StripeApi& stripe, ImportMatch match, LookSettings settings,
                   Listener listener)
    : reactor_(reactor), stripe_(stripe), match_(std::move(match)), actor_(settings.actor), dry_(settings.dry),
      listener_(std::move(listener)), store_(postgres), look_(reactor, postgres, stripe, settings) {}

Task<Trouble> Importer::run() {
    Trouble trouble = co_await subscribers();
    if (!trouble) {
        trouble = co_await everybody_else();
    }
    co_return trouble;
}

Task<Trouble> Importer::subscribers() {
    Form query; // without a status: all that are not canceled
    query.add("expand[0]", "data.customer");
    StripeList subscriptions{reactor_, stripe_, "/v1/subscriptions", std::move(query), ListPace{}};
    for (;;) {
        const bool more = co_await subscriptions.next();
        if (!more) {
            co_return subscriptions.trouble();
        }
        for (const json_t* element : subscriptions.page().data) {
            auto subscription = read_subscription(element);
            auto customer = read_customer(json_object_get(element, "customer"));
            if (!subscription || !customer || customer.value().deleted || !seen_.insert(customer.value().id).second) {
                continue;
            }
            Trouble trouble = co_await import_one(std::move(customer).value(), std::move(subscription).value());
            if (trouble) {
                co_return trouble;
            }
        }
    }
}

Task<Trouble> Importer::everybody_else() {
    Form query;
    StripeList customers{reactor_, stripe_, "/v1/customers", std::move(query), ListPace{}};
    for (;;) {
        const bool more = co_await customers.next();
        if (!more) {
            co_return customers.trouble();
        }
        for (const json_t* element : customers.page().data) {
            auto customer = read_customer(element);
            if (!customer || !seen_.insert(customer.value().id).second) {
                continue;
            }
            StripeSubscription none;
            Trouble trouble = co_await import_one(std::move(customer).value(), std::move(none));
            if (trouble) {
                co_return trouble;
            }
        }
    }
}

std::string Importer::account_of(const StripeCustomer& customer, const StripeSubscription& subscription) const {
    if (match_.by == ImportMatch::By::list) {
        const auto found = match_.accounts.find(customer.id);
        return found == match_.accounts.end() ? "" : found->second;
    }
    if (match_.by == ImportMatch::By::email) {
        return {};
    }
    const std::string_view named = customer.metadata.find(match_.key);
    return std::string{named.empty() ? subscription.metadata.find(match_.key) : named};
}

Task<Trouble> Importer::import_one(StripeCustomer customer, StripeSubscription subscription) {
    ImportedCustomer one;
    one.customer = customer.id;
    one.pays = gives_a_plan(subscription);
    CustomerToImport wanted;
    wanted.customer = customer.id;
    wanted.account = account_of(customer, subscription);
    wanted.email = customer.email;
    wanted.name = customer.name;
    wanted.livemode = customer.livemode;
    wanted.actor = actor_;
    wanted.dry = dry_;
    const bool nameless = match_.by == ImportMatch::By::email ? wanted.email.empty() : wanted.account.empty();
    if (nameless) {
        ++counts_.nameless;
        wanted.account.clear();
        wanted.email.clear();
    }
    Asked<Json> answer = co_await store_.import_customer(wanted);
    if (answer.outcome == Asked<Json>::Outcome::unanswered) {
        co_return Trouble{Trouble::Kind::later, answer.problem};
    }
    one.outcome = answer ? text(answer.value.get(), "outcome") : "failed";
    one.problem = answer ? text(answer.value.get(), "customer") : answer.problem;
    one.account = text(answer.value.get(), "account");
    one.created = true_member(answer.value.get(), "created");
    const bool linked = one.outcome == "linked" || one.outcome == "already" || one.outcome == "elsewhere";
    if (linked && !subscription.id.empty()) {
        Trouble trouble = co_await look_at(one);
        if (trouble) {
            co_return trouble;
        }
    }
    conclude(one);
    co_return Trouble{};
}

Task<Trouble> Importer::look_at(ImportedCustomer& one) {
    LinkedCustomer whose{one.account, one.customer};
    Looked looked = co_await look_.run(std::move(whose));
    if (looked.outcome == Looked::Outcome::later || looked.outcome == Looked::Outcome::refused) {
        const bool later = looked.outcome == Looked::Outcome::later;
        co_return Trouble{later ? Trouble::Kind::later : Trouble::Kind::refused, looked.problem};
    }
    if (looked.outcome != Looked::Outcome::ok) {
        one.outcome = "failed";
        one.problem = looked.problem;
    }
    one.unplanned = true_member(looked.answer.get(), "unplanned");
    one.answer = std::move(looked.answer);
    co_return Trouble{};
}

void Importer::conclude(const ImportedCustomer& one) {
    const bool linked = one.outcome == "linked" || one.outcome == "already" || one.outcome == "elsewhere";
    ++counts_.customers;
    counts_.linked += one.outcome == "linked" ? 1 : 0;
    counts_.created += one.created ? 1 : 0;
    counts_.changed += true_member(one.answer.get(), "changed") ? 1 : 0;
    counts_.unmatched += !linked && !one.pays ? 1 : 0;
    counts_.left += (!linked && one.pays) || one.unplanned ? 1 : 0;
    listener_(one);
}

} // namespace billing
