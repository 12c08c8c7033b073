// The text form of bytes in tokens and keys (RFC 4648 section 5, without padding). Pure; any process.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace billing {

// Nothing unless the text is the one way to write its bytes: no padding, no white space, no bits left over.
std::optional<std::string> decode_base64url(std::string_view text);

} // namespace billing
