// The command line of the subcommands about Stripe's events and objects. Called by main().
#pragma once

#include "cli/command.hpp"

#include <CLI/CLI.hpp>

namespace billing {

void add_events(CLI::App& app, CommandOptions& options, int& code);
void add_reconcile(CLI::App& app, CommandOptions& options, int& code);
void add_import(CLI::App& app, CommandOptions& options, int& code);

} // namespace billing
