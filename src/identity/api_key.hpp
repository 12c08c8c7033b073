// API keys as text: bk_<10 letters and digits>_<64 hex digits>. The part up to the second underscore is the key's name,
// which may be shown; the rest is 256 random bits, of which only a digest is kept. Pure; the command makes keys,
// workers look at them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace billing {

inline constexpr std::size_t k_api_key_prefix_bytes = 13;
inline constexpr std::size_t k_api_key_bytes = k_api_key_prefix_bytes + 1 + 64;

// Everything else is refused before it is looked up.
bool valid_api_key(std::string_view text) noexcept;
bool valid_api_key_prefix(std::string_view text) noexcept;

// Of a valid key.
inline std::string_view api_key_prefix(std::string_view key) noexcept { return key.substr(0, k_api_key_prefix_bytes); }
// SHA-256 in hex. Enough for a secret that nobody chose: there is nothing to guess.
std::string api_key_digest(std::string_view key);

// "" when there is no randomness to be had.
std::string new_api_key();

} // namespace billing
