// ngx_http_billing_module: the front door. What can be configured, which phases we stand in, when processes begin and
// end; the rooms behind each line are in src/. A gated request goes to gate_handler and settle_handler; a location of
// ours to endpoint_handler and from there to src/endpoints/; what works without a request begins in init_process.
#include "nginx/ngx.hpp"

#include "nginx/checkout_directives.hpp"
#include "nginx/conf.hpp"
#include "nginx/conf_warnings.hpp"
#include "nginx/directives.hpp"
#include "nginx/endpoint_directives.hpp"
#include "nginx/gate_handler.hpp"
#include "nginx/identity_directives.hpp"
#include "nginx/identity_variables.hpp"
#include "nginx/key_handler.hpp"
#include "nginx/own_fields.hpp"
#include "nginx/path_handler.hpp"
#include "nginx/stripe_directives.hpp"
#include "nginx/variables.hpp"
#include "nginx/worker.hpp"

namespace {

using namespace billing;

constexpr ngx_uint_t k_everywhere = NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF;

constexpr ngx_command_t http_directive(ngx_str_t name, ngx_uint_t words,
                                       char* (*set)(ngx_conf_t*, ngx_command_t*, void*)) {
    return {name, NGX_HTTP_MAIN_CONF | words, set, NGX_HTTP_MAIN_CONF_OFFSET, 0, nullptr};
}

constexpr ngx_command_t level_directive(ngx_str_t name, ngx_uint_t words,
                                        char* (*set)(ngx_conf_t*, ngx_command_t*, void*)) {
    return {name, k_everywhere | words, set, NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr};
}

// A content handler stands in a location, not in a level above it or in an "if".
constexpr ngx_command_t content_directive(ngx_str_t name, ngx_uint_t words,
                                          char* (*set)(ngx_conf_t*, ngx_command_t*, void*)) {
    return {name, NGX_HTTP_LOC_CONF | words, set, NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr};
}

ngx_command_t commands[] = {
    // http
    http_directive(ngx_string("billing_zone"), NGX_CONF_TAKE2, set_zone),          // NAME SIZE: the shared memory
    http_directive(ngx_string("billing_postgres"), NGX_CONF_TAKE12, set_postgres), // DSN [listen=DSN]: the truth
    http_directive(ngx_string("billing_redis"), NGX_CONF_TAKE1,
                   set_redis), // ADDRESS: cache and stream for several hosts
    http_directive(ngx_string("billing_catalog"), NGX_CONF_TAKE1, set_catalog), // FILE: what is for sale
    http_directive(ngx_string("billing_stripe"), NGX_CONF_TAKE123, set_stripe), // key=SETTING [api=URL] [version=V]
    http_directive(ngx_string("billing_payment_failed"), NGX_CONF_TAKE12,
                   set_payment_failed), // grace | maintenance [TIME]
    http_directive(ngx_string("billing_keep_payloads"), NGX_CONF_TAKE1, set_keep_payloads), // TIME: of done events
    http_directive(ngx_string("billing_payment_disputed"), NGX_CONF_TAKE1,
                   set_payment_disputed),                                         // notify | maintenance
    http_directive(ngx_string("billing_jobs"), NGX_CONF_TAKE1, set_jobs),         // on | off: the work for all hosts
    http_directive(ngx_string("billing_dev_mode"), NGX_CONF_TAKE1, set_dev_mode), // on | off: billing_upgrade may be
    http_directive(ngx_string("billing_metadata"), NGX_CONF_1MORE, set_metadata), // WHAT=NAME... of our metadata there

    // http, server, location
    level_directive(ngx_string("billing"), NGX_CONF_TAKE1, set_mode), // on | off | observe

    // who pays
    level_directive(ngx_string("billing_account"), NGX_CONF_TAKE1, set_account),         // VALUE
    level_directive(ngx_string("billing_unknown_account"), NGX_CONF_TAKE1, set_unknown), // create | free | deny
    level_directive(ngx_string("billing_jwt"), NGX_CONF_1MORE, set_jwt),         // alg=A secret=S | jwks=K ... | off
    level_directive(ngx_string("billing_api_key"), NGX_CONF_TAKE1, set_api_key), // VALUE: where the key is | off

    // for what
    level_directive(ngx_string("billing_plan"), NGX_CONF_1MORE, set_plan),       // NAME... | >=NAME
    level_directive(ngx_string("billing_feature"), NGX_CONF_1MORE, set_feature), // NAME... [match=all|any]
    level_directive(ngx_string("billing_quota"), NGX_CONF_1MORE,
                    set_quota), // NAME [cost=N|$variable] [window=NAME] [settle=$variable] [max=N]
    level_directive(ngx_string("billing_rate"), NGX_CONF_TAKE12, set_rate), // NAME [hosts=N]
    level_directive(ngx_string("billing_credits"), NGX_CONF_2MORE,
                    set_credits), // TYPE N|$variable [hold=TIME] [settle=$variable] [max=N]
    level_directive(ngx_string("billing_stock"), NGX_CONF_2MORE,
                    set_stock), // NAME create|delete [N] [method=M] [hold=TIME]
    level_directive(ngx_string("billing_read_methods"), NGX_CONF_1MORE, set_read_methods), // METHOD...
    level_directive(ngx_string("billing_live_status"), NGX_CONF_1MORE, set_live_status),   // STATUS...

    level_directive(ngx_string("billing_strict_path"), NGX_CONF_TAKE1, set_strict_path), // on | off
    level_directive(ngx_string("billing_idempotency_key"), NGX_CONF_TAKE12,
                    set_idempotency_key),                                                // VALUE [window=TIME] | off
    level_directive(ngx_string("billing_paid_status"), NGX_CONF_1MORE, set_paid_status), // 2xx | 404...
    level_directive(ngx_string("billing_cache_hits"), NGX_CONF_TAKE1, set_cache_hits),   // charged | free
    level_directive(ngx_string("billing_recheck"), NGX_CONF_TAKE1, set_recheck),         // TIME | off

    // what the application is told
    level_directive(ngx_string("billing_pass_headers"), NGX_CONF_TAKE1, set_pass_headers), // on | off

    // and if not
    level_directive(ngx_string("billing_on_error"), NGX_CONF_TAKE12, set_on_error), // [stale=TIME] 503 | allow
    level_directive(ngx_string("billing_codes"), NGX_CONF_1MORE, set_codes),        // REASON=STATUS...

    // the pages around a checkout
    level_directive(ngx_string("billing_public_url"), NGX_CONF_TAKE1, set_public_url),   // URL of the pages
    level_directive(ngx_string("billing_success_url"), NGX_CONF_TAKE1, set_success_url), // URL | PATH after paying
    level_directive(ngx_string("billing_cancel_url"), NGX_CONF_TAKE1, set_cancel_url),   // URL | PATH after not paying
    level_directive(ngx_string("billing_return_urls"), NGX_CONF_1MORE, set_return_urls), // URL... that clients may name
    level_directive(ngx_string("billing_webhook_secret"), NGX_CONF_1MORE, set_webhook_secret), // SETTING...

    // how a checkout looks, and who may start one
    level_directive(ngx_string("billing_checkout_session"), NGX_CONF_1MORE, set_checkout_session), // NAME=VALUE...
    level_directive(ngx_string("billing_customer"), NGX_CONF_TAKE12, set_customer), // [email=VALUE] [name=VALUE]
    level_directive(ngx_string("billing_role"), NGX_CONF_1MORE, set_role),          // VALUE [ROLE...]
    level_directive(ngx_string("billing_subject"), NGX_CONF_1MORE, set_subject),    // VALUE [ROLE...]

    // location: who asks, where nothing before us knows
    content_directive(ngx_string("billing_account_from"), NGX_CONF_1MORE,
                      set_account_from), // body:NAME | query:NAME... [token=SETTING]... [certificate]

    // location: what answers itself
    content_directive(ngx_string("billing_checkout"), NGX_CONF_ANY,
                      set_checkout), // [redirect] [plan=NAME] [packs=N-M]...
    content_directive(ngx_string("billing_portal"), NGX_CONF_ANY,
                      set_portal), // [redirect] [create] [configuration=S]...
    content_directive(ngx_string("billing_settings"), NGX_CONF_NOARGS, set_settings), // the account's own switches
    content_directive(ngx_string("billing_status"), NGX_CONF_NOARGS, set_status),     // all that an account may know
    content_directive(ngx_string("billing_entitlements"), NGX_CONF_1MORE, set_entitlements), // quota=Q preview=F
    content_directive(ngx_string("billing_upgrade"), NGX_CONF_NOARGS, set_upgrade),          // for development
    content_directive(ngx_string("billing_webhook"), NGX_CONF_NOARGS | NGX_CONF_TAKE1, set_webhook), // [tolerance=TIME]
    content_directive(ngx_string("billing_check"), NGX_CONF_NOARGS, set_check), // the decision, for other proxies
    content_directive(ngx_string("billing_credits_api"), NGX_CONF_1MORE,
                      set_credits_api),                                             // token=SETTING | certificate
    content_directive(ngx_string("billing_metrics"), NGX_CONF_NOARGS, set_metrics), // for the inside
    ngx_null_command,
};

ngx_int_t push_handler(ngx_conf_t* cf, ngx_http_phases phase, ngx_http_handler_pt handler) {
    auto* core = static_cast<ngx_http_core_main_conf_t*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));
    auto* slot = static_cast<ngx_http_handler_pt*>(ngx_array_push(&core->phases[phase].handlers));
    if (slot == nullptr) {
        return NGX_ERROR;
    }
    *slot = handler;
    return NGX_OK;
}

// Of a phase's handlers nginx runs the last one first.
ngx_int_t install_handlers(ngx_conf_t* cf) {
    const MainConf& main = main_conf(cf);
    if (main.zone != nullptr && claim_own_fields(cf) != NGX_OK) {
        return NGX_ERROR;
    }
    if (main.gated) {
        warn_of_gated_targets(cf);
    }
    if (main.gated && (push_handler(cf, NGX_HTTP_PRECONTENT_PHASE, gate_handler) != NGX_OK ||
                       push_handler(cf, NGX_HTTP_LOG_PHASE, settle_handler) != NGX_OK)) {
        return NGX_ERROR;
    }
    const bool looks_up_keys = !main.key_sources.empty() && (main.gated || main.endpoints);
    if (looks_up_keys && push_handler(cf, NGX_HTTP_PRECONTENT_PHASE, key_handler) != NGX_OK) {
        return NGX_ERROR;
    }
    return main.strict_paths ? push_handler(cf, NGX_HTTP_PRECONTENT_PHASE, path_handler) : NGX_OK;
}

ngx_int_t add_all_variables(ngx_conf_t* cf) {
    return add_variables(cf) == NGX_OK ? add_identity_variables(cf) : NGX_ERROR;
}

ngx_http_module_t hooks = {
    .preconfiguration = add_all_variables,
    .postconfiguration = install_handlers,
    .create_main_conf = create_main_conf,
    .init_main_conf = nullptr,
    .create_srv_conf = nullptr,
    .merge_srv_conf = nullptr,
    .create_loc_conf = create_loc_conf,
    .merge_loc_conf = merge_loc_conf,
};

} // namespace

ngx_module_t ngx_http_billing_module = {
    NGX_MODULE_V1,
    &hooks,
    commands,
    NGX_HTTP_MODULE,
    nullptr, // init_master: nginx never calls it
    warn_of_environment,
    init_process, // connections, gate and jobs of a worker begin
    nullptr,      // init_thread
    nullptr,      // exit_thread
    exit_process, // and end
    nullptr,      // exit_master
    NGX_MODULE_V1_PADDING,
};
