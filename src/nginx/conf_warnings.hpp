// What `nginx -t` warns of: other modules' directives that answer before the gate, or ask it before anybody is known,
// and settings that a binary upgrade would not find. Called in the master when the configuration is read.
#pragma once

#include "nginx/ngx.hpp"

#include "nginx/conf_place.hpp"

namespace billing {

struct LocConf;

// A gated location that answers by `return`, or by a `rewrite` that redirects.
void warn_of_early_answer(ngx_conf_t* cf, const LocConf& conf);

// A level whose account is $remote_user, and nothing at it checks the password. Once for each `billing_account`.
void warn_of_unchecked_user(ngx_conf_t* cf, const ConfPlace& place);

// The level has `deny all`, so that it is for those addresses alone that an `allow` before it names.
bool is_closed_to_strangers(const ngx_conf_t* cf) noexcept;

// Targets of `auth_request` that are gated. After all levels are merged.
void warn_of_gated_targets(ngx_conf_t* cf);

// Settings from variables of the environment that nginx does not keep: another binary, started by USR2, would not find
// them. nginx's hook of the module, once the whole configuration is read.
ngx_int_t warn_of_environment(ngx_cycle_t* cycle);

} // namespace billing
