// ngx-billing migrate: applies migrations/NNNN_name.sql in order, each in a transaction of its own, under one lock.
// Plain libpq: a migration file holds many statements, which the pipelined driver does not take.
#include "cli/command.hpp"
#include "cli/digest.hpp"
#include "domain/result.hpp"

#include <libpq-fe.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <vector>

namespace billing {

namespace {

constexpr const char* k_lock = "SELECT pg_advisory_lock(hashtext('ngx_billing.migrate'))";
constexpr const char* k_prepare =
    "CREATE SCHEMA IF NOT EXISTS billing;"
    "CREATE TABLE IF NOT EXISTS billing.schema_migrations ("
    "name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())";

struct Migration {
    std::string name;
    std::string sql;
    std::string sha256;
};

struct CloseConnection {
    void operator()(PGconn* connection) const noexcept { PQfinish(connection); }
};
struct ClearResult {
    void operator()(PGresult* result) const noexcept { PQclear(result); }
};
using Connection = std::unique_ptr<PGconn, CloseConnection>;
using Answer = std::unique_ptr<PGresult, ClearResult>;

std::string default_directory() {
    std::error_code problem;
    const auto self = std::filesystem::read_symlink("/proc/self/exe", problem);
    const auto beside = self.parent_path().parent_path() / "migrations";
    return !problem && std::filesystem::is_directory(beside) ? beside.string() : "/usr/share/ngx-billing/migrations";
}

Result<std::vector<Migration>> read_all(const std::string& directory) {
    std::vector<Migration> migrations;
    std::error_code problem;
    for (const auto& entry : std::filesystem::directory_iterator{directory, problem}) {
        if (entry.path().extension() != ".sql") {
            continue;
        }
        std::ifstream stream{entry.path(), std::ios::binary};
        std::string sql{std::istreambuf_iterator<char>{stream}, {}};
        if (!stream.good() && !stream.eof()) {
            return Error{"cannot read " + entry.path().string()};
        }
        auto sum = sha256_of(sql);
        migrations.push_back({entry.path().filename().string(), std::move(sql), std::move(sum)});
    }
    if (migrations.empty()) {
        return Error{"no migrations in " + directory + "; name the folder with --dir"};
    }
    std::sort(migrations.begin(), migrations.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
    return migrations;
}

Answer execute(PGconn* connection, const char* sql) { return Answer{PQexec(connection, sql)}; }

bool good(const Answer& answer) {
    const auto status = PQresultStatus(answer.get());
    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
}

std::string problem_of(PGconn* connection) {
    std::string text = PQerrorMessage(connection);
    text.erase(text.find_last_not_of(" \n") + 1);
    return text;
}

Result<std::map<std::string, std::string>> applied(PGconn* connection) {
    const Answer answer = execute(connection, "SELECT name, sha256 FROM billing.schema_migrations");
    if (!good(answer)) {
        return Error{problem_of(connection)};
    }
    std::map<std::string, std::string> sums;
    for (int row = 0; row < PQntuples(answer.get()); ++row) {
        sums[PQgetvalue(answer.get(), row, 0)] = PQgetvalue(answer.get(), row, 1);
    }
    return sums;
}

Result<Done> apply(PGconn* connection, const Migration& migration) {
    const std::array<const char*, 2> values = {migration.name.c_str(), migration.sha256.c_str()};
    const auto step = [&](const Answer& answer) { return good(answer); };
    bool ok = step(execute(connection, "BEGIN")) && step(execute(connection, "SET LOCAL lock_timeout = '10s'")) &&
              step(execute(connection, migration.sql.c_str()));
    if (ok) {
        const Answer noted{PQexecParams(connection,
                                        "INSERT INTO billing.schema_migrations (name, sha256) VALUES ($1, $2)", 2,
                                        nullptr, values.data(), nullptr, nullptr, 0)};
        ok = good(noted) && step(execute(connection, "COMMIT"));
    }
    if (!ok) {
        Error error{migration.name + ": " + problem_of(connection)};
        execute(connection, "ROLLBACK");
        return error;
    }
    return Done{};
}

int apply_all(PGconn* connection, const std::vector<Migration>& migrations, bool dry_run) {
    const auto known = applied(connection);
    if (!known) {
        return fail(k_exit_failed, known.error());
    }
    std::size_t count = 0;
    for (const auto& migration : migrations) {
        const auto found = known.value().find(migration.name);
        if (found != known.value().end()) {
            if (found->second != migration.sha256) {
                return fail(k_exit_failed, migration.name + " has changed since it was applied; restore the file and "
                                                            "put the change into a new migration");
            }
            continue;
        }
        if (!known.value().empty() && migration.name < known.value().rbegin()->first) {
            return fail(k_exit_failed, migration.name + " comes before " + known.value().rbegin()->first +
                                           ", which is applied; give it a higher number");
        }
        if (!dry_run) {
            const auto done = apply(connection, migration);
            if (!done) {
                return fail(k_exit_failed, done.error());
            }
        }
        fmt::print("{} {}\n", dry_run ? "would apply" : "applied", migration.name);
        ++count;
    }
    fmt::print("{} of {} migrations {}\n", count, migrations.size(), dry_run ? "pending" : "applied now");
    return k_exit_ok;
}

} // namespace

int migrate(const CommandOptions& options, const std::string& directory, bool dry_run) {
    const auto migrations = read_all(directory.empty() ? default_directory() : directory);
    if (!migrations) {
        return fail(k_exit_failed, migrations.error());
    }
    const std::string conninfo = conninfo_of(options);
    if (conninfo.empty()) {
        return k_exit_usage;
    }
    const Connection connection{PQconnectdb(conninfo.c_str())};
    if (PQstatus(connection.get()) != CONNECTION_OK) {
        return fail(k_exit_unreachable, problem_of(connection.get()));
    }
    PQsetNoticeProcessor(
        connection.get(), [](void*, const char*) {}, nullptr);
    if (!good(execute(connection.get(), k_lock)) || !good(execute(connection.get(), k_prepare))) {
        return fail(k_exit_failed, problem_of(connection.get()));
    }
    return apply_all(connection.get(), migrations.value(), dry_run);
}

} // namespace billing
