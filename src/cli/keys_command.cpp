// ngx-billing keys create|list|revoke
#include "cli/command.hpp"
#include "cli/output.hpp"
#include "domain/json.hpp"
#include "identity/api_key.hpp"

#include <fmt/format.h>

namespace billing {

namespace {

// One key as a line.
void print_key(const json_t* key) {
    const std::string expires = text_of(key, "expires_at");
    const std::string name = text_of(key, "name");
    fmt::print("{}  {:<7}  {}  created {}{}{}\n", text_of(key, "prefix"), text_of(key, "state"),
               text_of(key, "account"), text_of(key, "created_at"), expires.empty() ? "" : "  expires " + expires,
               name.empty() ? "" : "  " + name);
}

Task<int> create(Postgres& postgres, NewKey wanted, bool json) {
    const std::string key = new_api_key();
    if (key.empty()) {
        co_return fail(k_exit_failed, "the system gives no random bytes");
    }
    PgParams parameters{wanted.account,
                        std::string{api_key_prefix(key)},
                        api_key_digest(key),
                        given(wanted.name),
                        given(wanted.expires),
                        wanted.make_account,
                        actor()};
    PgResult result = co_await postgres.query(
        "SELECT billing.api_key_create($1, $2, $3, $4, $5::timestamptz, $6::boolean, $7)", std::move(parameters));
    if (!result) {
        co_return explain_failure(result);
    }
    if (result.is_null(0, 0)) {
        co_return fail(k_exit_failed, "no account \"" + wanted.account + "\"; add --create-account to make it");
    }
    const auto answer = parse_json(result.text(0, 0));
    if (json && answer) {
        put_member(answer.value().get(), "key", key);
        fmt::print("{}\n", dump_json(answer.value().get()));
    } else {
        fmt::print("{}\n", key);
        fmt::print(stderr, "ngx-billing: this key is shown once; \"ngx-billing keys revoke {}\" ends it\n",
                   api_key_prefix(key));
    }
    co_return k_exit_ok;
}

Task<int> revoke(Postgres& postgres, std::string prefix, bool json) {
    PgParams parameters{prefix, actor()};
    PgResult result = co_await postgres.query("SELECT billing.api_key_revoke($1, $2)", std::move(parameters));
    if (!result) {
        co_return explain_failure(result);
    }
    if (result.is_null(0, 0)) {
        co_return fail(k_exit_failed, "no key \"" + prefix + "\"; ngx-billing keys list shows them");
    }
    const auto answer = parse_json(result.text(0, 0));
    if (json || !answer) {
        fmt::print("{}\n", result.text(0, 0));
    } else {
        print_key(answer.value().get());
    }
    co_return k_exit_ok;
}

Task<int> list(Postgres& postgres, std::string account, bool json) {
    PgParams parameters{given(account)};
    PgResult result = co_await postgres.query("SELECT billing.api_key_list($1)", std::move(parameters));
    if (!result) {
        co_return explain_failure(result);
    }
    const auto answer = parse_json(result.text(0, 0));
    if (json || !answer) {
        fmt::print("{}\n", result.text(0, 0));
        co_return k_exit_ok;
    }
    for (std::size_t index = 0; index < json_array_size(answer.value().get()); ++index) {
        print_key(json_array_get(answer.value().get(), index));
    }
    co_return k_exit_ok;
}

} // namespace

int keys_create(const CommandOptions& options, const NewKey& wanted) {
    return with_postgres(options, [&](Postgres& postgres) { return create(postgres, wanted, options.json); });
}

int keys_list(const CommandOptions& options, const std::string& account) {
    return with_postgres(options, [&](Postgres& postgres) { return list(postgres, account, options.json); });
}

int keys_revoke(const CommandOptions& options, const std::string& key) {
    // Who has the whole key at hand may give it; it does not leave this process.
    const std::string prefix{valid_api_key(key) ? api_key_prefix(key) : std::string_view{key}};
    if (!valid_api_key_prefix(prefix)) {
        return fail(k_exit_usage,
                    "a key's name has the form bk_ and ten letters or digits; ngx-billing keys list shows them");
    }
    return with_postgres(options, [&](Postgres& postgres) { return revoke(postgres, prefix, options.json); });
}

} // namespace billing
