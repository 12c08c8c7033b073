#include "nginx/checkout_directives.hpp"

#include "nginx/conf.hpp"
#include "nginx/setters.hpp"

#include <algorithm>
#include <array>
#include <charconv>

namespace billing {

namespace {

constexpr int k_longest_trial_days = 730; // Stripe's own bound

struct Switch {
    std::string_view name;
    bool CheckoutOptions::*option;
    std::string_view on;
    std::string_view off;
};

constexpr std::array<Switch, 4> k_switches = {{
    {"allow_promotion_codes", &CheckoutOptions::allow_promotion_codes, "on", "off"},
    {"billing_address_collection", &CheckoutOptions::billing_address_required, "required", "auto"},
    {"tax_id_collection", &CheckoutOptions::tax_id_collection, "on", "off"},
    {"automatic_tax", &CheckoutOptions::automatic_tax, "on", "off"},
}};

char* wrong_value(ngx_conf_t* cf, std::string_view text, const std::string& instead) {
    return fail(cf, "invalid \"" + std::string{text} + "\"; write " + instead);
}

char* read_trial(ngx_conf_t* cf, std::string_view text, std::string_view value, CheckoutOptions& options) {
    const auto [end, problem] = std::from_chars(value.data(), value.data() + value.size(), options.trial_period_days);
    const bool whole = problem == std::errc{} && end == value.data() + value.size();
    const bool fits = whole && options.trial_period_days >= 0 && options.trial_period_days <= k_longest_trial_days;
    return fits ? NGX_CONF_OK : wrong_value(cf, text, "trial_period_days=N with N from 0 to 730");
}

// "de", "pt-BR", "auto".
char* read_locale(ngx_conf_t* cf, std::string_view text, std::string_view value, CheckoutOptions& options) {
    const bool plain = !value.empty() && value.size() <= 10 && std::all_of(value.begin(), value.end(), [](char byte) {
        return byte == '-' || (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') ||
               (byte >= 'a' && byte <= 'z');
    });
    options.locale = value;
    return plain ? NGX_CONF_OK : wrong_value(cf, text, "locale=auto, or a language as locale=de");
}

char* read_option(ngx_conf_t* cf, std::string_view text, CheckoutOptions& options) {
    const std::string_view name = text.substr(0, text.find('='));
    const std::string_view value = text.substr(std::min(name.size() + 1, text.size()));
    for (const Switch& one : k_switches) {
        if (name == one.name && (value == one.on || value == one.off)) {
            options.*one.option = value == one.on;
            return NGX_CONF_OK;
        }
        if (name == one.name) {
            return wrong_value(cf, text, std::string{name}.append("=").append(one.on).append(" or ").append(one.off));
        }
    }
    if (name == "trial_period_days") {
        return read_trial(cf, text, value, options);
    }
    if (name == "locale") {
        return read_locale(cf, text, value, options);
    }
    return fail(cf, "unknown parameter \"" + std::string{name} +
                        "\"; known: allow_promotion_codes, billing_address_collection, tax_id_collection, "
                        "automatic_tax, trial_period_days, locale");
}

char* read_role_source(ngx_conf_t* cf, std::optional<RoleSource>& source) {
    if (source) {
        return duplicate();
    }
    RoleSource read;
    read.value = compile(cf, word(cf, 1));
    if (read.value == nullptr) {
        return static_cast<char*>(NGX_CONF_ERROR);
    }
    if (read.value->lengths == nullptr) {
        return fail(cf, "\"" + std::string{word(cf, 1)} + "\" is the same for everybody; write a variable");
    }
    for (ngx_uint_t index = 2; index < cf->args->nelts; ++index) {
        read.roles.emplace_back(word(cf, index));
    }
    source = std::move(read);
    return NGX_CONF_OK;
}

} // namespace

char* set_checkout_session(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (loc.endpoint.checkout) {
            return duplicate();
        }
        CheckoutOptions options;
        for (ngx_uint_t index = 1; index < cf->args->nelts; ++index) {
            if (char* problem = read_option(cf, word(cf, index), options); problem != NGX_CONF_OK) {
                return problem;
            }
        }
        loc.endpoint.checkout = std::move(options);
        return NGX_CONF_OK;
    });
}

char* set_customer(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (loc.endpoint.contact) {
            return duplicate();
        }
        ContactSource source;
        for (ngx_uint_t index = 1; index < cf->args->nelts; ++index) {
            const auto email = after(word(cf, index), "email=");
            const auto name = after(word(cf, index), "name=");
            if (!email && !name) {
                return wrong_value(cf, word(cf, index), "email=$variable or name=$variable");
            }
            auto*& value = email ? source.email : source.name;
            value = compile(cf, email ? *email : *name);
            if (value == nullptr) {
                return static_cast<char*>(NGX_CONF_ERROR);
            }
        }
        loc.endpoint.contact = source;
        return NGX_CONF_OK;
    });
}

char* set_role(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) { return read_role_source(cf, loc.endpoint.role); });
}

char* set_subject(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) { return read_role_source(cf, loc.endpoint.subject); });
}

} // namespace billing
