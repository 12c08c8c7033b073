// ngx-billing import
#include "cli/command.hpp"
#include "cli/output.hpp"
#include "cli/passes.hpp"
#include "domain/json.hpp"
#include "jobs/importer.hpp"
#include "stripe/names.hpp"

#include <fmt/format.h>
#include <fstream>

namespace billing {

namespace {

// "customer,account" in each line; a first line without a customer's id is a heading.
Result<std::map<std::string, std::string>> read_list(const std::string& path) {
    std::ifstream stream{path};
    if (!stream) {
        return Error{"cannot read " + path};
    }
    std::map<std::string, std::string> accounts;
    std::string line;
    for (int number = 1; std::getline(stream, line); ++number) {
        std::erase_if(line, [](char byte) { return byte == '"' || byte == '\r' || byte == ' '; });
        const auto comma = line.find(',');
        const std::string customer = line.substr(0, comma);
        if (line.empty() || (number == 1 && !customer.starts_with("cus_"))) {
            continue;
        }
        const std::string account = comma == std::string::npos ? "" : line.substr(comma + 1);
        if (!is_object_id(customer) || account.empty()) {
            return Error{path + ", line " + std::to_string(number) + ": write customer,account as cus_...,demo"};
        }
        if (!accounts.emplace(customer, account).second) {
            return Error{path + ", line " + std::to_string(number) + ": " + customer + " is there twice"};
        }
    }
    return accounts;
}

Result<ImportMatch> read_match(const std::string& text) {
    ImportMatch match;
    if (text == "email") {
        match.by = ImportMatch::By::email;
        return match;
    }
    if (text.starts_with("csv:")) {
        match.by = ImportMatch::By::list;
        auto accounts = read_list(text.substr(4));
        if (!accounts) {
            return Error{accounts.error()};
        }
        match.accounts = std::move(accounts).value();
        return match;
    }
    if (!text.starts_with("metadata:") || text == "metadata:") {
        return Error{"--match: write metadata:KEY, email, or csv:FILE"};
    }
    match.key = text.substr(9);
    return match;
}

// What hinders, in words; "" where nothing does.
std::string hindrance(const ImportedCustomer& one) {
    if (one.outcome == "unmatched") {
        return "nothing tells whose it is";
    }
    if (one.outcome == "ambiguous") {
        return "several accounts have its email";
    }
    if (one.outcome == "invalid") {
        return "what names its account is no account id";
    }
    if (one.outcome == "taken") {
        return "account " + one.account + " has customer " + one.problem;
    }
    if (one.outcome == "elsewhere") {
        return "another account than it names has it: " + one.account;
    }
    if (one.outcome == "failed") {
        return one.problem;
    }
    return one.unplanned ? "account " + one.account + " pays for a price that the catalog does not have" : "";
}

class ImportReport {
public:
    ImportReport(bool json, bool dry) : json_(json), dry_(dry) {}

    void told(const ImportedCustomer& one) {
        const std::string why = hindrance(one);
        const bool quiet = why.empty() ? one.outcome == "already" && !true_member(one.answer.get(), "changed")
                                       : !one.pays && one.outcome == "unmatched";
        if (quiet) {
            return;
        }
        if (json_) {
            append(one, why);
        } else {
            print(one, why);
        }
    }

    void finish(const ImportCounts& counts) {
        if (json_) {
            print_json(counts);
            return;
        }
        fmt::print("{} customers: {} {}, {} accounts {}, {} changed by what they subscribe to\n", counts.customers,
                   counts.linked, dry_ ? "would be linked" : "linked", counts.created,
                   dry_ ? "would come into being" : "came into being", counts.changed);
        if (counts.unmatched > 0) {
            fmt::print("{} without a subscription match no account, and stay as they are\n", counts.unmatched);
        }
        if (counts.left > 0) {
            fmt::print("{} who pay would be refused: see above\n", counts.left);
        }
        if (dry_) {
            fmt::print("nothing was changed\n");
        }
    }

private:
    void print(const ImportedCustomer& one, const std::string& why) {
        if (!why.empty()) {
            fmt::print("{}  {}: {}\n", one.customer, one.pays ? "PAYS" : "left as it is", why);
        } else if (one.outcome == "linked") {
            fmt::print("{}  is account {}{}\n", one.customer, one.account, one.created ? ", which is new" : "");
        }
        if (true_member(one.answer.get(), "changed")) {
            print_drift(one.answer.get());
        }
    }

    void append(const ImportedCustomer& one, const std::string& why) {
        Json line{json_object()};
        put_member(line.get(), "customer", one.customer);
        put_member(line.get(), "outcome", one.outcome);
        json_object_set_new(line.get(), "pays", json_boolean(one.pays));
        if (!one.account.empty()) {
            put_member(line.get(), "account", one.account);
            json_object_set_new(line.get(), "created", json_boolean(one.created));
        }
        if (!why.empty()) {
            put_member(line.get(), "problem", why);
        }
        if (one.answer) {
            json_object_set(line.get(), "look", one.answer.get());
        }
        json_array_append_new(lines_.get(), line.release());
    }

    void print_json(const ImportCounts& counts) {
        const Json all{json_object()};
        json_object_set_new(all.get(), "dry_run", json_boolean(dry_));
        put_member(all.get(), "customers", counts.customers);
        put_member(all.get(), "linked", counts.linked);
        put_member(all.get(), "created", counts.created);
        put_member(all.get(), "changed", counts.changed);
        put_member(all.get(), "unmatched", counts.unmatched);
        put_member(all.get(), "left", counts.left);
        json_object_set(all.get(), "told", lines_.get());
        fmt::print("{}\n", dump_json(all.get()));
    }

    bool json_;
    bool dry_;
    Json lines_{json_array()};
};

// Names in metadata are the operator's choice, which stands in nginx.conf.
void hint(const ImportMatch& match, const ImportCounts& counts) {
    if (match.by == ImportMatch::By::metadata && counts.customers > 0 && counts.nameless == counts.customers) {
        fail(k_exit_failed, "no customer has \"" + match.key +
                                "\" in its metadata; if nginx.conf has \"billing_metadata account=NAME\", write "
                                "--match metadata:NAME");
    }
}

Task<int> import_all(StripeWork work, ImportMatch match, LookSettings look, bool json) {
    ImportReport report{json, look.dry};
    Importer importer{work.reactor, work.postgres,   work.stripe,
                      match,        std::move(look), [&report](const ImportedCustomer& one) { report.told(one); }};
    Trouble trouble = co_await importer.run();
    const int code = end_of(trouble);
    report.finish(importer.counts());
    hint(match, importer.counts());
    co_return code == k_exit_ok&& importer.counts().left > 0 ? k_exit_failed : code;
}

} // namespace

int import_customers(const CommandOptions& options, const StripeOptions& stripe, const ImportOptions& wanted) {
    auto look = look_of("import", wanted.payment_failed, wanted.dry_run);
    if (!look) {
        return k_exit_usage;
    }
    auto match = read_match(wanted.match);
    if (!match) {
        return fail(k_exit_usage, match.error());
    }
    return with_stripe(options, stripe,
                       [&](StripeWork work) { return import_all(work, match.value(), *look, options.json); });
}

} // namespace billing
