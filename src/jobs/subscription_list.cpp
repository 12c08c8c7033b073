#include "jobs/subscription_list.hpp"

#include "stripe/effect.hpp"
#include "stripe/objects.hpp"

#include <functional>
#include <utility>
#include <vector>

namespace billing {

namespace {

using Outcome = SubscriptionList::Outcome;

constexpr int k_most_pages = 50;
constexpr int k_page_size = 100;
constexpr std::int64_t k_look_ms = 25'000;

class Look {
public:
    Look(Reactor& reactor, StripeApi& stripe)
        : reactor_(reactor), stripe_(stripe), end_ms_(reactor.now_ms() + k_look_ms) {}

    Task<SubscriptionList> run(std::string customer) {
        co_await read_subscriptions(std::move(customer));
        for (StripeSubscription& one : found_) {
            if (one.more_items) {
                co_await read_items(one);
            }
        }
        if (list_.outcome == Outcome::ok) {
            const Json all{json_array()};
            for (const StripeSubscription& one : found_) {
                json_array_append_new(all.get(), subscription_facts(one).release());
            }
            list_.json = dump_json(all.get());
        }
        co_return std::move(list_);
    }

private:
    using Keep = std::function<Result<Done>(const json_t* element)>;

    Task<void> read_subscriptions(std::string customer) {
        Form query;
        query.add("customer", customer).add("status", "all").add("limit", k_page_size);
        Keep keep = [this](const json_t* element) -> Result<Done> {
            auto read = read_subscription(element);
            if (!read) {
                return Error{read.error()};
            }
            found_.push_back(std::move(read).value());
            return Done{};
        };
        co_await read_pages("/v1/subscriptions", std::move(query), std::move(keep));
    }

    // All of them anew: nobody says that the two lists have one order.
    Task<void> read_items(StripeSubscription& subscription) {
        Form query;
        query.add("subscription", subscription.id).add("limit", k_page_size);
        std::vector<StripeSubscriptionItem> items;
        Keep keep = [&items](const json_t* element) -> Result<Done> {
            items.push_back(read_subscription_item(element));
            return Done{};
        };
        co_await read_pages("/v1/subscription_items", std::move(query), std::move(keep));
        subscription.items = std::move(items);
    }

    // Does nothing once something has failed.
    Task<void> read_pages(std::string path, Form query, Keep keep) {
        std::string after;
        for (int page = 0; list_.outcome == Outcome::ok; ++page) {
            if (page == k_most_pages) {
                stop(Outcome::failed, path + " has more than " + std::to_string(k_most_pages) + " pages");
                break;
            }
            if (reactor_.now_ms() >= end_ms_) {
                stop(Outcome::later, "Stripe was too slow");
                break;
            }
            Form asked = query;
            if (!after.empty()) {
                asked.add("starting_after", after);
            }
            StripeReply reply = co_await stripe_.get(path, std::move(asked));
            after = read_page_of(reply, keep);
            if (after.empty()) {
                break;
            }
        }
    }

    // After which element the next page begins; "": there is none, or something has failed.
    std::string read_page_of(const StripeReply& reply, const Keep& keep) {
        if (!reply) {
            refused(reply);
            return {};
        }
        auto read = read_page(reply.json.get());
        if (!read) {
            stop(Outcome::failed, "Stripe's answer cannot be read: " + read.error());
            return {};
        }
        for (const json_t* element : read.value().data) {
            const auto kept = keep(element);
            if (!kept) {
                stop(Outcome::failed, "Stripe's answer cannot be read: " + kept.error());
                return {};
            }
        }
        return read.value().more ? read.value().last_id : std::string();
    }

    void refused(const StripeReply& reply) {
        if (reply.refusal == Refusal::missing_customer && found_.empty()) {
            list_.missing = true;
            return;
        }
        Outcome outcome = Outcome::failed;
        if (reply.kind == ReplyKind::later) {
            outcome = Outcome::later;
        } else if (reply.refusal == Refusal::credentials) {
            outcome = Outcome::credentials;
        }
        stop(outcome, "Stripe: " + reply.log_text());
    }

    void stop(Outcome outcome, std::string problem) {
        list_.outcome = outcome;
        list_.problem = std::move(problem);
    }

    Reactor& reactor_;
    StripeApi& stripe_;
    std::int64_t end_ms_;
    SubscriptionList list_;
    std::vector<StripeSubscription> found_;
};

} // namespace

Task<SubscriptionList> list_subscriptions(Reactor& reactor, StripeApi& stripe, std::string customer) {
    Look look{reactor, stripe};
    SubscriptionList list = co_await look.run(std::move(customer));
    co_return list;
}

} // namespace billing
