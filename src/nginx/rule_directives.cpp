// What a location demands: billing_plan, billing_feature, billing_quota, billing_rate, billing_credits, billing_stock.
// In the master, while nginx reads its configuration.
#include "nginx/directives.hpp"

#include "domain/amounts.hpp"
#include "nginx/conf.hpp"
#include "nginx/methods.hpp"
#include "nginx/setters.hpp"

#include <algorithm>
#include <utility>

namespace billing {

namespace {

constexpr ngx_int_t k_least_hold = 10;
constexpr ngx_int_t k_most_hold = 7 * 86400;

bool is_use_part(std::string_view text) noexcept { return text.starts_with("settle=") || text.starts_with("max="); }

// settle=$variable or max=N, once each.
char* set_use_part(ngx_conf_t* cf, std::string_view text, UseReport& use) {
    if (text.starts_with("max=")) {
        const std::uint32_t most = parse_cost(text.substr(4));
        if (most == 0 || use.most != k_max_cost) {
            return fail(cf, "invalid \"" + std::string{text} + "\"; write max=N once, from 1 to " +
                                std::to_string(k_max_cost));
        }
        use.most = most;
        return NGX_CONF_OK;
    }
    text.remove_prefix(std::string_view{"settle="}.size());
    if (text.find('$') == std::string_view::npos || use.value != nullptr) {
        return fail(cf, "invalid \"settle=" + std::string{text} +
                            "\"; write a variable once, as settle=$upstream_http_x_billing_cost");
    }
    constexpr std::string_view k_field = "$upstream_http_";
    if (text.starts_with(k_field)) {
        use.field = text.substr(k_field.size());
        std::replace(use.field.begin(), use.field.end(), '_', '-');
    }
    use.value = compile(cf, text);
    return use.value == nullptr ? static_cast<char*>(NGX_CONF_ERROR) : NGX_CONF_OK;
}

// warn=80%, each threshold once.
char* set_warning(ngx_conf_t* cf, std::string_view text, std::vector<std::uint8_t>& warns) {
    const auto percent = parse_percent(text.substr(5));
    if (!percent) {
        return fail(cf,
                    "invalid \"" + std::string{text} + "\"; write warn=80%, from 1% to 100%, once for each threshold");
    }
    const auto place = std::lower_bound(warns.begin(), warns.end(), *percent);
    if (place != warns.end() && *place == *percent) {
        return fail(cf, "\"" + std::string{text} + "\" is here already");
    }
    warns.insert(place, *percent);
    return NGX_CONF_OK;
}

char* check_use(ngx_conf_t* cf, const UseReport& use) {
    return use.value == nullptr && use.most != k_max_cost
               ? fail(cf, "\"max=\" bounds what settle= may report; write settle=$variable beside it")
               : NGX_CONF_OK;
}

// hold=TIME; 0: something else.
std::uint32_t parse_hold(std::string_view text) noexcept {
    ngx_str_t time = as_ngx(text.starts_with("hold=") ? text.substr(5) : std::string_view{});
    const ngx_int_t seconds = ngx_parse_time(&time, 1);
    return seconds < k_least_hold || seconds > k_most_hold ? 0 : static_cast<std::uint32_t>(seconds);
}

} // namespace

char* set_plan(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (loc.plan) {
            return duplicate();
        }
        PlanRule rule;
        for (ngx_uint_t index = 1; index < cf->args->nelts; ++index) {
            auto key = word(cf, index);
            if (key.starts_with(">=")) {
                rule.at_least = true;
                key.remove_prefix(2);
            }
            if (key.empty() || (rule.at_least && cf->args->nelts != 2)) {
                return fail(cf, "write plan names, or one >=NAME for this plan and all above it");
            }
            rule.keys.emplace_back(key);
        }
        loc.plan = PlacedPlan{std::move(rule), ConfPlace::here(cf)};
        return NGX_CONF_OK;
    });
}

char* set_feature(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        FeatureRule rule;
        for (ngx_uint_t index = 1; index < cf->args->nelts; ++index) {
            const auto text = word(cf, index);
            if (!text.starts_with("match=")) {
                rule.keys.emplace_back(text);
            } else if (text == "match=any" || text == "match=all") {
                rule.any = text == "match=any";
            } else {
                return fail(cf, "invalid \"" + std::string{text} + "\"; write match=all or match=any");
            }
        }
        if (rule.keys.empty()) {
            return fail(cf, "write at least one feature's name");
        }
        loc.features.push_back({std::move(rule), ConfPlace::here(cf)});
        return NGX_CONF_OK;
    });
}

char* set_quota(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (loc.quotas.size() == k_max_quotas) {
            return fail(cf, "more than " + std::to_string(k_max_quotas) + " quotas on one location");
        }
        PlacedQuota quota;
        quota.rule.key = word(cf, 1);
        quota.place = ConfPlace::here(cf);
        bool priced = false;
        for (ngx_uint_t index = 2; index < cf->args->nelts; ++index) {
            auto text = word(cf, index);
            if (text.starts_with("window=") && quota.window.empty() && text.size() > 7) {
                quota.window = text.substr(7);
                continue;
            }
            if (text.starts_with("warn=")) {
                if (char* problem = set_warning(cf, text, quota.rule.warns); problem != NGX_CONF_OK) {
                    return problem;
                }
                continue;
            }
            if (is_use_part(text)) {
                if (char* problem = set_use_part(cf, text, quota.use); problem != NGX_CONF_OK) {
                    return problem;
                }
                continue;
            }
            if (!text.starts_with("cost=") || std::exchange(priced, true)) {
                return fail(cf,
                            "unknown parameter \"" + std::string{text} +
                                "\"; write cost=N or cost=$variable, window=NAME, warn=N%, settle=$variable and max=N");
            }
            text.remove_prefix(std::string_view{"cost="}.size());
            const std::uint32_t constant = parse_cost(text);
            if (constant != 0) {
                quota.rule.cost = constant;
            } else if (text.find('$') == std::string_view::npos) {
                return fail(cf, "invalid cost \"" + std::string{text} + "\"; write a whole number from 1 to " +
                                    std::to_string(k_max_cost) + " or a variable");
            } else if (quota.cost = compile(cf, text); quota.cost == nullptr) {
                return static_cast<char*>(NGX_CONF_ERROR);
            }
        }
        for (const auto& other : loc.quotas) {
            if (other.rule.key == quota.rule.key && (other.window == quota.window || quota.window.empty())) {
                return fail(cf, "quota \"" + quota.rule.key + "\" is here already; write its cost= once");
            }
        }
        if (char* problem = check_use(cf, quota.use); problem != NGX_CONF_OK) {
            return problem;
        }
        loc.quotas.push_back(std::move(quota));
        return NGX_CONF_OK;
    });
}

char* set_rate(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (loc.rates.size() == k_max_rate_rules) {
            return fail(cf, "more than " + std::to_string(k_max_rate_rules) + " rates on one location");
        }
        PlacedRate rate{{std::string{word(cf, 1)}, 1}, ConfPlace::here(cf)};
        for (const auto& other : loc.rates) {
            if (other.rule.key == rate.rule.key) {
                return fail(cf, "rate \"" + rate.rule.key + "\" is here already");
            }
        }
        if (cf->args->nelts == 3) {
            const auto text = word(cf, 2);
            const std::uint32_t hosts = text.starts_with("hosts=") ? parse_cost(text.substr(6)) : 0;
            if (hosts == 0 || hosts > k_max_hosts) {
                return fail(cf, "invalid \"" + std::string{text} +
                                    "\"; write hosts=N, the number of hosts that share the "
                                    "traffic evenly");
            }
            rate.rule.hosts = hosts;
        }
        loc.rates.push_back(std::move(rate));
        return NGX_CONF_OK;
    });
}

char* set_credits(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (loc.credits.size() == k_max_credit_rules) {
            return fail(cf, "more than " + std::to_string(k_max_credit_rules) + " types of credits on one location");
        }
        PlacedCredit credit;
        credit.rule.key = word(cf, 1);
        credit.place = ConfPlace::here(cf);
        const auto units = word(cf, 2);
        credit.rule.units = parse_cost(units);
        if (credit.rule.units == 0 && units.find('$') == std::string_view::npos) {
            return fail(cf, "invalid number of credits \"" + std::string{units} +
                                "\"; write a whole number from 1 to " + std::to_string(k_max_cost) + " or a variable");
        }
        if (credit.rule.units == 0) {
            credit.units = compile(cf, units);
            if (credit.units == nullptr) {
                return static_cast<char*>(NGX_CONF_ERROR);
            }
        }
        for (ngx_uint_t index = 3; index < cf->args->nelts; ++index) {
            const auto text = word(cf, index);
            if (is_use_part(text)) {
                if (char* problem = set_use_part(cf, text, credit.use); problem != NGX_CONF_OK) {
                    return problem;
                }
                continue;
            }
            credit.rule.hold_seconds = parse_hold(text);
            if (credit.rule.hold_seconds == 0) {
                return fail(cf, "invalid \"" + std::string{text} +
                                    "\"; write hold=TIME, from 10s to 7d, longer than any request takes, "
                                    "settle=$variable and max=N");
            }
        }
        if (char* problem = check_use(cf, credit.use); problem != NGX_CONF_OK) {
            return problem;
        }
        for (const auto& other : loc.credits) {
            if (other.rule.key == credit.rule.key) {
                return fail(cf, "credits \"" + credit.rule.key + "\" are here already");
            }
        }
        loc.credits.push_back(std::move(credit));
        return NGX_CONF_OK;
    });
}

char* set_stock(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (loc.stock.size() == k_max_stock_rules) {
            return fail(cf, "more than " + std::to_string(k_max_stock_rules) + " stocks on one location");
        }
        PlacedStock stock;
        stock.rule.key = word(cf, 1);
        stock.place = ConfPlace::here(cf);
        const auto deed = word(cf, 2);
        stock.rule.removes = deed == "delete";
        if (!stock.rule.removes && deed != "create") {
            return fail(cf, "invalid \"" + std::string{deed} + "\"; write create or delete");
        }
        for (ngx_uint_t index = 3; index < cf->args->nelts; ++index) {
            const auto text = word(cf, index);
            if (text.starts_with("method=")) {
                const auto bit = method_bit(text.substr(7));
                if (!bit) {
                    return fail(cf, "unknown method \"" + std::string{text.substr(7)} + "\"; write as method=PUT");
                }
                stock.methods |= *bit;
                continue;
            }
            const bool hold = text.starts_with("hold=") && !stock.rule.removes;
            std::uint32_t& number = hold ? stock.rule.hold_seconds : stock.rule.units;
            number = hold ? parse_hold(text) : parse_cost(text);
            if (number == 0) {
                return fail(cf, "invalid \"" + std::string{text} + "\"; write how many, from 1 to " +
                                    std::to_string(k_max_cost) +
                                    ", method=METHOD, and beside create hold=TIME, from 10s to 7d, longer than any "
                                    "request takes");
            }
        }
        if (stock.methods == 0) {
            stock.methods = stock.rule.removes ? NGX_HTTP_DELETE : NGX_HTTP_POST;
        }
        for (const auto& other : loc.stock) {
            if (other.rule.key == stock.rule.key && (other.methods & stock.methods) != 0) {
                return fail(cf, "stock \"" + stock.rule.key + "\" has a rule for this method here already");
            }
        }
        loc.stock.push_back(std::move(stock));
        return NGX_CONF_OK;
    });
}

} // namespace billing
