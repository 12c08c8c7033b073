#include "nginx/endpoint_directives.hpp"

#include "nginx/conf.hpp"
#include "nginx/endpoint_handler.hpp"
#include "nginx/setters.hpp"
#include "nginx/settings.hpp"
#include "stripe/names.hpp"

#include <algorithm>

namespace billing {

namespace {

char* set_page(ngx_conf_t* cf, std::optional<std::string>& url) {
    if (url) {
        return duplicate();
    }
    auto value = read_page(cf, word(cf, 1));
    if (!value) {
        return fail(cf, value.error());
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

// "1-50"
char* read_quantities(ngx_conf_t* cf, std::string_view text, std::string_view range, QuantityRange& into) {
    const auto dash = range.find('-');
    const auto least = read_quantity(range.substr(0, dash));
    const auto most = dash == range.npos ? std::nullopt : read_quantity(range.substr(dash + 1));
    if (!least || !most || *least > *most) {
        return fail(cf, "invalid \"" + std::string{text} + "\"; write the least and the most, from 1 to 1000, as 1-50");
    }
    into = {*least, *most};
    return NGX_CONF_OK;
}

char* read_checkout_word(ngx_conf_t* cf, std::string_view text, EndpointConf& conf) {
    if (const auto packs = after(text, "packs=")) {
        return read_quantities(cf, text, *packs, conf.packs);
    }
    if (const auto seats = after(text, "seats=")) {
        return read_quantities(cf, text, *seats, conf.seats);
    }
    if (text == "redirect") {
        conf.redirect = true;
        return NGX_CONF_OK;
    }
    const auto plan = after(text, "plan=");
    if (!plan || plan->empty()) {
        return fail(cf, "invalid \"" + std::string{text} +
                            "\"; write redirect, plan=NAME, packs=N-M, seats=N-M, or nothing");
    }
    conf.default_plan = *plan;
    return NGX_CONF_OK;
}

// Stripe signs each try anew. Far less than clocks differ would refuse good events, far more invites replays.
char* read_webhook_word(ngx_conf_t* cf, std::string_view text, EndpointConf& conf) {
    constexpr ngx_int_t k_least_s = 10;
    constexpr ngx_int_t k_most_s = 3600;
    const auto time = after(text, "tolerance=");
    if (!time) {
        return fail(cf, "invalid \"" + std::string{text} + "\"; write tolerance=TIME, or nothing");
    }
    ngx_str_t value{time->size(), reinterpret_cast<u_char*>(const_cast<char*>(time->data()))};
    const ngx_int_t seconds = ngx_parse_time(&value, 1);
    if (seconds == NGX_ERROR || seconds < k_least_s || seconds > k_most_s) {
        return fail(cf, "invalid tolerance \"" + std::string{*time} + "\"; write 10s to 1h, as tolerance=300s");
    }
    conf.tolerance_seconds = seconds;
    return NGX_CONF_OK;
}

char* read_portal_word(ngx_conf_t* cf, std::string_view text, EndpointConf& conf) {
    const auto configuration = after(text, "configuration=");
    const auto page = after(text, "return_url=");
    if (text == "redirect") {
        conf.redirect = true;
    } else if (text == "create") {
        conf.portal_makes_customer = true;
    } else if (configuration) {
        auto value = read_setting(cf, *configuration);
        if (!value) {
            return fail(cf, value.error());
        }
        if (!value.value().starts_with("bpc_") || !is_object_id(value.value())) {
            return fail(cf, "invalid configuration \"" + value.value() + "\"; write as configuration=bpc_1Nd3f...");
        }
        conf.portal_configuration = std::move(value).value();
    } else if (page) {
        auto value = read_page(cf, *page);
        if (!value) {
            return fail(cf, value.error());
        }
        conf.portal_return = std::move(value).value();
    } else {
        return fail(cf, "invalid \"" + std::string{text} +
                            "\"; write redirect, create, configuration=SETTING, return_url=SETTING, or nothing");
    }
    return NGX_CONF_OK;
}

constexpr std::size_t k_least_token = 20;

// A back end's proof: `certificate` or token=SETTING. Nothing: neither; then `problem` says whether that was one.
struct Proof {
    bool known = false;
    char* problem = NGX_CONF_OK;
};

Proof read_proof(ngx_conf_t* cf, std::string_view text, std::vector<std::string>& tokens,
                 ngx_http_complex_value_t*& certificate) {
    if (text == "certificate") {
        certificate = compile(cf, "$ssl_client_verify");
        return {true, certificate == nullptr ? static_cast<char*>(NGX_CONF_ERROR) : NGX_CONF_OK};
    }
    const auto setting = after(text, "token=");
    if (!setting) {
        return {};
    }
    auto token = read_secret(cf, *setting);
    if (!token) {
        return {true, fail(cf, token.error())};
    }
    if (token.value().size() < k_least_token) {
        return {true, fail(cf, "the token is too short to be a secret; write one of at least " +
                                   std::to_string(k_least_token) + " characters, as `openssl rand -hex 32` makes it")};
    }
    tokens.push_back(std::move(token).value());
    return {true, NGX_CONF_OK};
}

// Who may ask: never everybody.
char* read_api_word(ngx_conf_t* cf, std::string_view text, EndpointConf& conf) {
    const Proof proof = read_proof(cf, text, conf.api_tokens, conf.certificate);
    return proof.known ? proof.problem
                       : fail(cf, "invalid \"" + std::string{text} +
                                      "\"; write token=file:PATH of a file that holds a secret, or certificate");
}

// The name of a member; one source of each kind.
bool read_source(std::string_view text, AccountFrom& from) {
    for (const auto& [prefix, name] : {std::pair{"body:", &from.body}, std::pair{"query:", &from.query}}) {
        const auto word = after(text, prefix);
        if (word && !word->empty() && word->size() <= 64 && name->empty()) {
            *name = *word;
            return true;
        }
    }
    return false;
}

char* read_account_from(ngx_conf_t* cf, NamedAccount& named) {
    for (ngx_uint_t index = 1; index < cf->args->nelts; ++index) {
        const std::string_view text = word(cf, index);
        const Proof proof = read_proof(cf, text, named.tokens, named.certificate);
        named.from.guarded = named.from.guarded || proof.known;
        if (proof.problem != NGX_CONF_OK) {
            return proof.problem;
        }
        if (!proof.known && !read_source(text, named.from)) {
            return fail(cf, "invalid \"" + std::string{text} +
                                "\"; write body:NAME or query:NAME, or one of each, and perhaps token=file:PATH or "
                                "certificate");
        }
    }
    return named.from.body.empty() && named.from.query.empty()
               ? fail(cf, "says not where the account is; write body:NAME or query:NAME")
               : NGX_CONF_OK;
}

char* read_entitlements_word(ngx_conf_t* cf, std::string_view text, EndpointConf& conf) {
    const auto quota = after(text, "quota=");
    const auto preview = after(text, "preview=");
    if (quota && !quota->empty()) {
        conf.entitlements.limit = *quota;
    } else if (preview && !preview->empty()) {
        conf.entitlements.feature = *preview;
    } else {
        return fail(cf, "invalid \"" + std::string{text} +
                            "\"; write quota=NAME (NAME:WINDOW of a quota with several windows), preview=FEATURE, or "
                            "both");
    }
    return NGX_CONF_OK;
}

char* read_word(ngx_conf_t* cf, std::string_view text, EndpointConf& conf) {
    switch (conf.kind) {
    case EndpointKind::checkout:
        return read_checkout_word(cf, text, conf);
    case EndpointKind::webhook:
        return read_webhook_word(cf, text, conf);
    case EndpointKind::credits_api:
        return read_api_word(cf, text, conf);
    case EndpointKind::entitlements:
        return read_entitlements_word(cf, text, conf);
    default: // the others take no words, and nginx says so
        return read_portal_word(cf, text, conf);
    }
}

char* set_endpoint(ngx_conf_t* cf, LocConf& loc, EndpointKind kind) {
    if (loc.endpoint.kind != EndpointKind::none) {
        return loc.endpoint.kind == kind ? duplicate() : fail(cf, "this location answers for something else already");
    }
    loc.endpoint.kind = kind;
    loc.endpoint.place = ConfPlace::here(cf);
    for (ngx_uint_t index = 1; index < cf->args->nelts; ++index) {
        if (char* problem = read_word(cf, word(cf, index), loc.endpoint); problem != NGX_CONF_OK) {
            return problem;
        }
    }
    if (char* problem = claim_content(cf, endpoint_handler); problem != NGX_CONF_OK) {
        return problem;
    }
    const auto* core =
        static_cast<const ngx_http_core_loc_conf_t*>(ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
    MainConf& main = main_conf(cf);
    main.endpoints = true;
    tell_path(main, ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module), kind, path_of(*core));
    return NGX_CONF_OK;
}

} // namespace

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

char* set_return_urls(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (loc.endpoint.return_urls) {
            return duplicate();
        }
        std::vector<std::string> urls;
        for (ngx_uint_t index = 1; index < cf->args->nelts; ++index) {
            auto value = read_setting(cf, word(cf, index));
            if (!value) {
                return fail(cf, value.error());
            }
            if (!is_url(value.value()) || value.value().find_first_of("?#") != std::string::npos) {
                return fail(cf, "invalid \"" + value.value() +
                                    "\"; write scheme and host, as https://shop.example.com, and perhaps a path");
            }
            urls.push_back(std::move(value).value());
        }
        loc.endpoint.return_urls = std::move(urls);
        return NGX_CONF_OK;
    });
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

char* set_account_from(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (loc.endpoint.named) {
            return duplicate();
        }
        loc.endpoint.named.emplace();
        loc.endpoint.named->place = ConfPlace::here(cf);
        return read_account_from(cf, *loc.endpoint.named);
    });
}

char* set_checkout(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) { return set_endpoint(cf, loc, EndpointKind::checkout); });
}

char* set_portal(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) { return set_endpoint(cf, loc, EndpointKind::portal); });
}

char* set_upgrade(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) { return set_endpoint(cf, loc, EndpointKind::upgrade); });
}

char* set_webhook(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) { return set_endpoint(cf, loc, EndpointKind::webhook); });
}

char* set_credits_api(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) { return set_endpoint(cf, loc, EndpointKind::credits_api); });
}

char* set_settings(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) { return set_endpoint(cf, loc, EndpointKind::settings); });
}

char* set_status(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) { return set_endpoint(cf, loc, EndpointKind::status); });
}

char* set_entitlements(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) { return set_endpoint(cf, loc, EndpointKind::entitlements); });
}

char* set_metrics(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) { return set_endpoint(cf, loc, EndpointKind::metrics); });
}

} // namespace billing
