#include "nginx/stripe_directives.hpp"

#include "nginx/conf.hpp"
#include "nginx/setters.hpp"
#include "nginx/settings.hpp"
#include "stripe/names.hpp"

#include <algorithm>
#include <array>

namespace billing {

namespace {

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

// What Stripe takes for a metadata key, and needs no escaping in anybody's hands.
bool is_metadata_name(std::string_view text) noexcept {
    return !text.empty() && text.size() <= 40 && std::all_of(text.begin(), text.end(), [](char byte) {
        return byte == '_' || byte == '-' || (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') ||
               (byte >= 'a' && byte <= 'z');
    });
}

char* read_metadata_word(ngx_conf_t* cf, std::string_view text, MetadataNames& names) {
    struct Part {
        std::string_view prefix;
        std::string* name;
    };
    for (const Part& part : {Part{"account=", &names.account}, Part{"plan=", &names.plan},
                             Part{"credit=", &names.credit}, Part{"quantity=", &names.credit_quantity}}) {
        const auto name = after(text, part.prefix);
        if (name && is_metadata_name(*name)) {
            *part.name = *name;
            return NGX_CONF_OK;
        }
        if (name) {
            return fail(cf, "invalid name \"" + std::string{*name} + "\"; write 1-40 of A-Z a-z 0-9 _ -");
        }
    }
    return fail(cf, "unknown parameter \"" + std::string{text} + "\"; known: account, plan, credit, quantity");
}

// Those of ours too: what is written under them must stay apart.
bool are_distinct(const MetadataNames& names) {
    std::array<std::string_view, 6> all{names.account,         names.plan, names.credit,
                                        names.credit_quantity, "price",    "quantity"};
    std::sort(all.begin(), all.end());
    return std::adjacent_find(all.begin(), all.end()) == all.end();
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
    return setter<MainConf>(
        cf, conf, [cf](MainConf& main) { return choose(cf, main.dispute_maintenance, "maintenance", "notify"); });
}

char* set_keep_payloads(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<MainConf>(cf, conf, [cf](MainConf& main) -> char* {
        if (main.keep_payloads_s) {
            return duplicate();
        }
        const ngx_int_t seconds = ngx_parse_time(&static_cast<ngx_str_t*>(cf->args->elts)[1], 1);
        if (seconds == NGX_ERROR || seconds < k_day_s || seconds > 10 * 365 * k_day_s) {
            return fail(cf, "invalid time \"" + std::string{word(cf, 1)} + "\"; write 1d to 10y");
        }
        main.keep_payloads_s = seconds;
        return NGX_CONF_OK;
    });
}

char* set_jobs(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<MainConf>(cf, conf, [cf](MainConf& main) { return choose(cf, main.jobs, "on", "off"); });
}

char* set_dev_mode(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<MainConf>(cf, conf, [cf](MainConf& main) { return choose(cf, main.dev_mode, "on", "off"); });
}

char* set_metadata(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<MainConf>(cf, conf, [cf](MainConf& main) -> char* {
        if (main.metadata) {
            return duplicate();
        }
        MetadataNames names;
        for (ngx_uint_t index = 1; index < cf->args->nelts; ++index) {
            if (char* problem = read_metadata_word(cf, word(cf, index), names); problem != NGX_CONF_OK) {
                return problem;
            }
        }
        if (!are_distinct(names)) {
            return fail(cf, "two names are the same, or one is price or quantity, which are ours; write others");
        }
        main.metadata = std::move(names);
        return NGX_CONF_OK;
    });
}

} // namespace billing
