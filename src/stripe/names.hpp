// Texts of Stripe which settings and callers bring: is it what it has to be? Pure; at configuration time and before a
// text becomes part of a request.
#pragma once

#include <string>
#include <string_view>

namespace billing {

// Which world a key belongs to; events of the other one have no effect.
enum class KeyMode { live, test, unknown };
// "sk_live_...", "rk_test_..." and the like.
KeyMode key_mode(std::string_view key) noexcept;

// "2026-02-25.clover", "2020-08-27".
bool is_api_version(std::string_view text) noexcept;

// An id that can stand in a path: 1 to 255 of [A-Za-z0-9_-].
bool is_object_id(std::string_view text) noexcept;

// Without the white space which editors and secret stores leave at the ends of a key or secret.
std::string trim_secret(std::string_view text);

} // namespace billing
