// The directives' setters: each reads the words of one directive into MainConf or LocConf, or says what to write
// instead. Run in the master at `nginx -t`, start and reload; the network is not touched but for resolving host names.
#pragma once

#include "nginx/ngx.hpp"

namespace billing {

// http
char* set_zone(ngx_conf_t* cf, ngx_command_t* command, void* conf);     // billing_zone NAME SIZE
char* set_postgres(ngx_conf_t* cf, ngx_command_t* command, void* conf); // billing_postgres DSN [listen=DSN]
char* set_redis(ngx_conf_t* cf, ngx_command_t* command, void* conf);    // billing_redis ADDRESS
char* set_catalog(ngx_conf_t* cf, ngx_command_t* command, void* conf);  // billing_catalog FILE

// http, server, location
char* set_mode(ngx_conf_t* cf, ngx_command_t* command, void* conf);    // billing on|off|observe
char* set_account(ngx_conf_t* cf, ngx_command_t* command, void* conf); // billing_account VALUE
char* set_unknown(ngx_conf_t* cf, ngx_command_t* command, void* conf); // billing_unknown_account create|free|deny
char* set_plan(ngx_conf_t* cf, ngx_command_t* command, void* conf);    // billing_plan NAME... | >=NAME
char* set_feature(ngx_conf_t* cf, ngx_command_t* command, void* conf); // billing_feature NAME... [match=all|any]
char* set_quota(ngx_conf_t* cf, ngx_command_t* command, void* conf);   // billing_quota NAME [cost=N|$variable]
char* set_rate(ngx_conf_t* cf, ngx_command_t* command, void* conf);    // billing_rate NAME [hosts=N]
char* set_idempotency_key(ngx_conf_t* cf, ngx_command_t* command, void* conf); // billing_idempotency_key VALUE|off
char* set_paid_status(ngx_conf_t* cf, ngx_command_t* command, void* conf);     // billing_paid_status STATUS...
char* set_credits(ngx_conf_t* cf, ngx_command_t* command, void* conf); // billing_credits TYPE N|$variable [hold=TIME]
char* set_stock(ngx_conf_t* cf, ngx_command_t* command,
                void* conf); // billing_stock NAME create|delete [N] [method=M] [hold=TIME]
char* set_on_error(ngx_conf_t* cf, ngx_command_t* command, void* conf);     // billing_on_error [stale=TIME] 503|allow
char* set_codes(ngx_conf_t* cf, ngx_command_t* command, void* conf);        // billing_codes REASON=CODE...
char* set_read_methods(ngx_conf_t* cf, ngx_command_t* command, void* conf); // billing_read_methods METHOD...
char* set_live_status(ngx_conf_t* cf, ngx_command_t* command, void* conf);  // billing_live_status STATUS...

// location
char* set_pass_headers(ngx_conf_t* cf, ngx_command_t* command, void* conf); // billing_pass_headers on | off
char* set_strict_path(ngx_conf_t* cf, ngx_command_t* command, void* conf);  // billing_strict_path on | off
char* set_cache_hits(ngx_conf_t* cf, ngx_command_t* command, void* conf);   // billing_cache_hits charged | free
char* set_recheck(ngx_conf_t* cf, ngx_command_t* command, void* conf);      // billing_recheck TIME | off
char* set_check(ngx_conf_t* cf, ngx_command_t* command, void* conf);        // billing_check

} // namespace billing
