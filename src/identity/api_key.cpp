#include "identity/api_key.hpp"

#include <openssl/rand.h>
#include <openssl/sha.h>

#include <algorithm>
#include <array>

namespace billing {

namespace {

constexpr std::string_view k_mark = "bk_";
constexpr std::string_view k_name_digits = "abcdefghijklmnopqrstuvwxyz234567";
constexpr std::string_view k_hex = "0123456789abcdef";
constexpr std::size_t k_name_bytes = k_api_key_prefix_bytes - k_mark.size();
constexpr std::size_t k_secret_bytes = 32;

bool made_of(std::string_view text, std::string_view digits) noexcept {
    return std::all_of(text.begin(), text.end(), [digits](char c) { return digits.find(c) != digits.npos; });
}

std::string hex(const unsigned char* bytes, std::size_t size) {
    std::string text;
    for (std::size_t index = 0; index < size; ++index) {
        text += k_hex[bytes[index] >> 4];
        text += k_hex[bytes[index] & 15];
    }
    return text;
}

} // namespace

bool valid_api_key_prefix(std::string_view text) noexcept {
    return text.size() == k_api_key_prefix_bytes && text.starts_with(k_mark) &&
           made_of(text.substr(k_mark.size()), k_name_digits);
}

bool valid_api_key(std::string_view text) noexcept {
    return text.size() == k_api_key_bytes && valid_api_key_prefix(api_key_prefix(text)) &&
           text[k_api_key_prefix_bytes] == '_' && made_of(text.substr(k_api_key_prefix_bytes + 1), k_hex);
}

std::string api_key_digest(std::string_view key) {
    std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
    SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
    return hex(digest.data(), digest.size());
}

std::string new_api_key() {
    std::array<unsigned char, k_name_bytes + k_secret_bytes> random{};
    if (RAND_bytes(random.data(), static_cast<int>(random.size())) != 1) {
        return {};
    }
    std::string key{k_mark};
    for (std::size_t index = 0; index < k_name_bytes; ++index) {
        key += k_name_digits[random[index] & 31];
    }
    return key + "_" + hex(random.data() + k_name_bytes, k_secret_bytes);
}

} // namespace billing
