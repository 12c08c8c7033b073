// The $billing_* variables: what the gate recorded of a request, for logs, maps and upstream headers. They start no
// work.
#pragma once

#include "nginx/ngx.hpp"

#include "nginx/gate_handler.hpp"

namespace billing {

// nginx's hook, before the configuration is read.
ngx_int_t add_variables(ngx_conf_t* cf);

// What one of them says of a request, by its name without "$"; "" for nothing.
std::string read_variable(const RequestRecord& record, std::string_view name);

} // namespace billing
