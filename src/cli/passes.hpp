// What the subcommands share that go over all of Stripe's objects: reconcile and import.
#pragma once

#include "cli/command.hpp"
#include "jobs/customer_look.hpp"
#include "jobs/stripe_list.hpp"

#include <optional>
#include <string>

namespace billing {

// The exit code of a pass that ended so; complains.
int end_of(const Trouble& trouble);

// What a look has changed, or would change, in lines.
void print_drift(const json_t* answer);

// `payment_failed`: as billing_payment_failed takes it. Complains and returns nothing where it cannot be read.
std::optional<LookSettings> look_of(const char* why, const std::string& payment_failed, bool dry_run);

} // namespace billing
