// ngx-billing reconcile
#include "cli/command.hpp"
#include "cli/output.hpp"
#include "cli/passes.hpp"
#include "domain/json.hpp"
#include "domain/period.hpp"
#include "jobs/reconciler.hpp"

#include <fmt/format.h>

namespace billing {

namespace {

// What was found, for standard output: lines as they come, or one JSON object at the end.
class Report {
public:
    Report(bool json, bool dry) : json_(json), dry_(dry) {}

    Reconciler::Listener listener() {
        Reconciler::Listener listener;
        listener.missed = [this](const NewEvent& event) { missed(event); };
        listener.drifted = [this](const json_t* answer) { drifted(answer); };
        listener.failed = [this](const LinkedCustomer& whose, const std::string& problem) { failed(whose, problem); };
        return listener;
    }

    void finish(const ReconcileCounts& counts) {
        if (json_) {
            print_json(counts);
            return;
        }
        fmt::print("{} of {} events had not come{}; {} accounts looked at, {} had drifted{}{}\n", counts.missed,
                   counts.events, counts.missed > 0 && !dry_ ? ", nginx processes them now" : "", counts.looked,
                   counts.drifted, counts.drifted > 0 && !dry_ ? ", they are as Stripe has them now" : "",
                   counts.failed > 0 ? fmt::format(", {} could not be compared", counts.failed) : "");
        if (counts.unlinked > 0) {
            fmt::print("{} subscriptions are of customers that no account has; ngx-billing import links them\n",
                       counts.unlinked);
        }
        if (dry_) {
            fmt::print("nothing was changed\n");
        }
    }

private:
    void missed(const NewEvent& event) {
        if (json_) {
            Json one{json_object()};
            put_member(one.get(), "id", event.id);
            put_member(one.get(), "type", event.type);
            json_array_append_new(missed_.get(), one.release());
        } else {
            fmt::print("{}  {}  has not come{}\n", event.id, event.type, dry_ ? "" : "; stored");
        }
    }

    void drifted(const json_t* answer) {
        if (json_) {
            json_array_append(drifted_.get(), const_cast<json_t*>(answer));
        } else {
            print_drift(answer);
        }
    }

    void failed(const LinkedCustomer& whose, const std::string& problem) {
        fail(k_exit_failed, "account " + whose.account + ": " + problem);
    }

    void print_json(const ReconcileCounts& counts) {
        const Json all{json_object()};
        json_object_set_new(all.get(), "dry_run", json_boolean(dry_));
        json_object_set(all.get(), "missed", missed_.get());
        json_object_set(all.get(), "drifted", drifted_.get());
        put_member(all.get(), "events", counts.events);
        put_member(all.get(), "looked", counts.looked);
        put_member(all.get(), "failed", counts.failed);
        put_member(all.get(), "unlinked", counts.unlinked);
        fmt::print("{}\n", dump_json(all.get()));
    }

    bool json_;
    bool dry_;
    Json missed_{json_array()};
    Json drifted_{json_array()};
};

Task<int> reconcile_one(StripeWork work, Reconciler& reconciler, std::string account) {
    ReconcileStore store{work.postgres};
    Asked<std::optional<std::string>> customer = co_await store.customer_of(account);
    if (!customer) {
        const bool refused = customer.outcome == Asked<std::optional<std::string>>::Outcome::refused;
        co_return fail(refused ? k_exit_failed : k_exit_unreachable, customer.problem);
    }
    if (!customer.value) {
        co_return fail(k_exit_failed, "no account \"" + account + "\"");
    }
    if (customer.value->empty()) {
        co_return fail(k_exit_failed, "account " + account + " has no customer at Stripe");
    }
    LinkedCustomer whose{account, *customer.value};
    Trouble trouble = co_await reconciler.one_account(std::move(whose));
    co_return end_of(trouble);
}

Task<int> reconcile_all(Reconciler& reconciler, std::int64_t since) {
    Trouble trouble = co_await reconciler.missed_events(since);
    if (!trouble) {
        trouble = co_await reconciler.all_subscriptions();
    }
    co_return end_of(trouble);
}

Task<int> reconcile(StripeWork work, ReconcileOptions wanted, LookSettings look, bool json) {
    Report report{json, wanted.dry_run};
    Reconciler reconciler{work.reactor, work.postgres, work.stripe, work.livemode, std::move(look), report.listener()};
    int code = k_exit_ok;
    if (wanted.account.empty()) {
        code = co_await reconcile_all(reconciler, work.reactor.unix_ms() / 1000 - wanted.since_s);
    } else {
        code = co_await reconcile_one(work, reconciler, wanted.account);
    }
    report.finish(reconciler.counts());
    co_return code == k_exit_ok&& reconciler.counts().failed > 0 ? k_exit_failed : code;
}

} // namespace

int reconcile(const CommandOptions& options, const StripeOptions& stripe, const ReconcileOptions& wanted) {
    auto look = look_of("reconcile", wanted.payment_failed, wanted.dry_run);
    if (!look) {
        return k_exit_usage;
    }
    ReconcileOptions known = wanted;
    const auto since = parse_duration(wanted.since);
    if (!since || *since > std::int64_t{30} * 86400) {
        return fail(k_exit_usage, "--since: write a time as 72h, at most 30d: Stripe keeps events no longer");
    }
    known.since_s = *since;
    return with_stripe(options, stripe, [&](StripeWork work) { return reconcile(work, known, *look, options.json); });
}

} // namespace billing
