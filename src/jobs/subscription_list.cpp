#include "jobs/subscription_list.hpp"

#include "stripe/effect.hpp"
#include "stripe/objects.hpp"

#include <utility>
#include <vector>

namespace billing {

namespace {

Task<void> read_subscriptions(StripeReader& reader, std::string customer, std::vector<StripeSubscription>& found) {
    Form query;
    query.add("customer", customer).add("status", "all");
    StripeReader::Keep keep = [&found](const json_t* element) -> Result<Done> {
        auto read = read_subscription(element);
        if (!read) {
            return Error{read.error()};
        }
        found.push_back(std::move(read).value());
        return Done{};
    };
    co_await reader.read_pages("/v1/subscriptions", std::move(query), std::move(keep));
}

// All of them anew: nobody says that the two lists have one order.
Task<void> read_items(StripeReader& reader, StripeSubscription& subscription) {
    Form query;
    query.add("subscription", subscription.id);
    std::vector<StripeSubscriptionItem> items;
    StripeReader::Keep keep = [&items](const json_t* element) -> Result<Done> {
        items.push_back(read_subscription_item(element));
        return Done{};
    };
    co_await reader.read_pages("/v1/subscription_items", std::move(query), std::move(keep));
    subscription.items = std::move(items);
}

} // namespace

Task<SubscriptionList> list_subscriptions(Reactor& reactor, StripeApi& stripe, std::string customer) {
    StripeReader reader{reactor, stripe};
    std::vector<StripeSubscription> found;
    co_await read_subscriptions(reader, std::move(customer), found);
    for (StripeSubscription& one : found) {
        if (one.more_items) {
            co_await read_items(reader, one);
        }
    }
    const Json all{json_array()};
    for (const StripeSubscription& one : found) {
        json_array_append_new(all.get(), subscription_facts(one).release());
    }
    co_return std::move(reader).finish(dump_json(all.get()));
}

} // namespace billing
