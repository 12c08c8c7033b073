#include "nginx/conf.hpp"

#include "nginx/check_handler.hpp"
#include "nginx/conf_warnings.hpp"
#include "nginx/endpoint_handler.hpp"
#include "nginx/worker.hpp"

#include <algorithm>

namespace billing {

namespace {

bool sets_rules(const LocConf& conf) noexcept {
    return conf.plan || !conf.features.empty() || !conf.quotas.empty() || !conf.rates.empty() ||
           !conf.credits.empty() || !conf.stock.empty();
}

template <class T>
std::string names(const std::map<std::string, T, std::less<>>& entries) {
    std::string text;
    for (const auto& [name, entry] : entries) {
        text += (text.empty() ? "" : ", ") + name;
    }
    return text.empty() ? "none" : text;
}

// The limit that a rule means; an error says what to write.
Result<std::string> limit_of(const PlacedQuota& quota, const CatalogFile& catalog, const std::string& known) {
    const auto declared = catalog.quotas().find(quota.rule.key);
    if (declared == catalog.quotas().end()) {
        return Error{"no quota \"" + quota.rule.key + "\" in the catalog" + known + names(catalog.quotas()) + ")"};
    }
    const auto& windows = declared->second;
    if (quota.window.empty() && windows.size() > 1) {
        return Error{"quota \"" + quota.rule.key +
                     "\" has several windows; write window=NAME, a line for each that counts" + known + names(windows) +
                     ")"};
    }
    const auto window = quota.window.empty() ? windows.begin() : windows.find(quota.window);
    if (window == windows.end()) {
        return Error{"quota \"" + quota.rule.key + "\" has no window \"" + quota.window + "\"" + known +
                     names(windows) + ")"};
    }
    return window->second;
}

const LocationRules* make_rules(MainConf& main, const LocConf& conf) {
    auto rules = std::make_unique<LocationRules>();
    if (conf.plan) {
        rules->rules.plans.push_back(conf.plan->rule);
    }
    for (const auto& feature : conf.features) {
        rules->rules.features.push_back(feature.rule);
    }
    for (const auto& quota : conf.quotas) {
        rules->costs[rules->rules.quotas.size()] = quota.rule.cost;
        rules->rules.quotas.push_back(quota.rule);
        rules->rules.quotas.back().key = limit_of(quota, *main.catalog, "").value(); // check_names() has seen it
        if (quota.cost != nullptr) {
            rules->variable_costs.resize(conf.quotas.size());
            rules->variable_costs[rules->rules.quotas.size() - 1] = quota.cost;
        }
        if (quota.use.value != nullptr) {
            rules->quota_use.resize(conf.quotas.size());
            rules->quota_use[rules->rules.quotas.size() - 1] = quota.use;
        }
    }
    for (const auto& rate : conf.rates) {
        rules->rules.rates.push_back(rate.rule);
    }
    for (const auto& credit : conf.credits) {
        rules->credits[rules->rules.credits.size()] = credit.rule.units;
        rules->rules.credits.push_back(credit.rule);
        if (credit.units != nullptr) {
            rules->variable_credits.resize(conf.credits.size());
            rules->variable_credits[rules->rules.credits.size() - 1] = credit.units;
        }
        if (credit.use.value != nullptr) {
            rules->credit_use.resize(conf.credits.size());
            rules->credit_use[rules->rules.credits.size() - 1] = credit.use;
        }
    }
    rules->rules.keyed = conf.keyed;
    rules->constant = rules->variable_costs.empty() && rules->variable_credits.empty() && !conf.keyed;
    rules->takings = static_cast<std::uint32_t>(rules->rules.takings());
    for (const auto& stock : conf.stock) {
        rules->rules.stock.push_back(stock.rule);
    }
    rules->takes_credits = rules->rules.durable_takings() != 0;
    rules->index = main.rules.size();
    main.rules.push_back(std::move(rules));
    return main.rules.back().get();
}

void inherit(LocConf& conf, const LocConf& parent) {
    if (!conf.mode) {
        conf.mode = parent.mode;
        conf.on_place = parent.on_place;
    }
    if (!conf.account.given()) {
        conf.account = parent.account;
        conf.account_place = parent.account_place;
        conf.account_from_client = parent.account_from_client;
    }
    conf.unknown = conf.unknown ? conf.unknown : parent.unknown;
    conf.on_error = conf.on_error ? conf.on_error : parent.on_error;
    conf.codes = conf.codes ? conf.codes : parent.codes;
    conf.reads = conf.reads ? conf.reads : parent.reads;
    conf.live = conf.live ? conf.live : parent.live;
    conf.pass = conf.pass ? conf.pass : parent.pass;
    conf.recheck = conf.recheck ? conf.recheck : parent.recheck;
    conf.strict_path = conf.strict_path ? conf.strict_path : parent.strict_path;
    conf.free_hits = conf.free_hits ? conf.free_hits : parent.free_hits;
    conf.paid = conf.paid ? conf.paid : parent.paid;
    conf.idempotency = conf.idempotency ? conf.idempotency : parent.idempotency;
    conf.plan = conf.plan ? conf.plan : parent.plan;
    if (conf.features.empty()) {
        conf.features = parent.features;
    }
    if (conf.quotas.empty()) {
        conf.quotas = parent.quotas;
    }
    if (conf.rates.empty()) {
        conf.rates = parent.rates;
    }
    if (conf.credits.empty()) {
        conf.credits = parent.credits;
    }
    if (conf.stock.empty()) {
        conf.stock = parent.stock;
    }
    inherit_endpoint(conf.endpoint, parent.endpoint);
    inherit_identity(conf, parent);
}

// "if" and "limit_except" have a configuration of their own; their location's handler answers there too.
void inherit_check(ngx_conf_t* cf, LocConf& conf, const LocConf& parent) {
    auto* core = static_cast<ngx_http_core_loc_conf_t*>(ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
    if (core->noname != 0 && core->handler == nullptr && parent.check) {
        conf.check = parent.check;
        core->handler = check_handler;
    }
}

// `own_key`: the location says itself what its keys are.
char* check_check(ngx_conf_t* cf, const LocConf& conf, bool own_key) {
    if (conf.check && !conf.gated) {
        return complain(cf, *conf.check,
                        "\"billing_check\" tells the gate's decision; write \"billing on;\" beside it");
    }
    if (conf.check && own_key && conf.idempotency->key != nullptr) {
        return complain(cf, *conf.check,
                        "\"billing_check\" does not see the request that a key stands for; remove "
                        "billing_idempotency_key");
    }
    return NGX_CONF_OK;
}

// A directive of nginx behind ours, as proxy_pass, would answer in its place.
char* check_content(ngx_conf_t* cf, const LocConf& conf) {
    const auto* core =
        static_cast<const ngx_http_core_loc_conf_t*>(ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
    const bool ours = conf.check || conf.endpoint.kind != EndpointKind::none;
    if (!ours || core->handler == check_handler || core->handler == endpoint_handler) {
        return NGX_CONF_OK;
    }
    return complain(cf, conf.check ? *conf.check : conf.endpoint.place,
                    "this location answers by itself; remove proxy_pass and the like from it");
}

std::string names(const std::vector<CatalogFile::PlanName>& plans) {
    std::string text;
    for (const auto& plan : plans) {
        text += (text.empty() ? "" : ", ") + plan.key;
    }
    return text;
}

std::string names(const std::set<std::string, std::less<>>& keys) {
    std::string text;
    for (const auto& key : keys) {
        text += (text.empty() ? "" : ", ") + key;
    }
    return text.empty() ? "none" : text;
}

// Every name a rule uses must be one that the catalog file declares.
char* check_names(ngx_conf_t* cf, const LocConf& conf, const MainConf& main) {
    const CatalogFile& catalog = *main.catalog;
    const std::string known = " (" + main.catalog_path + " has: ";
    if (conf.plan) {
        for (const auto& key : conf.plan->rule.keys) {
            if (!catalog.has_plan(key)) {
                return complain(cf, conf.plan->place,
                                "no plan \"" + key + "\" in the catalog" + known + names(catalog.plans()) + ")");
            }
        }
    }
    for (const auto& feature : conf.features) {
        for (const auto& key : feature.rule.keys) {
            if (!catalog.features().contains(key)) {
                return complain(cf, feature.place,
                                "no feature \"" + key + "\" in the catalog" + known + names(catalog.features()) + ")");
            }
        }
    }
    for (const auto& quota : conf.quotas) {
        if (auto limit = limit_of(quota, catalog, known); !limit) {
            return complain(cf, quota.place, limit.error());
        }
    }
    for (const auto& rate : conf.rates) {
        if (!catalog.rates().contains(rate.rule.key)) {
            return complain(cf, rate.place,
                            "no rate \"" + rate.rule.key + "\" in the catalog" + known + names(catalog.rates()) + ")");
        }
    }
    for (const auto& credit : conf.credits) {
        if (!catalog.credits().contains(credit.rule.key)) {
            return complain(cf, credit.place,
                            "no credits \"" + credit.rule.key + "\" in the catalog" + known + names(catalog.credits()) +
                                ")");
        }
        if (conf.error_policy.allow) {
            return complain(cf, credit.place,
                            "credits are never given unpaid; write \"billing_on_error 503;\" in this location, which "
                            "has \"allow\"");
        }
    }
    for (const auto& stock : conf.stock) {
        if (!catalog.stock().contains(stock.rule.key)) {
            return complain(cf, stock.place,
                            "no stock \"" + stock.rule.key + "\" in the catalog" + known + names(catalog.stock()) +
                                ")");
        }
        if (conf.error_policy.allow) {
            return complain(cf, stock.place,
                            "things of a stock are never made uncounted; write \"billing_on_error 503;\" in this "
                            "location, which has \"allow\"");
        }
    }
    return NGX_CONF_OK;
}

// What the gate and our own locations stand on.
char* check_foundation(ngx_conf_t* cf, const ConfPlace& place, const std::string& what, const MainConf& main) {
    if (main.zone == nullptr) {
        return complain(cf, place, what + " needs shared memory; write \"billing_zone main 16m;\" in http");
    }
    if (main.postgres.empty()) {
        return complain(cf, place,
                        what + " needs the database; write \"billing_postgres 'host=... dbname=...';\" in http");
    }
    if (!main.catalog) {
        return complain(cf, place, what + " needs the catalog; write \"billing_catalog catalog.json;\" in http");
    }
    if (!main.jobs.value_or(true) && !main.redis) {
        return complain(cf, place,
                        "\"billing_jobs off\" leaves the work to other hosts, which tell of it through Redis; write "
                        "\"billing_redis ADDRESS;\" in http");
    }
    return NGX_CONF_OK;
}

// A level that the configuration gates must have all that a gate stands on.
char* check_gate(ngx_conf_t* cf, const LocConf& conf, const MainConf& main) {
    const ConfPlace& place = *conf.on_place;
    if (char* problem = check_foundation(cf, place, "\"billing on\"", main); problem != NGX_CONF_OK) {
        return problem;
    }
    if (!conf.account.given()) {
        return complain(cf, place,
                        "\"billing on\" needs to know who pays; write \"billing_account $variable;\" beside it");
    }
    if (char* problem = check_identity(cf, place, conf); problem != NGX_CONF_OK) {
        return problem;
    }
    return check_names(cf, conf, main);
}

// Our own locations are open to every account, also to one that the gate would refuse: that is where it mends it.
char* merge_endpoint(ngx_conf_t* cf, LocConf& conf, const MainConf& main, bool own_rules) {
    const ConfPlace& place = conf.endpoint.place;
    if (own_rules) {
        return complain(cf, place,
                        "no rule of the gate applies to this location; remove billing_plan, "
                        "billing_feature, billing_quota, billing_rate, billing_credits and billing_stock from it");
    }
    conf.gated = false;
    if (char* problem = check_foundation(cf, place, "this location", main); problem != NGX_CONF_OK) {
        return problem;
    }
    if (char* problem = check_identity(cf, place, conf); problem != NGX_CONF_OK) {
        return problem;
    }
    return finish_endpoint(cf, conf, main);
}

// A field may be written with underscores, where nginx lets such in: its variable, and many an application, reads them
// as the other. Of the same length.
bool is_named(const ngx_table_elt_t& field, std::string_view name) noexcept {
    if (field.hash == 0 || field.lowcase_key == nullptr) {
        return false;
    }
    if (ngx_memcmp(field.lowcase_key, name.data(), name.size()) == 0) {
        return true;
    }
    return std::equal(name.begin(), name.end(), field.lowcase_key,
                      [](char wanted, u_char there) { return wanted == (there == '_' ? '-' : there); });
}

// Null where only nginx can tell: the variable is not its own $http_..., or has a value already, or the request has no
// such field. Several fields are no account: which of them the application takes nobody knows, and nginx before 1.23
// takes the first.
const ngx_str_t* only_field(ngx_http_request_t* r, ngx_int_t variable, std::string_view name) noexcept {
    const auto* core = static_cast<ngx_http_core_main_conf_t*>(ngx_http_get_module_main_conf(r, ngx_http_core_module));
    const auto& defined = static_cast<const ngx_http_variable_t*>(core->variables.elts)[variable];
    const ngx_http_variable_value_t& known = r->variables[variable];
    const bool by_name = defined.data == reinterpret_cast<uintptr_t>(&defined.name); // as nginx marks its own
    if (name.empty() || !by_name) {
        return nullptr;
    }
    static const ngx_str_t several = ngx_string(", ");
    const ngx_str_t* found = nullptr;
    for (const ngx_list_part_t* part = &r->headers_in.headers.part; part != nullptr; part = part->next) {
        const auto* fields = static_cast<const ngx_table_elt_t*>(part->elts);
        for (const ngx_table_elt_t* end = fields + part->nelts; fields != end; ++fields) {
            if (fields->key.len == name.size() && is_named(*fields, name)) [[unlikely]] {
                if (found != nullptr) {
                    return &several;
                }
                found = &fields->value;
            }
        }
    }
    return known.valid == 0 && known.not_found == 0 ? found : nullptr;
}

// Apart, so that only those who need it pay for its stack.
[[gnu::noinline]] bool evaluate(ngx_http_request_t* r, ngx_http_complex_value_t& text, std::string_view& account) {
    ngx_str_t value;
    if (ngx_http_complex_value(r, &text, &value) != NGX_OK) {
        return false;
    }
    account = view(value);
    return true;
}

} // namespace

const EndpointPaths& MainConf::paths_of(const void* server) const noexcept {
    static const EndpointPaths k_none;
    for (const auto& [owner, known] : paths) {
        if (owner == server) {
            return known;
        }
    }
    return k_none;
}

bool AccountSource::read(ngx_http_request_t* r, std::string_view& account) const noexcept {
    if (variable != NGX_ERROR) {
        if (const ngx_str_t* field = only_field(r, variable, header); field != nullptr) {
            account = view(*field);
            return true;
        }
        const ngx_http_variable_value_t* value = ngx_http_get_flushed_variable(r, static_cast<ngx_uint_t>(variable));
        if (value == nullptr) {
            return false;
        }
        account = value->not_found ? std::string_view{}
                                   : std::string_view{reinterpret_cast<const char*>(value->data), value->len};
        return true;
    }
    return evaluate(r, *text, account);
}

void* create_main_conf(ngx_conf_t* cf) {
    // nginx gives such a process no second init_process: it would serve a configuration that it has no connections for.
    if (Worker::current() != nullptr) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "billing: with \"master_process off\" nginx cannot take up another configuration; stop it and "
                      "start it again");
        return nullptr;
    }
    return guard(cf->log, static_cast<void*>(nullptr), [cf]() -> void* { return pool_new<MainConf>(cf->pool); });
}

void* create_loc_conf(ngx_conf_t* cf) {
    return guard(cf->log, static_cast<void*>(nullptr), [cf]() -> void* { return pool_new<LocConf>(cf->pool); });
}

char* merge_loc_conf(ngx_conf_t* cf, void* parent, void* child) {
    return guard(cf->log, static_cast<char*>(NGX_CONF_ERROR), [&]() -> char* {
        const auto& from = *static_cast<const LocConf*>(parent);
        auto& conf = *static_cast<LocConf*>(child);
        auto& main = main_conf(cf);
        const bool own_rules = sets_rules(conf);
        const bool own_key = conf.idempotency.has_value();
        const bool own_account = conf.account.given();
        const bool own_named = conf.endpoint.named.has_value();
        inherit(conf, from);
        inherit_handler(cf, conf.endpoint, from.endpoint);
        inherit_check(cf, conf, from);
        conf.gated = conf.mode.value_or(GateMode::off) != GateMode::off;
        conf.observes = conf.mode == GateMode::observe;
        conf.read_methods = conf.reads.value_or(k_read_methods);
        conf.passes = conf.pass.value_or(false);
        conf.recheck_ms = conf.recheck.value_or(0);
        conf.keyed = conf.idempotency && conf.idempotency->key != nullptr && !conf.check;
        conf.accompanies = conf.passes || conf.keyed || conf.recheck_ms != 0;
        conf.paid_statuses = conf.paid ? &*conf.paid : nullptr;
        conf.live_statuses = conf.live.value_or(k_live_statuses);
        conf.unknown_account =
            conf.unknown.value_or(conf.account_from_client ? UnknownAccount::free : UnknownAccount::create);
        conf.error_policy = conf.on_error.value_or(ErrorPolicy{});
        conf.status_codes = conf.codes.value_or(Codes{});
        if (char* problem = check_content(cf, conf); problem != NGX_CONF_OK) {
            return problem;
        }
        if (char* problem = choose_account(cf, conf, own_account, own_named); problem != NGX_CONF_OK) {
            return problem;
        }
        if (conf.account.names_user && (conf.gated || conf.endpoint.kind != EndpointKind::none)) {
            warn_of_unchecked_user(cf, *conf.account_place);
        }
        if (conf.endpoint.kind != EndpointKind::none) {
            return merge_endpoint(cf, conf, main, own_rules);
        }
        if (char* problem = check_check(cf, conf, own_key); problem != NGX_CONF_OK) {
            return problem;
        }
        if (!conf.gated) {
            return NGX_CONF_OK;
        }
        if (char* problem = check_gate(cf, conf, main); problem != NGX_CONF_OK) {
            return problem;
        }
        conf.rules = !own_rules && !own_key && from.rules != nullptr ? from.rules : make_rules(main, conf);
        conf.settles = !conf.rules->quota_use.empty() || !conf.rules->credit_use.empty();
        main.gated = true;
        warn_of_early_answer(cf, conf);
        return NGX_CONF_OK;
    });
}

} // namespace billing
