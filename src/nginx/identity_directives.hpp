// The setters of the directives of built-in identity; as those in directives.hpp.
#pragma once

#include "nginx/ngx.hpp"

namespace billing {

// http, server, location
char* set_jwt(ngx_conf_t* cf, ngx_command_t* command, void* conf);     // billing_jwt alg=... secret=|jwks= ... | off
char* set_api_key(ngx_conf_t* cf, ngx_command_t* command, void* conf); // billing_api_key VALUE | off

} // namespace billing
