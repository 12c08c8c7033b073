// What `nginx -t` warns of: other modules' directives that answer before the gate, or ask it before anybody is known.
// Called in the master when the configuration is read.
#pragma once

#include "nginx/ngx.hpp"

namespace billing {

struct LocConf;

// A gated location that answers by `return`, or by a `rewrite` that redirects.
void warn_of_early_answer(ngx_conf_t* cf, const LocConf& conf);

// Targets of `auth_request` that are gated. After all levels are merged.
void warn_of_gated_targets(ngx_conf_t* cf);

} // namespace billing
