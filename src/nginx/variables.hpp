// The $billing_* variables: what the gate recorded of a request, for logs, maps and upstream headers. They start no
// work.
#pragma once

#include "nginx/ngx.hpp"

#include "nginx/gate_handler.hpp"

namespace billing {

// nginx's hook, before the configuration is read.
ngx_int_t add_variables(ngx_conf_t* cf);

// What the variables of this request show: what was decided of it, or of the client's request that it is for. Null:
// nothing.
const RequestRecord* shown_record(ngx_http_request_t* r) noexcept;

// An attribute of the account's plan; null when the plan has none of that name.
const std::string* read_attribute(const RequestRecord& record, std::string_view name) noexcept;

// What one of them says of a request, by its name without "$"; "" for nothing.
std::string read_variable(const RequestRecord& record, std::string_view name);

} // namespace billing
