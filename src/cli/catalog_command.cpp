// ngx-billing catalog validate|apply
#include "cli/command.hpp"
#include "domain/catalog_file.hpp"

#include <fmt/format.h>

namespace billing {

namespace {

Task<int> apply(Postgres& postgres, std::string document, bool json) {
    PgParams parameters{document};
    PgResult result = co_await postgres.query("SELECT billing.catalog_apply($1::jsonb)", std::move(parameters));
    if (!result) {
        co_return explain_failure(result);
    }
    const auto answer = parse_json(result.text(0, 0));
    if (json || !answer) {
        fmt::print("{}\n", result.text(0, 0));
        co_return k_exit_ok;
    }
    const auto version = integer_member(answer.value().get(), "version").value_or(0);
    const bool changed = true_member(answer.value().get(), "changed");
    fmt::print("catalog version {}{}\n", version, changed ? " applied" : ": nothing to change");
    co_return k_exit_ok;
}

} // namespace

int catalog_validate(const CommandOptions& options, const std::string& path) {
    const auto file = CatalogFile::load(path);
    if (!file) {
        return fail(k_exit_failed, file.error());
    }
    const auto& catalog = file.value();
    if (options.json) {
        fmt::print("{{\"valid\":true}}\n");
    } else {
        fmt::print("{}: {} plans, {} features, {} quotas, {} credit types\n", path, catalog.plans().size(),
                   catalog.features().size(), catalog.quotas().size(), catalog.credits().size());
    }
    return k_exit_ok;
}

int catalog_apply(const CommandOptions& options, const std::string& path) {
    const auto file = CatalogFile::load(path);
    if (!file) {
        return fail(k_exit_failed, file.error());
    }
    const std::string document = dump_json(file.value().document());
    return with_postgres(options, [&](Postgres& postgres) { return apply(postgres, document, options.json); });
}

} // namespace billing
