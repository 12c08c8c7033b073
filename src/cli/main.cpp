// ngx-billing: the operator's command. Each subcommand is a function in its own file; here is only the command line.
#include "cli/command.hpp"
#include "cli/stripe_command_line.hpp"
#include "domain/json.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <charconv>

namespace {

using namespace billing;

// What `account set` was asked to change, as the JSON object that billing.account_set() takes.
class Changes {
public:
    void text(const char* key, const std::string& value) { put(key, json_text(value)); }

    void null(const char* key) { put(key, Json{json_null()}); }

    void flag(const char* key, const std::string& value) { put(key, Json{json_boolean(value == "on")}); }

    // NAME=VALUE into the object `key`: on/off, a number, unlimited, or default to remove the override.
    bool entry(const char* key, const std::string& assignment) {
        const auto equals = assignment.find('=');
        if (equals == std::string::npos || equals == 0) {
            return false;
        }
        const std::string name = assignment.substr(0, equals);
        const std::string value = assignment.substr(equals + 1);
        json_t* group = json_object_get(object_.get(), key);
        if (group == nullptr) {
            group = json_object();
            json_object_set_new(object_.get(), key, group);
        }
        Json parsed = value_of(value);
        return parsed && json_object_set_new(group, name.c_str(), parsed.release()) == 0;
    }

    bool empty() const { return json_object_size(object_.get()) == 0; }
    std::string dump() const { return dump_json(object_.get()); }

private:
    static Json value_of(const std::string& text) {
        if (text == "on" || text == "off") {
            return Json{json_boolean(text == "on")};
        }
        if (text == "default") {
            return Json{json_null()};
        }
        if (text == "unlimited") {
            return json_text(text);
        }
        std::int64_t number = 0;
        const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
        const bool whole = problem == std::errc{} && end == text.data() + text.size() && number >= 0;
        return whole ? Json{json_integer(number)} : Json{};
    }

    void put(const char* key, Json value) { json_object_set_new(object_.get(), key, value.release()); }

    Json object_{json_object()};
};

struct SetOptions {
    std::string account, plan, status, writes, maintenance, enforced, overage, grace_until, cycle_anchor, zone, email,
        name;
    std::vector<std::string> features, limits, stocks;

    Result<std::string> changes() const {
        Changes changes;
        for (const auto& [key, value] : std::initializer_list<std::pair<const char*, const std::string&>>{
                 {"plan", plan}, {"status", status}, {"maintenance", maintenance}, {"email", email}, {"name", name}}) {
            if (!value.empty()) {
                changes.text(key, value);
            }
        }
        if (!grace_until.empty()) {
            if (grace_until == "none") {
                changes.null("grace_until");
            } else {
                changes.text("grace_until", grace_until);
            }
        }
        if (!cycle_anchor.empty()) {
            changes.text("cycle_anchor", cycle_anchor);
        }
        if (!zone.empty()) {
            if (zone == "UTC") {
                changes.null("zone");
            } else {
                changes.text("zone", zone);
            }
        }
        if (!writes.empty()) {
            changes.flag("write_enabled", writes);
        }
        if (!enforced.empty()) {
            changes.flag("billing_enforced", enforced);
        }
        if (!overage.empty()) {
            changes.flag("overage_on", overage);
        }
        for (const auto& feature : features) {
            if (!changes.entry("features", feature)) {
                return Error{"--feature " + feature + ": write NAME=on, NAME=off or NAME=default"};
            }
        }
        for (const auto& limit : limits) {
            if (!changes.entry("limits", limit)) {
                return Error{"--limit " + limit + ": write NAME=NUMBER, NAME=unlimited or NAME=default"};
            }
        }
        for (const auto& stock : stocks) {
            if (!changes.entry("stock", stock)) {
                return Error{"--stock " + stock + ": write NAME=NUMBER, NAME=unlimited or NAME=default"};
            }
        }
        if (changes.empty()) {
            return Error{"nothing to set; see ngx-billing account set --help"};
        }
        return changes.dump();
    }
};

void add_account(CLI::App& app, CommandOptions& options, int& code) {
    auto* account = app.add_subcommand("account", "What an account has");
    account->require_subcommand(1);
    static std::string shown;
    static SetOptions given;

    auto* show = account->add_subcommand("show", "Plan, status, limits and usage of an account");
    show->add_option("ACCOUNT", shown, "The id that requests carry")->required();
    show->callback([&] { code = account_show(options, shown); });

    static std::string redis;
    auto* explain = account->add_subcommand("explain", "Why an account is let through or refused, rule by rule");
    explain->add_option("ACCOUNT", shown, "The id that requests carry")->required();
    explain->add_option("--redis", redis, "Look into this cache too: an address as billing_redis takes it");
    explain->callback([&] { code = account_explain(options, shown, redis); });

    auto* set = account->add_subcommand("set", "Change an account; every host follows within a second");
    set->add_option("ACCOUNT", given.account, "The id that requests carry")->required();
    set->add_option("--plan", given.plan, "Plan of the catalog");
    set->add_option("--status", given.status, "active, trialing, past_due, canceled, unpaid, paused");
    set->add_option("--writes", given.writes, "The kill switch: off refuses changes")
        ->check(CLI::IsMember({"on", "off"}));
    set->add_option("--maintenance", given.maintenance, "Read-only mode")
        ->check(CLI::IsMember({"none", "payment", "operator"}));
    set->add_option("--enforced", given.enforced, "Refuse once the grace has ended")
        ->check(CLI::IsMember({"on", "off"}));
    set->add_option("--overage", given.overage,
                    "Units beyond the plan's, to be paid afterwards, where the plan leaves it open")
        ->check(CLI::IsMember({"on", "off"}));
    set->add_option("--grace-until", given.grace_until, "When the grace ends, as 2030-01-31T00:00:00Z, or none");
    set->add_option(
        "--cycle-anchor", given.cycle_anchor,
        "When its billing months begin, as 2030-01-31T00:00:00Z; a subscription of Stripe's sets it by itself");
    set->add_option("--zone", given.zone, "Time zone of its days and months, as Europe/Berlin, or UTC");
    set->add_option("--email", given.email);
    set->add_option("--name", given.name);
    set->add_option("--feature", given.features, "NAME=on|off|default: an exception to the plan");
    set->add_option("--limit", given.limits, "NAME=NUMBER|unlimited|default: an exception to the plan");
    set->add_option("--stock", given.stocks,
                    "NAME=NUMBER|unlimited|default: how many things it may have, as an exception to the plan");
    set->callback([&] {
        const auto changes = given.changes();
        code = changes ? account_set(options, given.account, changes.value()) : fail(k_exit_usage, changes.error());
    });
}

void add_catalog(CLI::App& app, CommandOptions& options, int& code) {
    auto* catalog = app.add_subcommand("catalog", "What is for sale");
    catalog->require_subcommand(1);
    static std::string path;

    auto* validate = catalog->add_subcommand("validate", "Judge a catalog file; needs no database");
    validate->add_option("FILE", path)->required();
    validate->callback([&] { code = catalog_validate(options, path); });

    auto* apply = catalog->add_subcommand("apply", "Bring a catalog file to PostgreSQL; every host follows");
    apply->add_option("FILE", path)->required();
    apply->callback([&] { code = catalog_apply(options, path); });
    add_push(*catalog, options, code);
}

void add_keys(CLI::App& app, CommandOptions& options, int& code) {
    auto* keys = app.add_subcommand("keys", "API keys: who holds one asks as its account");
    keys->require_subcommand(1);
    static NewKey wanted;
    static std::string account;
    static std::string name;

    auto* create = keys->add_subcommand("create", "Make a key for an account; it is printed once");
    create->add_option("ACCOUNT", wanted.account, "The account that requests with the key are for")->required();
    create->add_option("--name", wanted.name, "What the key is for");
    create->add_option("--expires", wanted.expires, "When it ends, as 2030-01-31T00:00:00Z; without: never");
    create->add_flag("--create-account", wanted.make_account, "Make the account where there is none");
    create->callback([&] { code = keys_create(options, wanted); });

    auto* list = keys->add_subcommand("list", "Names and states of the keys");
    list->add_option("ACCOUNT", account, "Of this account only");
    list->callback([&] { code = keys_list(options, account); });

    auto* revoke = keys->add_subcommand("revoke", "End a key for good; every host refuses it within a second");
    revoke->add_option("KEY", name, "Its name (bk_...), or the whole key")->required();
    revoke->callback([&] { code = keys_revoke(options, name); });
}

void add_migrate(CLI::App& app, CommandOptions& options, int& code) {
    auto* command = app.add_subcommand("migrate", "Create or update the schema \"billing\"");
    static std::string directory;
    static bool dry_run = false;
    command->add_option("--dir", directory, "Where the migrations are");
    command->add_flag("--dry-run", dry_run, "Only list what would be applied");
    command->callback([&] { code = migrate(options, directory, dry_run); });
}

// The exit code.
int run(int argc, char** argv) {
    CLI::App app{"ngx-billing: the command beside nginx's billing module"};
    app.footer("Exit codes: 0 done, 1 refused, 2 wrong command line, 3 PostgreSQL or Stripe cannot be reached.\n"
               "Example: ngx-billing --dsn 'host=/run/postgresql dbname=app' account set demo --plan pro");
    app.require_subcommand(1);
    app.fallthrough();
    CommandOptions options;
    app.add_option("--dsn", options.dsn, "PostgreSQL: conninfo, file:PATH or env:NAME; else $BILLING_POSTGRES");
    app.add_flag("--json", options.json, "Print JSON");
    int code = k_exit_ok;
    add_migrate(app, options, code);
    add_catalog(app, options, code);
    add_account(app, options, code);
    add_keys(app, options, code);
    add_events(app, options, code);
    add_reconcile(app, options, code);
    add_import(app, options, code);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& problem) {
        return app.exit(problem) == 0 ? k_exit_ok : k_exit_usage;
    }
    return code;
}

} // namespace

int main(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception& problem) {
        return fail(k_exit_failed, problem.what());
    }
}
