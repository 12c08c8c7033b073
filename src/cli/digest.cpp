#include "cli/digest.hpp"

#include <openssl/evp.h>

#include <array>
#include <fmt/format.h>

namespace billing {

std::string sha256_of(std::string_view text) {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned size = 0;
    EVP_Digest(text.data(), text.size(), digest.data(), &size, EVP_sha256(), nullptr);
    std::string hex;
    for (unsigned index = 0; index < size; ++index) {
        hex += fmt::format("{:02x}", digest[index]);
    }
    return hex;
}

} // namespace billing
