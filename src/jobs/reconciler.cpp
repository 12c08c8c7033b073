#include "jobs/reconciler.hpp"

#include "stripe/effect.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace billing {

namespace {

constexpr std::size_t k_types_at_once = 20; // as many as Stripe takes
constexpr std::int64_t k_most_missing = 10;
constexpr std::int64_t k_for_ever = std::numeric_limits<std::int32_t>::max();

template <class T>
Trouble trouble_of(const Asked<T>& answer) {
    const bool refused = answer.outcome == Asked<T>::Outcome::refused;
    return {refused ? Trouble::Kind::refused : Trouble::Kind::later, answer.problem};
}

std::vector<std::string> ids_of(const StripePage& page) {
    std::vector<std::string> ids;
    for (const json_t* element : page.data) {
        ids.emplace_back(text_member(element, "id").value_or(""));
    }
    return ids;
}

// What of a page of subscriptions is compared, and since when they were created.
struct Facts {
    std::string json;
    std::int64_t from = 0;
};

Facts facts_of(const StripePage& page, std::int64_t before) {
    const Json all{json_array()};
    Facts facts;
    facts.from = before;
    for (const json_t* element : page.data) {
        const auto read = read_subscription(element);
        if (read) {
            json_array_append_new(all.get(), subscription_facts(read.value()).release());
            facts.from = std::min(facts.from, read.value().created.value_or(0));
        }
    }
    facts.json = dump_json(all.get());
    facts.from = page.more ? facts.from : 0;
    return facts;
}

} // namespace

Reconciler::Reconciler(Reactor& reactor, Postgres& postgres, StripeApi& stripe, bool livemode, LookSettings settings,
                       Listener listener)
    : scope_(reactor), events_(scope_, postgres), store_(postgres), look_(reactor, postgres, stripe, settings),
      reactor_(reactor), stripe_(stripe), livemode_(livemode), dry_(settings.dry), listener_(std::move(listener)) {}

Reconciler::~Reconciler() { scope_.cancel(); }

// A look may take half a minute, and a page has many: whoever makes the pass says before each that it is still at it.
Task<Trouble> Reconciler::hold() {
    Trouble lost;
    if (listener_.go_on) {
        const bool held = co_await listener_.go_on();
        if (!held) {
            lost = {Trouble::Kind::later, "another host has taken the pass over"};
        }
    }
    co_return lost;
}

Task<Trouble> Reconciler::missed_events(std::int64_t since) {
    const std::vector<std::string_view> all = handled_types();
    Trouble trouble;
    for (std::size_t first = 0; first < all.size() && !trouble; first += k_types_at_once) {
        const auto begin = all.begin() + static_cast<std::ptrdiff_t>(first);
        const auto count = std::min(k_types_at_once, all.size() - first);
        std::vector<std::string_view> some(begin, begin + static_cast<std::ptrdiff_t>(count));
        trouble = co_await events_of_types(std::move(some), since);
    }
    co_return trouble;
}

Task<Trouble> Reconciler::events_of_types(std::vector<std::string_view> types, std::int64_t since) {
    Form query;
    query.add("created[gte]", since);
    for (std::size_t index = 0; index < types.size(); ++index) {
        query.add("types[" + std::to_string(index) + "]", types[index]);
    }
    StripeList events{reactor_, stripe_, "/v1/events", std::move(query), listener_.pace};
    for (;;) {
        Trouble lost = co_await hold();
        if (lost) {
            co_return lost;
        }
        const bool more = co_await events.next();
        if (!more) {
            break;
        }
        Trouble trouble = co_await store_unknown(events.page());
        if (trouble) {
            co_return trouble;
        }
    }
    co_return events.trouble();
}

Task<Trouble> Reconciler::store_unknown(const StripePage& page) {
    counts_.events += static_cast<std::int64_t>(page.data.size());
    const std::vector<std::string> ids = ids_of(page);
    Asked<std::set<std::string>> unknown = co_await store_.unknown_events(ids);
    if (!unknown) {
        co_return trouble_of(unknown);
    }
    for (const json_t* element : page.data) {
        const EventHead head = event_head(element);
        if (head.kind != EventKind::snapshot || !unknown.value.contains(head.id)) {
            continue;
        }
        const NewEvent event = new_event(head, livemode_);
        if (!dry_) {
            Trouble lost = co_await hold();
            if (lost) {
                co_return lost;
            }
            Stored stored = co_await events_.store(event, dump_json(element));
            if (stored == Stored::failed) {
                co_return Trouble{Trouble::Kind::later, "PostgreSQL did not store event " + head.id};
            }
            if (stored == Stored::duplicate) {
                continue; // it has come this very moment
            }
        }
        ++counts_.missed;
        if (listener_.missed) {
            listener_.missed(event);
        }
    }
    co_return Trouble{};
}

Task<Trouble> Reconciler::all_subscriptions() {
    Form query;
    query.add("status", "all");
    StripeList subscriptions{reactor_, stripe_, "/v1/subscriptions", std::move(query), listener_.pace};
    std::int64_t before = k_for_ever;
    for (;;) {
        Trouble lost = co_await hold();
        if (lost) {
            co_return lost;
        }
        const bool more = co_await subscriptions.next();
        if (!more) {
            break;
        }
        const Facts facts = facts_of(subscriptions.page(), before);
        Asked<Suspects> suspects = co_await store_.suspects(facts.json, facts.from, before);
        if (!suspects) {
            co_return trouble_of(suspects);
        }
        before = facts.from;
        counts_.unlinked += suspects.value.unlinked;
        for (LinkedCustomer& whose : suspects.value.accounts) {
            Trouble trouble = co_await hold();
            if (!trouble) {
                trouble = co_await one_account(std::move(whose));
            }
            if (trouble) {
                co_return trouble;
            }
        }
    }
    co_return subscriptions.trouble();
}

Task<Trouble> Reconciler::one_account(LinkedCustomer whose) {
    Looked looked = co_await look_.run(whose);
    ++counts_.looked;
    missing_ = looked.outcome == Looked::Outcome::missing ? missing_ + 1 : 0;
    switch (looked.outcome) {
    case Looked::Outcome::ok:
        if (true_member(looked.answer.get(), "changed")) {
            ++counts_.drifted;
            if (listener_.drifted) {
                listener_.drifted(looked.answer.get());
            }
        }
        co_return Trouble{};
    case Looked::Outcome::later:
        co_return Trouble{Trouble::Kind::later, looked.problem};
    case Looked::Outcome::refused:
        co_return Trouble{Trouble::Kind::refused, looked.problem};
    case Looked::Outcome::missing:
    case Looked::Outcome::failed:
        break;
    }
    ++counts_.failed;
    if (listener_.failed) {
        listener_.failed(whose, looked.problem);
    }
    if (missing_ < k_most_missing) {
        co_return Trouble{};
    }
    co_return Trouble{Trouble::Kind::refused, "Stripe knows none of the last customers: is the key another account's?"};
}

} // namespace billing
