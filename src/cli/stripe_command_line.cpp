#include "cli/stripe_command_line.hpp"

namespace billing {

namespace {

// Where Stripe is, and by which key.
void add_stripe(CLI::App& command, StripeOptions& stripe) {
    command.add_option("--stripe-key", stripe.key, "Where the secret or restricted key is: env:NAME or file:PATH")
        ->capture_default_str();
    command.add_option("--stripe-api", stripe.api, "Another address than Stripe's, as that of a stand-in")
        ->capture_default_str();
}

void add_payment_failed(CLI::App& command, std::string& words) {
    command
        .add_option("--payment-failed", words,
                    "What billing_payment_failed in nginx.conf says, for who is first seen owing now")
        ->capture_default_str();
}

} // namespace

void add_push(CLI::App& catalog, CommandOptions& options, int& code) {
    auto* push = catalog.add_subcommand(
        "push", "Make products, prices and the customer portal's configuration at Stripe, once, and apply the catalog");
    static StripeOptions stripe;
    static PushOptions wanted;
    push->add_option("FILE", wanted.path)->required();
    push->add_option("--headline", wanted.headline, "What stands above the customer portal");
    push->add_flag("--live", wanted.live, "Also with a live key: what is made can be bought");
    push->add_flag("--dry-run", wanted.dry_run, "Only tell what would be made");
    add_stripe(*push, stripe);
    push->callback([&] { code = catalog_push(options, stripe, wanted); });
}

void add_events(CLI::App& app, CommandOptions& options, int& code) {
    auto* events = app.add_subcommand("events", "What Stripe has told");
    events->require_subcommand(1);
    static EventFilter wanted;
    static std::vector<std::string> named;
    static std::string event;
    static std::string since;
    static bool payload = false;
    static bool dead = false;

    auto* list = events->add_subcommand("list", "The newest events, the newest first");
    list->add_option("--status", wanted.status, "Only those in this state")
        ->check(CLI::IsMember({"received", "processing", "processed", "ignored", "parked", "dead"}));
    list->add_option("--account", wanted.account, "Only those of this account");
    list->add_option("--since", wanted.since, "Only those received since: 72h, or a time as 2030-01-31T00:00:00Z");
    list->add_option("--limit", wanted.most, "At most so many")->check(CLI::Range(1, 100'000))->capture_default_str();
    list->callback([&] { code = events_list(options, wanted); });

    auto* show = events->add_subcommand("show", "What is known of an event");
    show->add_option("EVENT", event, "Its id (evt_...)")->required();
    show->add_flag("--payload", payload, "With what it carries: personal data");
    show->callback([&] { code = events_show(options, event, payload); });

    auto* replay = events->add_subcommand("replay", "Process events once more; what was applied is not applied twice");
    replay->add_option("EVENT", named, "Ids (evt_...)");
    replay->add_flag("--dead", dead, "All that were given up after five tries");
    replay->add_option("--since", since, "Of the dead those received since: 72h, or a time")->needs("--dead");
    replay->callback([&] { code = events_replay(options, named, dead, since); });
}

void add_reconcile(CLI::App& app, CommandOptions& options, int& code) {
    auto* command = app.add_subcommand("reconcile", "Compare with Stripe, and bring in order what differs");
    static StripeOptions stripe;
    static ReconcileOptions wanted;
    command->add_option("--account", wanted.account, "Only this account's subscriptions");
    command->add_option("--since", wanted.since, "Events that Stripe has made in this time, at most 30d")
        ->capture_default_str();
    command->add_flag("--dry-run", wanted.dry_run, "Only tell what differs");
    add_payment_failed(*command, wanted.payment_failed);
    add_stripe(*command, stripe);
    command->callback([&] { code = reconcile(options, stripe, wanted); });
}

void add_import(CLI::App& app, CommandOptions& options, int& code) {
    auto* command =
        app.add_subcommand("import", "Link customers that Stripe has already, before the gate is switched on");
    static StripeOptions stripe;
    static ImportOptions wanted;
    command
        ->add_option(
            "--match", wanted.match,
            "Whose a customer is: metadata:KEY (of billing_metadata account=KEY), email, or csv:FILE with lines of "
            "customer,account")
        ->capture_default_str();
    command->add_flag("--dry-run", wanted.dry_run, "Only tell what would happen");
    add_payment_failed(*command, wanted.payment_failed);
    add_stripe(*command, stripe);
    command->callback([&] { code = import_customers(options, stripe, wanted); });
}

} // namespace billing
