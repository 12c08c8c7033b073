#include "cli/stripe_command_line.hpp"

namespace billing {

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

} // namespace billing
