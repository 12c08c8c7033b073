#include "cli/passes.hpp"

#include "cli/output.hpp"
#include "domain/period.hpp"

#include <fmt/format.h>

namespace billing {

int end_of(const Trouble& trouble) {
    if (!trouble) {
        return k_exit_ok;
    }
    return fail(trouble.kind == Trouble::Kind::later ? k_exit_unreachable : k_exit_failed, trouble.text);
}

void print_drift(const json_t* answer) {
    const auto text = [answer](const char* key) { return text_of(answer, key); };
    fmt::print("account {} ({}): {} ({}) -> {} ({})\n", text("account"), text("customer"), text("plan_before"),
               text("status_before"), text("plan"), text("status"));
    std::size_t index = 0;
    json_t* one = nullptr;
    json_array_foreach(json_object_get(answer, "drift"), index, one) {
        fmt::print("  {} {}: {} here, {} at Stripe\n", text_of(one, "subscription"), text_of(one, "what"),
                   scalar_text(json_object_get(one, "here")), scalar_text(json_object_get(one, "stripe")));
    }
    json_array_foreach(json_object_get(answer, "changes"), index, one) {
        const json_t* const after = json_object_get(one, "after");
        if (text_of(one, "action") != "account.change") {
            fmt::print("  {} {}\n", text_of(one, "action"), scalar_text(after));
        }
    }
}

std::optional<LookSettings> look_of(const char* why, const std::string& payment_failed, bool dry_run) {
    LookSettings settings;
    settings.why = why;
    settings.actor = actor();
    settings.dry = dry_run;
    const auto space = payment_failed.find(' ');
    settings.payment_policy = payment_failed.substr(0, space);
    if (settings.payment_policy == "grace") {
        settings.grace_seconds = std::int64_t{7} * 86400;
    }
    bool good = settings.payment_policy == "grace" || settings.payment_policy == "maintenance";
    if (good && space != std::string::npos) {
        settings.grace_seconds = parse_duration(payment_failed.substr(space + 1));
        good = settings.grace_seconds.has_value();
    }
    if (!good) {
        fail(k_exit_usage, "--payment-failed: write as billing_payment_failed in nginx.conf has it: 'grace 7d', "
                           "maintenance, or 'maintenance 14d'");
        return std::nullopt;
    }
    return settings;
}

} // namespace billing
