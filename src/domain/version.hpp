// Which ngx_billing this is, for billing_metrics and the command.
#pragma once

#include <string_view>

namespace billing {

inline constexpr std::string_view k_version = "0.1.0";

} // namespace billing
