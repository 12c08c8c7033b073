// ngx-billing account show|set; explain is in explain_command.cpp
#include "cli/command.hpp"
#include "cli/output.hpp"
#include "domain/account.hpp"
#include "domain/json.hpp"

#include <fmt/format.h>

namespace billing {

namespace {

int print_account(const PgResult& result, const std::string& account, bool json) {
    if (result.rows() != 1 || result.is_null(0, 0)) {
        return fail(k_exit_failed, "no account \"" + account + "\"");
    }
    const auto answer = parse_json(result.text(0, 0));
    if (json || !answer) {
        fmt::print("{}\n", result.text(0, 0));
    } else {
        print_tree(answer.value().get());
    }
    return k_exit_ok;
}

Task<int> show(Postgres& postgres, std::string account, bool json) {
    PgParams parameters{account};
    PgResult result = co_await postgres.query("SELECT billing.account_show($1)", std::move(parameters));
    co_return result ? print_account(result, account, json) : explain_failure(result);
}

Task<int> set(Postgres& postgres, std::string account, std::string changes, bool json) {
    PgParams parameters{account, changes, actor()};
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
