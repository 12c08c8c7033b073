// The setters of how a checkout looks and who may start one; as those in directives.hpp. http, server, location.
#pragma once

#include "nginx/ngx.hpp"

namespace billing {

char* set_checkout_session(ngx_conf_t* cf, ngx_command_t* command,
                           void* conf);                                 // billing_checkout_session NAME=VALUE...
char* set_customer(ngx_conf_t* cf, ngx_command_t* command, void* conf); // billing_customer [email=VALUE] [name=VALUE]
char* set_role(ngx_conf_t* cf, ngx_command_t* command, void* conf);     // billing_role VALUE [ROLE...]
char* set_subject(ngx_conf_t* cf, ngx_command_t* command, void* conf);  // billing_subject VALUE [ROLE...]

} // namespace billing
