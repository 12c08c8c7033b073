// ngx-billing account show|set; explain is in explain_command.cpp
#include "cli/command.hpp"
#include "domain/account.hpp"
#include "domain/json.hpp"

#include <cstdlib>
#include <fmt/format.h>

namespace billing {

namespace {

std::string scalar(const json_t* value) {
    if (json_is_string(value)) {
        return json_string_value(value);
    }
    const std::unique_ptr<char, decltype(&std::free)> text{json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY),
                                                           &std::free};
    return text ? text.get() : "";
}

// A line for each member, sections indented: what a person wants to see at a glance.
void print_tree(const json_t* object, int depth) {
    const char* key = nullptr;
    json_t* value = nullptr;
    json_object_foreach(const_cast<json_t*>(object), key, value) {
        if (json_is_object(value) && json_object_size(value) > 0 && depth < 1) {
            fmt::print("{}:\n", key);
            print_tree(value, depth + 1);
        } else if (!json_is_null(value)) {
            fmt::print("{:{}}{}: {}\n", "", depth * 2, key, scalar(value));
        }
    }
}

int print_account(const PgResult& result, const std::string& account, bool json) {
    if (result.rows() != 1 || result.is_null(0, 0)) {
        return fail(k_exit_failed, "no account \"" + account + "\"");
    }
    const auto answer = parse_json(result.text(0, 0));
    if (json || !answer) {
        fmt::print("{}\n", result.text(0, 0));
    } else {
        print_tree(answer.value().get(), 0);
    }
    return k_exit_ok;
}

Task<int> show(Postgres& postgres, std::string account, bool json) {
    PgParams parameters{account};
    PgResult result = co_await postgres.query("SELECT billing.account_show($1)", std::move(parameters));
    co_return result ? print_account(result, account, json) : explain_failure(result);
}

Task<int> set(Postgres& postgres, std::string account, std::string changes, bool json) {
    const char* user = std::getenv("USER");
    PgParams parameters{account, changes, std::string{"command:"} + (user != nullptr ? user : "unknown")};
    PgResult result = co_await postgres.query("SELECT billing.account_set($1, $2::jsonb, $3)", std::move(parameters));
    co_return result ? print_account(result, account, json) : explain_failure(result);
}

} // namespace

int account_show(const CommandOptions& options, const std::string& account) {
    return with_postgres(options, [&](Postgres& postgres) { return show(postgres, account, options.json); });
}

int account_set(const CommandOptions& options, const std::string& account, const std::string& changes) {
    return with_postgres(options, [&](Postgres& postgres) { return set(postgres, account, changes, options.json); });
}

} // namespace billing
