// The setters of our own locations, and of the pages around them; as those in directives.hpp.
#pragma once

#include "nginx/ngx.hpp"

namespace billing {

// http, server, location
char* set_public_url(ngx_conf_t* cf, ngx_command_t* command, void* conf);     // billing_public_url URL
char* set_success_url(ngx_conf_t* cf, ngx_command_t* command, void* conf);    // billing_success_url URL|PATH
char* set_cancel_url(ngx_conf_t* cf, ngx_command_t* command, void* conf);     // billing_cancel_url URL|PATH
char* set_return_urls(ngx_conf_t* cf, ngx_command_t* command, void* conf);    // billing_return_urls URL...
char* set_webhook_secret(ngx_conf_t* cf, ngx_command_t* command, void* conf); // billing_webhook_secret SETTING...

// location
char* set_account_from(ngx_conf_t* cf, ngx_command_t* command,
                       void* conf); // billing_account_from body:NAME | query:NAME... [token=SETTING]... [certificate]
char* set_checkout(ngx_conf_t* cf, ngx_command_t* command, void* conf); // billing_checkout [redirect] [plan=NAME]
char* set_portal(ngx_conf_t* cf, ngx_command_t* command,
                 void* conf); // billing_portal [redirect] [create] [configuration=SETTING] [return_url=SETTING]
char* set_upgrade(ngx_conf_t* cf, ngx_command_t* command, void* conf); // billing_upgrade
char* set_webhook(ngx_conf_t* cf, ngx_command_t* command, void* conf); // billing_webhook
char* set_credits_api(ngx_conf_t* cf, ngx_command_t* command, void* conf);
char* set_settings(ngx_conf_t* cf, ngx_command_t* command, void* conf);     // billing_settings
char* set_status(ngx_conf_t* cf, ngx_command_t* command, void* conf);       // billing_status
char* set_entitlements(ngx_conf_t* cf, ngx_command_t* command, void* conf); // billing_entitlements quota=Q preview=F
char* set_metrics(ngx_conf_t* cf, ngx_command_t* command, void* conf);      // billing_metrics

} // namespace billing
