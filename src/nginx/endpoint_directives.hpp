// The setters of the directives around Stripe and of our own locations; as those in directives.hpp.
#pragma once

#include "nginx/ngx.hpp"

namespace billing {

// http
char* set_stripe(ngx_conf_t* cf, ngx_command_t* command,
                 void* conf); // billing_stripe key=SETTING [api=URL] [version=V]
char* set_payment_failed(ngx_conf_t* cf, ngx_command_t* command,
                         void* conf); // billing_payment_failed grace|maintenance [TIME]
char* set_payment_disputed(ngx_conf_t* cf, ngx_command_t* command,
                           void* conf);                             // billing_payment_disputed notify|maintenance
char* set_jobs(ngx_conf_t* cf, ngx_command_t* command, void* conf); // billing_jobs on|off

// http, server, location
char* set_public_url(ngx_conf_t* cf, ngx_command_t* command, void* conf);     // billing_public_url URL
char* set_success_url(ngx_conf_t* cf, ngx_command_t* command, void* conf);    // billing_success_url URL|PATH
char* set_cancel_url(ngx_conf_t* cf, ngx_command_t* command, void* conf);     // billing_cancel_url URL|PATH
char* set_webhook_secret(ngx_conf_t* cf, ngx_command_t* command, void* conf); // billing_webhook_secret SETTING...

// location
char* set_checkout(ngx_conf_t* cf, ngx_command_t* command, void* conf); // billing_checkout [redirect]
char* set_portal(ngx_conf_t* cf, ngx_command_t* command, void* conf);   // billing_portal [redirect]
char* set_webhook(ngx_conf_t* cf, ngx_command_t* command, void* conf);  // billing_webhook
char* set_metrics(ngx_conf_t* cf, ngx_command_t* command, void* conf);  // billing_metrics

} // namespace billing
