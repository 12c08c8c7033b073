// Stripe-Signature: is this body what Stripe (or who knows the secret) has sent, and lately? Pure; called by the
// webhook endpoint before anything else looks at the body.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace billing {

enum class SignatureVerdict {
    valid,
    missing,   // no header
    malformed, // not "t=<digits>,v1=<hex>[,v1=<hex>...]", or too long, or too many of them
    stale,     // t is too far from now, in either direction; nothing was computed
    wrong,     // no v1 matches with any secret, or there is no secret
};

// Fit for the log.
const char* signature_verdict_text(SignatureVerdict verdict) noexcept;

// `body`: the raw bytes. `secrets`: "whsec_...", any of them may match (both are valid while one is being replaced); an
// empty one never matches. `now` and `tolerance` in seconds; a tolerance below 1 counts as 1. Time of comparison
// depends on nothing secret; at most one HMAC for each secret.
SignatureVerdict verify_signature(std::string_view header, std::string_view body, std::span<const std::string> secrets,
                                  std::int64_t now, std::int64_t tolerance);

} // namespace billing
