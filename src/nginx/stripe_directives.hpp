// The setters of what http says of Stripe; as those in directives.hpp.
#pragma once

#include "nginx/ngx.hpp"

namespace billing {

char* set_stripe(ngx_conf_t* cf, ngx_command_t* command,
                 void* conf); // billing_stripe key=SETTING [api=URL] [version=V]
char* set_payment_failed(ngx_conf_t* cf, ngx_command_t* command,
                         void* conf); // billing_payment_failed grace|maintenance [TIME]
char* set_payment_disputed(ngx_conf_t* cf, ngx_command_t* command,
                           void* conf); // billing_payment_disputed notify|maintenance
char* set_keep_payloads(ngx_conf_t* cf, ngx_command_t* command, void* conf); // billing_keep_payloads TIME
char* set_jobs(ngx_conf_t* cf, ngx_command_t* command, void* conf);          // billing_jobs on|off
char* set_dev_mode(ngx_conf_t* cf, ngx_command_t* command, void* conf);      // billing_dev_mode on|off
char* set_metadata(ngx_conf_t* cf, ngx_command_t* command,
                   void* conf); // billing_metadata [account=N] [plan=N] [credit=N] [quantity=N]

} // namespace billing
