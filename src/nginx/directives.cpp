#include "nginx/directives.hpp"

#include "nginx/check_handler.hpp"
#include "nginx/conf.hpp"
#include "nginx/methods.hpp"
#include "nginx/setters.hpp"

#include <algorithm>
#include <charconv>

namespace billing {

namespace {

// "$name" and nothing else.
bool is_variable(std::string_view text) noexcept {
    return text.size() > 1 && text.front() == '$' && std::all_of(text.begin() + 1, text.end(), [](char c) {
               return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
           });
}

// The header field's name, in lower case, that $http_NAME stands for; "" for other variables.
std::string field_named_by(std::string_view variable) {
    constexpr std::string_view prefix = "$http_";
    std::string name{variable.substr(0, prefix.size()) == prefix ? variable.substr(prefix.size()) : ""};
    std::transform(name.begin(), name.end(), name.begin(),
                   [](char c) { return c == '_' ? '-' : static_cast<char>(ngx_tolower(static_cast<u_char>(c))); });
    return name;
}

constexpr ngx_int_t k_longest_window_s = 30 * 86400;

// What any client can write into its request, unless something in front cleans it.
bool from_client(std::string_view value) noexcept {
    for (const auto* prefix : {"$http_", "${http_", "$arg_", "${arg_", "$cookie_", "${cookie_"}) {
        if (value.find(prefix) != std::string_view::npos) {
            return true;
        }
    }
    return false;
}

} // namespace

char* set_mode(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (loc.mode) {
            return duplicate();
        }
        const auto mode = word(cf, 1);
        if (mode == "on") {
            loc.mode = GateMode::on;
        } else if (mode == "off") {
            loc.mode = GateMode::off;
        } else if (mode == "observe") {
            loc.mode = GateMode::observe;
        } else {
            return fail(cf, "invalid mode \"" + std::string{mode} + "\"; write on, off or observe");
        }
        loc.on_place = ConfPlace::here(cf);
        return NGX_CONF_OK;
    });
}

char* set_account(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (loc.account.given()) {
            return duplicate();
        }
        const auto text = word(cf, 1);
        if (text.find('$') == std::string_view::npos) {
            return fail(cf, "\"" + std::string{text} +
                                "\" names the same account for everybody; write a variable, as $remote_user");
        }
        if (text.find("http_x_billing_") != std::string_view::npos) {
            return fail(cf, "X-Billing-... fields are the gate's own and taken off what clients send; let the account "
                            "come in a field of another name");
        }
        if (is_variable(text)) {
            ngx_str_t name = as_ngx(text.substr(1));
            loc.account.variable = ngx_http_get_variable_index(cf, &name);
            loc.account.header = field_named_by(text);
        } else {
            loc.account.text = compile(cf, text);
        }
        if (!loc.account.given()) {
            return static_cast<char*>(NGX_CONF_ERROR);
        }
        loc.account.names_claim = text.find("billing_jwt_claim_") != std::string_view::npos;
        loc.account.names_key = text.find("billing_api_key_account") != std::string_view::npos;
        loc.account.names_user = text.find("remote_user") != std::string_view::npos;
        loc.account_place = ConfPlace::here(cf);
        loc.account_from_client = from_client(text);
        if (loc.account_from_client) {
            ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                               "\"billing_account %V\" trusts what the client sends; make sure that something in front "
                               "sets or removes it",
                               &static_cast<ngx_str_t*>(cf->args->elts)[1]);
        }
        return NGX_CONF_OK;
    });
}

char* set_unknown(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (loc.unknown) {
            return duplicate();
        }
        const auto text = word(cf, 1);
        if (text == "create") {
            loc.unknown = UnknownAccount::create;
        } else if (text == "free") {
            loc.unknown = UnknownAccount::free;
        } else if (text == "deny") {
            loc.unknown = UnknownAccount::deny;
        } else {
            return fail(cf, "invalid value \"" + std::string{text} + "\"; write create, free or deny");
        }
        return NGX_CONF_OK;
    });
}

char* set_on_error(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (loc.on_error) {
            return duplicate();
        }
        ErrorPolicy policy;
        bool decided = false;
        for (ngx_uint_t index = 1; index < cf->args->nelts; ++index) {
            const auto text = word(cf, index);
            if (text.starts_with("stale=")) {
                ngx_str_t time = as_ngx(text.substr(std::string_view{"stale="}.size()));
                const ngx_int_t stale_ms = ngx_parse_time(&time, 0);
                if (stale_ms == NGX_ERROR) {
                    return fail(cf, "invalid time \"" + std::string{text} + "\"; write as stale=1h");
                }
                policy.stale_ms = static_cast<std::uint64_t>(stale_ms);
            } else if (!decided && (text == "503" || text == "allow")) {
                decided = true;
                policy.allow = text == "allow";
            } else {
                return fail(cf, "invalid \"" + std::string{text} + "\"; write [stale=TIME] and then 503 or allow");
            }
        }
        if (!decided) {
            return fail(cf, "say what happens when nothing is known: write 503 or allow at the end");
        }
        loc.on_error = policy;
        return NGX_CONF_OK;
    });
}

namespace {

struct CodeName {
    std::string_view name;
    Reason reason;
};
struct EndpointCodeName {
    std::string_view name;
    std::uint16_t Codes::*code;
};
constexpr std::array<EndpointCodeName, 3> k_endpoint_code_names = {{
    {"unknown_plan", &Codes::unknown_plan},
    {"no_customer", &Codes::no_customer},
    {"stripe_error", &Codes::stripe_error},
}};
constexpr std::array<CodeName, 19> k_code_names = {{
    {"no_account", Reason::no_account},
    {"invalid_token", Reason::invalid_token},
    {"invalid_key", Reason::invalid_key},
    {"invalid_account", Reason::invalid_account},
    {"invalid_idempotency_key", Reason::invalid_idempotency_key},
    {"unknown_account", Reason::unknown_account},
    {"write_disabled", Reason::write_disabled},
    {"maintenance", Reason::maintenance},
    {"enforced", Reason::billing_enforced},
    {"inactive", Reason::subscription_inactive},
    {"plan", Reason::plan_required},
    {"feature", Reason::feature_missing},
    {"key_outstanding", Reason::key_outstanding},
    {"key_misused", Reason::key_misused},
    {"limit", Reason::limit_reached},
    {"rate", Reason::rate_exceeded},
    {"credits", Reason::credits_short},
    {"stock", Reason::stock_full},
    {"unavailable", Reason::unavailable},
}};

// Where a reason's code is kept; null for no reason of ours.
std::uint16_t* code_place(Codes& codes, std::string_view name) noexcept {
    for (const auto& known : k_code_names) {
        if (known.name == name) {
            return &codes.gate[static_cast<std::size_t>(known.reason)];
        }
    }
    for (const auto& known : k_endpoint_code_names) {
        if (known.name == name) {
            return &(codes.*known.code);
        }
    }
    return nullptr;
}

std::string code_names() {
    std::string list;
    for (const auto& known : k_code_names) {
        list += std::string{known.name} + ", ";
    }
    for (const auto& known : k_endpoint_code_names) {
        list += (&known == k_endpoint_code_names.begin() ? "" : ", ") + std::string{known.name};
    }
    return list;
}

} // namespace

char* set_codes(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (loc.codes) {
            return duplicate();
        }
        Codes codes{};
        for (ngx_uint_t index = 1; index < cf->args->nelts; ++index) {
            const auto text = word(cf, index);
            const auto equals = std::min(text.find('='), text.size());
            const auto number = text.substr(std::min(equals + 1, text.size()));
            std::uint16_t* place = code_place(codes, text.substr(0, equals));
            std::uint16_t code = 0;
            const auto [end, problem] = std::from_chars(number.data(), number.data() + number.size(), code);
            if (place == nullptr) {
                return fail(cf, "unknown reason in \"" + std::string{text} + "\"; known: " + code_names());
            }
            if (problem != std::errc{} || end != number.data() + number.size() || code < 400 || code > 599) {
                return fail(cf, "invalid \"" + std::string{text} + "\"; write a status from 400 to 599, as limit=429");
            }
            if (*place != 0) {
                return fail(cf, "\"" + std::string{text} + "\": the reason has a status already");
            }
            *place = code;
        }
        loc.codes = codes;
        return NGX_CONF_OK;
    });
}

char* set_read_methods(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (loc.reads) {
            return duplicate();
        }
        ngx_uint_t reads = 0;
        for (ngx_uint_t index = 1; index < cf->args->nelts; ++index) {
            const auto bit = method_bit(word(cf, index));
            if (!bit) {
                return fail(cf, "unknown method \"" + std::string{word(cf, index)} +
                                    "\"; write those that change nothing, as GET HEAD OPTIONS TRACE");
            }
            reads |= *bit;
        }
        loc.reads = reads;
        return NGX_CONF_OK;
    });
}

char* set_live_status(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (loc.live) {
            return duplicate();
        }
        StatusSet live = 0;
        for (ngx_uint_t index = 1; index < cf->args->nelts; ++index) {
            const auto status = parse_status(word(cf, index));
            if (!status) {
                return fail(cf, "unknown status \"" + std::string{word(cf, index)} +
                                    "\"; write Stripe's, as active trialing past_due");
            }
            live = static_cast<StatusSet>(live | status_bit(*status));
        }
        loc.live = live;
        return NGX_CONF_OK;
    });
}

char* set_paid_status(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (loc.paid) {
            return duplicate();
        }
        PaidStatuses paid;
        for (ngx_uint_t index = 1; index < cf->args->nelts; ++index) {
            const auto text = word(cf, index);
            const ngx_int_t status = ngx_atoi(as_ngx(text).data, text.size());
            const bool whole = text.size() == 3 && text.ends_with("xx") && text[0] >= '1' && text[0] <= '5';
            if (!whole && (status < 100 || status > 599)) {
                return fail(cf, "invalid status \"" + std::string{text} +
                                    "\"; write 2xx and the like, or statuses as 404; 499 is a client that left");
            }
            const auto first = whole ? static_cast<std::size_t>(text[0] - '0') * 100 : static_cast<std::size_t>(status);
            for (std::size_t each = first; each < first + (whole ? 100 : 1); ++each) {
                if (!whole || each != NGX_HTTP_CLIENT_CLOSED_REQUEST) { // which is no answer
                    paid.set(each);
                }
            }
        }
        loc.paid = paid;
        return NGX_CONF_OK;
    });
}

char* set_idempotency_key(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (loc.idempotency) {
            return duplicate();
        }
        IdempotencySource source;
        constexpr std::string_view prefix = "window=";
        const auto value = word(cf, 1);
        if (cf->args->nelts > 2) {
            ngx_str_t time = as_ngx(word(cf, 2).substr(std::min(prefix.size(), word(cf, 2).size())));
            const ngx_int_t seconds = word(cf, 2).starts_with(prefix) ? ngx_parse_time(&time, 1) : NGX_ERROR;
            if (seconds < 1 || seconds > k_longest_window_s) {
                return fail(cf,
                            "invalid \"" + std::string{word(cf, 2)} + "\"; write a time from 1s to 30d, as window=24h");
            }
            source.window_s = static_cast<std::uint32_t>(seconds);
        }
        if (value != "off") {
            if (value.find('$') == std::string_view::npos) {
                return fail(cf, "\"" + std::string{value} +
                                    "\" is one key for all requests; write a variable, as $http_idempotency_key");
            }
            source.key = compile(cf, value);
            if (source.key == nullptr) {
                return static_cast<char*>(NGX_CONF_ERROR);
            }
        } else if (cf->args->nelts > 2) {
            return fail(cf, "\"off\" takes no window");
        }
        loc.idempotency = source;
        return NGX_CONF_OK;
    });
}

char* set_pass_headers(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) { return choose(cf, loc.pass, "on", "off"); });
}

char* set_strict_path(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        char* const chosen = choose(cf, loc.strict_path, "on", "off");
        main_conf(cf).strict_paths |= chosen == NGX_CONF_OK && *loc.strict_path;
        return chosen;
    });
}

char* set_cache_hits(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) { return choose(cf, loc.free_hits, "free", "charged"); });
}

char* set_recheck(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (loc.recheck) {
            return duplicate();
        }
        ngx_str_t text = as_ngx(word(cf, 1));
        if (view(text) == "off") {
            loc.recheck = 0;
            return NGX_CONF_OK;
        }
        const ngx_int_t time_ms = ngx_parse_time(&text, 0);
        if (time_ms == NGX_ERROR || time_ms < 1000) {
            return fail(cf, "invalid time \"" + std::string{view(text)} + "\"; write a time from 1s, as 60s, or off");
        }
        loc.recheck = static_cast<ngx_msec_t>(time_ms);
        return NGX_CONF_OK;
    });
}

char* set_check(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (loc.check) {
            return duplicate();
        }
        loc.check = ConfPlace::here(cf);
        return claim_content(cf, check_handler);
    });
}

} // namespace billing
