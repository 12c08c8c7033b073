#include "nginx/endpoint_conf.hpp"

#include "endpoints/webhook.hpp"
#include "nginx/conf.hpp"
#include "nginx/conf_warnings.hpp"
#include "nginx/endpoint_handler.hpp"
#include "stripe/names.hpp"

#include <algorithm>

namespace billing {

namespace {

const char* name_of(EndpointKind kind) noexcept {
    switch (kind) {
    case EndpointKind::checkout:
        return "billing_checkout";
    case EndpointKind::portal:
        return "billing_portal";
    case EndpointKind::upgrade:
        return "billing_upgrade";
    case EndpointKind::webhook:
        return "billing_webhook";
    case EndpointKind::metrics:
        return "billing_metrics";
    case EndpointKind::credits_api:
        return "billing_credits_api";
    case EndpointKind::settings:
        return "billing_settings";
    case EndpointKind::status:
        return "billing_status";
    case EndpointKind::entitlements:
        return "billing_entitlements";
    case EndpointKind::none:
        break;
    }
    return "";
}

// Empty where nothing says what a person's role is.
std::vector<std::string> roles_of(const std::optional<RoleSource>& source) {
    if (!source) {
        return {};
    }
    return source->roles.empty() ? std::vector<std::string>{"owner"} : source->roles;
}

void warn(ngx_conf_t* cf, const ConfPlace& place, const char* what) {
    ngx_log_error(NGX_LOG_WARN, cf->log, 0, "billing: %s in %s:%ui", what, place.file.c_str(), place.line);
}

// What is longer than we take is refused, but a chunked body only once nginx has all of it.
void warn_of_body_size(ngx_conf_t* cf, const EndpointConf& conf) {
    const auto* core =
        static_cast<const ngx_http_core_loc_conf_t*>(ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
    const off_t most = core->client_max_body_size;
    if (most == 0) {
        warn(cf, conf.place,
             "client_max_body_size is 0: whoever sends a body without end fills the disk with it; write "
             "\"client_max_body_size 1m;\"");
    } else if (conf.kind == EndpointKind::webhook && most < static_cast<off_t>(k_max_event_bytes)) {
        const std::string what = "client_max_body_size keeps out events of more than " + std::to_string(most) +
                                 " bytes, and some have 512 kB; write \"client_max_body_size 1m;\"";
        warn(cf, conf.place, what.c_str());
    }
}

// A plan for nothing: never where money is.
char* check_upgrade(ngx_conf_t* cf, const EndpointConf& conf, const MainConf& main) {
    if (!main.dev_mode.value_or(false)) {
        return complain(cf, conf.place,
                        "\"billing_upgrade\" gives plans away; write \"billing_dev_mode on;\" in http where that is "
                        "meant, or use billing_checkout");
    }
    if (main.stripe && key_mode(main.stripe->key) == KeyMode::live) {
        return complain(cf, conf.place,
                        "\"billing_upgrade\" gives plans away, and the key of billing_stripe is a live one; remove "
                        "either");
    }
    return NGX_CONF_OK;
}

template <class Names>
std::string list(const Names& names) {
    std::string text;
    for (const auto& name : names) {
        text += (text.empty() ? "" : ", ") + name;
    }
    return text.empty() ? "none" : text;
}

// Both names are of the catalog's.
char* finish_entitlements(ngx_conf_t* cf, EndpointConf& conf, const MainConf& main) {
    const auto& quotas = main.catalog->quotas();
    std::vector<std::string> limits;
    for (const auto& [quota, windows] : quotas) {
        for (const auto& [window, limit] : windows) {
            limits.push_back(limit);
        }
    }
    const auto& names = conf.entitlements;
    if (!names.limit.empty() && std::find(limits.begin(), limits.end(), names.limit) == limits.end()) {
        return complain(cf, conf.place,
                        "no quota \"" + names.limit + "\" in the catalog (" + main.catalog_path +
                            " has: " + list(limits) + ")");
    }
    if (!names.feature.empty() && !main.catalog->features().contains(names.feature)) {
        return complain(cf, conf.place,
                        "no feature \"" + names.feature + "\" in the catalog (" + main.catalog_path +
                            " has: " + list(main.catalog->features()) + ")");
    }
    conf.settings.entitlements = names;
    return NGX_CONF_OK;
}

// Callers may be asked to name their account themselves; a person's own switches, and what is not of an account, are
// not for that.
bool may_be_named(EndpointKind kind) noexcept {
    return kind == EndpointKind::checkout || kind == EndpointKind::portal || kind == EndpointKind::upgrade ||
           kind == EndpointKind::status || kind == EndpointKind::entitlements;
}

// Whoever reaches the location acts for any account.
char* check_named(ngx_conf_t* cf, EndpointConf& conf, const MainConf& main) {
    const NamedAccount& named = *conf.named;
    conf.settings.account_from = named.from;
    conf.settings.api_tokens = named.tokens;
    if (named.from.guarded || is_closed_to_strangers(cf)) {
        return NGX_CONF_OK;
    }
    if (main.stripe && key_mode(main.stripe->key) == KeyMode::live) {
        return complain(cf, named.place,
                        "\"billing_account_from\" lets whoever reaches this location act for any account, and the key "
                        "of billing_stripe is a live one; write token=file:PATH or certificate beside it, or in the "
                        "location \"allow ADDRESS;\" and \"deny all;\"");
    }
    warn(cf, named.place,
         "\"billing_account_from\" lets whoever reaches this location act for any account; write token=file:PATH or "
         "certificate beside it, or in the location \"allow ADDRESS;\" and \"deny all;\"");
    return NGX_CONF_OK;
}

// Those are asked by an account, and lead back to a page.
char* finish_page(ngx_conf_t* cf, LocConf& loc, const MainConf& main) {
    EndpointConf& conf = loc.endpoint;
    const std::string name = name_of(conf.kind);
    if (conf.named) {
        if (char* problem = check_named(cf, conf, main); problem != NGX_CONF_OK) {
            return problem;
        }
    } else if (!loc.account.given()) {
        return complain(cf, conf.place,
                        "\"" + name + "\" needs to know who asks; write \"billing_account $variable;\" beside it");
    }
    conf.settings.create_accounts = loc.unknown_account != UnknownAccount::deny;
    conf.settings.roles = roles_of(conf.role);
    conf.settings.member_roles = roles_of(conf.subject);
    conf.settings.pages.public_url = conf.public_url.value_or("");
    if (conf.kind == EndpointKind::upgrade) {
        return check_upgrade(cf, conf, main);
    }
    if (conf.kind == EndpointKind::entitlements) {
        return finish_entitlements(cf, conf, main);
    }
    if (conf.kind == EndpointKind::settings || conf.kind == EndpointKind::status) {
        return NGX_CONF_OK;
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
    settings.pages.success = conf.success_url.value_or(settings.pages.success);
    settings.pages.cancel = conf.cancel_url.value_or(settings.pages.cancel);
    settings.pages.back = conf.portal_return.empty() ? settings.pages.back : conf.portal_return;
    settings.pages.allowed_urls = conf.return_urls.value_or(settings.pages.allowed_urls);
    settings.checkout = conf.checkout.value_or(settings.checkout);
    settings.metadata = main.metadata.value_or(settings.metadata);
    settings.default_plan = conf.default_plan;
    settings.packs = conf.packs;
    settings.seats = conf.seats;
    settings.portal_configuration = conf.portal_configuration;
    settings.portal_makes_customer = conf.portal_makes_customer;
    const auto& paths = main.paths_of(ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module));
    settings.portal_url = paths.portal.empty() ? "" : *conf.public_url + paths.portal;
    settings.redirect = conf.redirect;
    return NGX_CONF_OK;
}

} // namespace

void inherit_handler(ngx_conf_t* cf, EndpointConf& conf, const EndpointConf& parent) {
    auto* core = static_cast<ngx_http_core_loc_conf_t*>(ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
    if (core->noname && conf.kind == EndpointKind::none && parent.kind != EndpointKind::none) {
        conf.kind = parent.kind;
        conf.redirect = parent.redirect;
        conf.default_plan = parent.default_plan;
        conf.portal_configuration = parent.portal_configuration;
        conf.portal_return = parent.portal_return;
        conf.portal_makes_customer = parent.portal_makes_customer;
        conf.api_tokens = parent.api_tokens;
        conf.certificate = parent.certificate;
        conf.packs = parent.packs;
        conf.seats = parent.seats;
        conf.tolerance_seconds = parent.tolerance_seconds;
        conf.entitlements = parent.entitlements;
        conf.place = parent.place;
        core->handler = endpoint_handler;
    }
}

void inherit_endpoint(EndpointConf& conf, const EndpointConf& parent) {
    conf.public_url = conf.public_url ? conf.public_url : parent.public_url;
    conf.success_url = conf.success_url ? conf.success_url : parent.success_url;
    conf.cancel_url = conf.cancel_url ? conf.cancel_url : parent.cancel_url;
    conf.return_urls = conf.return_urls ? conf.return_urls : parent.return_urls;
    conf.checkout = conf.checkout ? conf.checkout : parent.checkout;
    conf.role = conf.role ? conf.role : parent.role;
    conf.subject = conf.subject ? conf.subject : parent.subject;
    conf.contact = conf.contact ? conf.contact : parent.contact;
    conf.named = conf.named ? conf.named : parent.named;
    if (conf.secrets.empty()) {
        conf.secrets = parent.secrets;
    }
}

char* choose_account(ngx_conf_t* cf, LocConf& loc, bool own_account, bool own_named) {
    EndpointConf& conf = loc.endpoint;
    if (own_account && own_named) {
        return complain(cf, conf.named->place, "\"billing_account\" says already who asks here; remove either");
    }
    const bool ours = conf.kind != EndpointKind::none;
    if (own_named && ours && !may_be_named(conf.kind)) {
        return complain(cf, conf.named->place,
                        "\"billing_account_from\" is not for " + std::string{name_of(conf.kind)} +
                            "; remove it, or use billing_account");
    }
    if (own_named && !ours && loc.gated) {
        return complain(cf, conf.named->place,
                        "\"billing_account_from\" is for locations as those of billing_checkout and billing_portal, "
                        "never for the gate; write \"billing_account $variable;\"");
    }
    if (own_account || (ours && !may_be_named(conf.kind))) {
        conf.named.reset();
    }
    if (ours && conf.named) {
        loc.account = AccountSource{};
    }
    return NGX_CONF_OK;
}

char* finish_endpoint(ngx_conf_t* cf, LocConf& loc, const MainConf& main) {
    EndpointConf& conf = loc.endpoint;
    if (conf.kind == EndpointKind::metrics) {
        return NGX_CONF_OK;
    }
    warn_of_body_size(cf, conf);
    if (conf.kind == EndpointKind::credits_api) {
        conf.settings.api_tokens = conf.api_tokens;
        conf.settings.create_accounts = loc.unknown_account != UnknownAccount::deny;
        return NGX_CONF_OK;
    }
    if (!main.stripe && conf.kind != EndpointKind::upgrade && conf.kind != EndpointKind::settings) {
        warn(cf, conf.place, "there is no billing_stripe: this location will answer 503");
    }
    if (conf.kind != EndpointKind::webhook) {
        return finish_page(cf, loc, main);
    }
    if (conf.secrets.empty()) {
        warn(cf, conf.place, "there is no billing_webhook_secret: this location will answer 503");
    }
    conf.settings.secrets = conf.secrets;
    conf.settings.tolerance_seconds = conf.tolerance_seconds.value_or(conf.settings.tolerance_seconds);
    return NGX_CONF_OK;
}

} // namespace billing
