// The command line of the subcommands about Stripe's events and objects. Called by main().
#pragma once

#include "cli/command.hpp"

#include <CLI/CLI.hpp>

namespace billing {

// Below "catalog".
void add_push(CLI::App& catalog, CommandOptions& options, int& code);
void add_events(CLI::App& app, CommandOptions& options, int& code);
void add_reconcile(CLI::App& app, CommandOptions& options, int& code);
void add_import(CLI::App& app, CommandOptions& options, int& code);

} // namespace billing
