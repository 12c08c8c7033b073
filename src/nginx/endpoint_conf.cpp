#include "nginx/endpoint_conf.hpp"

#include "nginx/conf.hpp"
#include "nginx/endpoint_handler.hpp"

namespace billing {

namespace {

const char* name_of(EndpointKind kind) noexcept {
    switch (kind) {
    case EndpointKind::checkout:
        return "billing_checkout";
    case EndpointKind::portal:
        return "billing_portal";
    case EndpointKind::webhook:
        return "billing_webhook";
    case EndpointKind::metrics:
        return "billing_metrics";
    case EndpointKind::none:
        break;
    }
    return "";
}

std::string whole(const std::string& url, const std::string& base) { return url.front() == '/' ? base + url : url; }

void warn(ngx_conf_t* cf, const ConfPlace& place, const char* what) {
    ngx_log_error(NGX_LOG_WARN, cf->log, 0, "billing: %s in %s:%ui", what, place.file.c_str(), place.line);
}

// Checkout and portal are asked by an account, and lead back to a page.
char* finish_page(ngx_conf_t* cf, LocConf& loc, const MainConf& main) {
    EndpointConf& conf = loc.endpoint;
    const std::string name = name_of(conf.kind);
    if (!loc.account.given()) {
        return complain(cf, conf.place,
                        "\"" + name + "\" needs to know who asks; write \"billing_account $variable;\" beside it");
    }
    if (!main.stripe) {
        return NGX_CONF_OK; // leads nowhere
    }
    if (!conf.public_url) {
        return complain(cf, conf.place,
                        "\"" + name +
                            "\" needs to know where your pages are; write \"billing_public_url "
                            "https://app.example.com;\"");
    }
    EndpointSettings& settings = conf.settings;
    settings.public_url = *conf.public_url;
    settings.success_url =
        whole(conf.success_url.value_or("/?checkout=success&session_id={CHECKOUT_SESSION_ID}"), settings.public_url);
    settings.cancel_url = whole(conf.cancel_url.value_or("/?checkout=canceled"), settings.public_url);
    const auto& paths = main.paths_of(ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module));
    settings.portal_url = paths.portal.empty() ? "" : settings.public_url + paths.portal;
    settings.redirect = conf.redirect;
    settings.create_accounts = loc.unknown_account != UnknownAccount::deny;
    return NGX_CONF_OK;
}

} // namespace

void inherit_handler(ngx_conf_t* cf, EndpointConf& conf, const EndpointConf& parent) {
    auto* core = static_cast<ngx_http_core_loc_conf_t*>(ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
    if (core->noname && conf.kind == EndpointKind::none && parent.kind != EndpointKind::none) {
        conf.kind = parent.kind;
        conf.redirect = parent.redirect;
        conf.place = parent.place;
        core->handler = endpoint_handler;
    }
}

void inherit_endpoint(EndpointConf& conf, const EndpointConf& parent) {
    conf.public_url = conf.public_url ? conf.public_url : parent.public_url;
    conf.success_url = conf.success_url ? conf.success_url : parent.success_url;
    conf.cancel_url = conf.cancel_url ? conf.cancel_url : parent.cancel_url;
    if (conf.secrets.empty()) {
        conf.secrets = parent.secrets;
    }
}

char* finish_endpoint(ngx_conf_t* cf, LocConf& loc, const MainConf& main) {
    EndpointConf& conf = loc.endpoint;
    if (conf.kind == EndpointKind::metrics) {
        return NGX_CONF_OK;
    }
    if (!main.stripe) {
        warn(cf, conf.place, "there is no billing_stripe: this location will answer 503");
    }
    if (conf.kind != EndpointKind::webhook) {
        return finish_page(cf, loc, main);
    }
    if (conf.secrets.empty()) {
        warn(cf, conf.place, "there is no billing_webhook_secret: this location will answer 503");
    }
    conf.settings.secrets = conf.secrets;
    return NGX_CONF_OK;
}

} // namespace billing
