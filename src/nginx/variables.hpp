// The $billing_* variables: what the gate recorded of a request, for logs, maps and upstream headers. They start no
// work.
#pragma once

#include "nginx/ngx.hpp"

namespace billing {

// nginx's hook, before the configuration is read.
ngx_int_t add_variables(ngx_conf_t* cf);

} // namespace billing
