#include "nginx/endpoint_directives.hpp"

#include "nginx/conf.hpp"
#include "nginx/endpoint_handler.hpp"
#include "nginx/setters.hpp"
#include "nginx/settings.hpp"
#include "stripe/names.hpp"

#include <algorithm>

namespace billing {

namespace {

// "https://host[:port][/path]" without a user or white space.
bool is_url(std::string_view text) noexcept {
    const std::string_view rest = text.substr(std::min(text.find("://"), text.size()));
    const std::string_view host = rest.substr(std::min<std::size_t>(3, rest.size()));
    const bool clean = std::all_of(text.begin(), text.end(), [](char byte) {
        return byte > ' ' && byte < 0x7f && byte != '"' && byte != '\\' && byte != '@';
    });
    return clean && (text.starts_with("https://") || text.starts_with("http://")) && !host.empty() &&
           host.front() != '/';
}

bool is_page_path(std::string_view text) noexcept {
    return text.starts_with('/') && is_url("https://x" + std::string{text});
}

// Without the keyword and its "=", or nothing.
std::optional<std::string_view> after(std::string_view text, std::string_view prefix) noexcept {
    if (!text.starts_with(prefix)) {
        return std::nullopt;
    }
    return text.substr(prefix.size());
}

// The error's text never holds the value.
Result<std::string> read_secret(ngx_conf_t* cf, std::string_view setting) {
    auto value = read_setting(cf, setting);
    if (!value) {
        return Error{value.error()};
    }
    return trim_secret(value.value());
}

char* read_stripe_word(ngx_conf_t* cf, std::string_view text, StripeConfig& config) {
    if (const auto key = after(text, "key=")) {
        auto secret = read_secret(cf, *key);
        if (!secret) {
            return fail(cf, secret.error());
        }
        config.key = std::move(secret).value();
    } else if (const auto api = after(text, "api=")) {
        config.base_url = *api;
        while (config.base_url.ends_with('/')) {
            config.base_url.pop_back();
        }
        if (!is_url(config.base_url)) {
            return fail(cf, "invalid address; write as api=https://api.stripe.com");
        }
    } else if (const auto version = after(text, "version=")) {
        config.version = *version;
        if (!is_api_version(config.version)) {
            return fail(cf, "invalid version \"" + config.version + "\"; write as version=2026-02-25.clover");
        }
    } else {
        return fail(cf, "unknown parameter; write key=file:PATH, and perhaps api=URL and version=VERSION");
    }
    return NGX_CONF_OK;
}

char* set_page(ngx_conf_t* cf, std::optional<std::string>& url) {
    if (url) {
        return duplicate();
    }
    auto value = read_setting(cf, word(cf, 1));
    if (!value) {
        return fail(cf, value.error());
    }
    if (!is_url(value.value()) && !is_page_path(value.value())) {
        return fail(cf, "invalid \"" + value.value() + "\"; write a whole address, or a path below billing_public_url");
    }
    url = std::move(value).value();
    return NGX_CONF_OK;
}

// The location's address, where it has one that can be told.
std::string path_of(const ngx_http_core_loc_conf_t& core) {
#if (NGX_PCRE)
    if (core.regex != nullptr) {
        return {};
    }
#endif
    return core.named || core.noname ? std::string{} : std::string{view(core.name)};
}

// The first of its kind in a server is the one that refusals point to.
void tell_path(MainConf& main, const void* server, EndpointKind kind, std::string path) {
    auto known = std::find_if(main.paths.begin(), main.paths.end(),
                              [server](const auto& of_server) { return of_server.first == server; });
    if (known == main.paths.end()) {
        known = main.paths.insert(known, {server, EndpointPaths{}});
    }
    EndpointPaths& paths = known->second;
    if (kind == EndpointKind::checkout && paths.checkout.empty()) {
        paths.checkout = std::move(path);
    } else if (kind == EndpointKind::portal && paths.portal.empty()) {
        paths.portal = std::move(path);
    }
}

char* set_endpoint(ngx_conf_t* cf, LocConf& loc, EndpointKind kind) {
    if (loc.endpoint.kind != EndpointKind::none) {
        return loc.endpoint.kind == kind ? duplicate() : fail(cf, "this location answers for something else already");
    }
    loc.endpoint.kind = kind;
    loc.endpoint.place = ConfPlace::here(cf);
    if (cf->args->nelts == 2) {
        if (word(cf, 1) != "redirect") {
            return fail(cf, "invalid \"" + std::string{word(cf, 1)} + "\"; write redirect, or nothing");
        }
        loc.endpoint.redirect = true;
    }
    auto* core = static_cast<ngx_http_core_loc_conf_t*>(ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
    core->handler = endpoint_handler;
    MainConf& main = main_conf(cf);
    main.endpoints = true;
    tell_path(main, ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module), kind, path_of(*core));
    return NGX_CONF_OK;
}

} // namespace

char* set_stripe(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<MainConf>(cf, conf, [cf](MainConf& main) -> char* {
        if (main.stripe) {
            return duplicate();
        }
        StripeConfig config;
        for (ngx_uint_t index = 1; index < cf->args->nelts; ++index) {
            if (char* problem = read_stripe_word(cf, word(cf, index), config); problem != NGX_CONF_OK) {
                return problem;
            }
        }
        const KeyMode mode = key_mode(config.key);
        if (mode == KeyMode::unknown) {
            return fail(cf, "key= is no secret key of Stripe (sk_live_..., sk_test_..., rk_live_..., rk_test_...); "
                            "write key=file:PATH of the file that holds one");
        }
        if (mode == KeyMode::live && !config.base_url.starts_with("https://")) {
            return fail(cf, "a live key is only sent over https; correct api=");
        }
        main.stripe = std::move(config);
        return NGX_CONF_OK;
    });
}

char* set_payment_failed(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<MainConf>(cf, conf, [cf](MainConf& main) -> char* {
        if (main.payment_policy) {
            return duplicate();
        }
        PaymentPolicy policy;
        policy.maintenance = word(cf, 1) == "maintenance";
        if (!policy.maintenance && word(cf, 1) != "grace") {
            return fail(cf, "invalid \"" + std::string{word(cf, 1)} + "\"; write grace or maintenance");
        }
        if (policy.maintenance) {
            policy.grace_seconds.reset();
        }
        if (cf->args->nelts == 3) {
            const ngx_int_t seconds = ngx_parse_time(&static_cast<ngx_str_t*>(cf->args->elts)[2], 1);
            if (seconds == NGX_ERROR) {
                return fail(cf, "invalid time \"" + std::string{word(cf, 2)} + "\"; write as 7d");
            }
            policy.grace_seconds = seconds;
        }
        main.payment_policy = policy;
        return NGX_CONF_OK;
    });
}

char* set_payment_disputed(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<MainConf>(cf, conf, [cf](MainConf& main) -> char* {
        if (main.dispute_maintenance) {
            return duplicate();
        }
        if (word(cf, 1) != "notify" && word(cf, 1) != "maintenance") {
            return fail(cf, "invalid \"" + std::string{word(cf, 1)} + "\"; write notify or maintenance");
        }
        main.dispute_maintenance = word(cf, 1) == "maintenance";
        return NGX_CONF_OK;
    });
}

char* set_jobs(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<MainConf>(cf, conf, [cf](MainConf& main) -> char* {
        if (main.jobs) {
            return duplicate();
        }
        if (word(cf, 1) != "on" && word(cf, 1) != "off") {
            return fail(cf, "invalid \"" + std::string{word(cf, 1)} + "\"; write on or off");
        }
        main.jobs = word(cf, 1) == "on";
        return NGX_CONF_OK;
    });
}

char* set_public_url(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (loc.endpoint.public_url) {
            return duplicate();
        }
        auto value = read_setting(cf, word(cf, 1));
        if (!value) {
            return fail(cf, value.error());
        }
        std::string url = std::move(value).value();
        while (url.ends_with('/')) {
            url.pop_back();
        }
        if (!is_url(url) || url.find_first_of("?#") != std::string::npos) {
            return fail(cf, "invalid \"" + url + "\"; write scheme and host, as https://app.example.com");
        }
        loc.endpoint.public_url = std::move(url);
        return NGX_CONF_OK;
    });
}

char* set_success_url(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) { return set_page(cf, loc.endpoint.success_url); });
}

char* set_cancel_url(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) { return set_page(cf, loc.endpoint.cancel_url); });
}

char* set_webhook_secret(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (!loc.endpoint.secrets.empty()) {
            return duplicate();
        }
        for (ngx_uint_t index = 1; index < cf->args->nelts; ++index) {
            auto secret = read_secret(cf, word(cf, index));
            if (!secret) {
                return fail(cf, secret.error());
            }
            if (!secret.value().starts_with("whsec_")) {
                return fail(cf, "word " + std::to_string(index) +
                                    " is no signing secret (whsec_...); write file:PATH of the file that holds one");
            }
            loc.endpoint.secrets.push_back(std::move(secret).value());
        }
        return NGX_CONF_OK;
    });
}

char* set_checkout(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) { return set_endpoint(cf, loc, EndpointKind::checkout); });
}

char* set_portal(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) { return set_endpoint(cf, loc, EndpointKind::portal); });
}

char* set_webhook(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) { return set_endpoint(cf, loc, EndpointKind::webhook); });
}

char* set_metrics(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) { return set_endpoint(cf, loc, EndpointKind::metrics); });
}

} // namespace billing
