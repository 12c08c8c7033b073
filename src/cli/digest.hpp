// SHA-256 in hex, of files and of what was sent.
#pragma once

#include <string>
#include <string_view>

namespace billing {

std::string sha256_of(std::string_view text);

} // namespace billing
