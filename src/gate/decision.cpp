#include "gate/decision.hpp"

#include <array>

namespace billing {

namespace {

struct Face {
    int status;
    std::string_view code;
};

constexpr std::array<Face, k_reasons> k_faces = {{
    {200, "ALLOWED"},
    {401, "ACCOUNT_REQUIRED"},
    {401, "INVALID_TOKEN"},
    {401, "INVALID_API_KEY"},
    {400, "INVALID_ACCOUNT"},
    {400, "INVALID_COST"},
    {400, "INVALID_IDEMPOTENCY_KEY"},
    {403, "UNKNOWN_ACCOUNT"},
    {403, "WRITE_DISABLED"},
    {402, "MAINTENANCE"},
    {402, "BILLING_ENFORCED"},
    {402, "SUBSCRIPTION_INACTIVE"},
    {403, "PLAN_REQUIRED"},
    {403, "FEATURE_NOT_IN_PLAN"},
    {409, "REQUEST_OUTSTANDING"},
    {422, "IDEMPOTENCY_KEY_REUSED"},
    {402, "LIMIT"},
    {429, "RATE"},
    {402, "INSUFFICIENT_CREDITS"},
    {402, "LIMIT"},
    {503, "BILLING_UNAVAILABLE"},
}};

constexpr std::array<std::string_view, 5> k_sources = {"none", "shm", "redis", "postgres", "stale"};

} // namespace

int default_status(Reason reason) noexcept { return k_faces[static_cast<std::size_t>(reason)].status; }

std::string_view code_of(Reason reason) noexcept { return k_faces[static_cast<std::size_t>(reason)].code; }

std::string_view challenge_of(Reason reason) noexcept {
    if (reason == Reason::invalid_token) {
        return "Bearer error=\"invalid_token\"";
    }
    return reason == Reason::no_account || reason == Reason::invalid_key ? "Bearer" : "";
}

std::string_view to_text(Source source) noexcept { return k_sources[static_cast<std::size_t>(source)]; }

} // namespace billing
