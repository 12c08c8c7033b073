#include "nginx/conf_warnings.hpp"

#include "nginx/conf.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

namespace billing {

namespace {

using CoreLocation = ngx_http_core_loc_conf_t;

// Other modules keep their configuration to themselves. These four begin, in every nginx that this builds for, with
// what is looked at here: the rewrite module's with its ngx_array_t* of codes, auth_request's with the ngx_str_t of its
// target, auth_basic's with the ngx_http_complex_value_t* of its realm, access's with the ngx_array_t* of its rules.
void* foreign_conf(const ngx_conf_t* cf, void* const* loc_conf, std::string_view module) noexcept {
    for (ngx_uint_t index = 0; cf->cycle->modules[index] != nullptr; ++index) {
        if (cf->cycle->modules[index]->name == module) {
            return loc_conf[cf->cycle->modules[index]->ctx_index];
        }
    }
    return nullptr; // nginx is built without it
}

bool begins_with(const u_char* at, ngx_http_script_code_pt code) noexcept {
    return std::memcmp(at, &code, sizeof code) == 0;
}

// The codes are of different sizes, each begins with its function and is a multiple of a word. What an `if` guards is
// left out: that is no answer to every request.
bool answers(const ngx_array_t& codes) noexcept {
    const auto* const begin = static_cast<const u_char*>(codes.elts);
    for (std::size_t at = 0; at + sizeof(ngx_http_script_return_code_t) <= codes.nelts;) {
        if (begins_with(begin + at, ngx_http_script_return_code)) {
            return true;
        }
        if (begins_with(begin + at, ngx_http_script_regex_start_code) &&
            at + sizeof(ngx_http_script_regex_code_t) <= codes.nelts &&
            reinterpret_cast<const ngx_http_script_regex_code_t*>(begin + at)->redirect != 0) {
            return true;
        }
        const auto* branch = reinterpret_cast<const ngx_http_script_if_code_t*>(begin + at);
        at += begins_with(begin + at, ngx_http_script_if_code) ? branch->next : sizeof(void*);
    }
    return false;
}

// auth_basic or auth_request stands at this level. They are merged before us, who are loaded later.
bool is_user_checked(const ngx_conf_t* cf) noexcept {
    const auto* ctx = static_cast<const ngx_http_conf_ctx_t*>(cf->ctx);
    const auto* target = static_cast<const ngx_str_t*>(foreign_conf(cf, ctx->loc_conf, "ngx_http_auth_request_module"));
    const auto* realm = static_cast<const ngx_http_complex_value_t* const*>(
        foreign_conf(cf, ctx->loc_conf, "ngx_http_auth_basic_module"));
    const bool basic = realm != nullptr && *realm != nullptr && view((*realm)->value) != "off";
    return basic || (target != nullptr && target->len > 0);
}

// As the access module keeps a rule for an IPv4 address. `all` is the mask 0.
struct AccessRule {
    in_addr_t mask;
    in_addr_t address;
    ngx_uint_t deny;
};

void warn(ngx_conf_t* cf, const ngx_str_t& location, const char* what, const ConfPlace& place) {
    ngx_log_error(NGX_LOG_WARN, cf->log, 0, "billing: location \"%V\" %s in %s:%ui", &location, what,
                  place.file.c_str(), place.line);
}

// All locations of a server that are found by the beginning or the whole of a path; regular expressions apart.
struct Locations {
    std::vector<CoreLocation*> by_path;
    std::vector<CoreLocation*> by_pattern;

    void add(CoreLocation* location) {
        if (location == nullptr) {
            return;
        }
        if (location->name.len > 0 && location->name.data[0] == '/') {
            by_path.push_back(location);
        }
        add_below(location);
    }
    void add_below(const CoreLocation* location) {
        add_tree(location->static_locations);
#if (NGX_PCRE)
        for (CoreLocation** each = location->regex_locations; each != nullptr && *each != nullptr; ++each) {
            by_pattern.push_back(*each);
            add_below(*each);
        }
#endif
    }
    void add_tree(const ngx_http_location_tree_node_t* node) {
        if (node == nullptr) {
            return;
        }
        add_tree(node->left);
        add_tree(node->right);
        add_tree(node->tree);
        add(node->exact);
        add(node->inclusive);
    }

    // Null where only a request would tell.
    const CoreLocation* of(std::string_view path) const noexcept {
        const CoreLocation* longest = nullptr;
        for (const CoreLocation* location : by_path) {
            const std::string_view name = view(location->name);
            if (location->exact_match != 0 && name == path) {
                return location;
            }
            const bool fits = location->exact_match == 0 && path.starts_with(name);
            if (fits && (longest == nullptr || name.size() > longest->name.len)) {
                longest = location;
            }
        }
        return longest != nullptr && (longest->noregex != 0 || by_pattern.empty()) ? longest : nullptr;
    }
};

void warn_of_targets(ngx_conf_t* cf, const Locations& locations) {
    std::vector<const CoreLocation*> told;
    const auto look_at = [&](const CoreLocation* asker) {
        const auto* target =
            static_cast<const ngx_str_t*>(foreign_conf(cf, asker->loc_conf, "ngx_http_auth_request_module"));
        const CoreLocation* found = target == nullptr || target->len == 0 ? nullptr : locations.of(view(*target));
        if (found == nullptr || std::find(told.begin(), told.end(), found) != told.end()) {
            return;
        }
        const auto& conf = *static_cast<const LocConf*>(found->loc_conf[ngx_http_billing_module.ctx_index]);
        if (conf.gated && !conf.check) {
            told.push_back(found);
            warn(cf, found->name,
                 "is asked by auth_request, before anybody is known, and gated; write \"billing off;\" in it",
                 *conf.on_place);
        }
    };
    std::for_each(locations.by_path.begin(), locations.by_path.end(), look_at);
    std::for_each(locations.by_pattern.begin(), locations.by_pattern.end(), look_at);
}

} // namespace

void warn_of_early_answer(ngx_conf_t* cf, const LocConf& conf) {
    const auto* ctx = static_cast<const ngx_http_conf_ctx_t*>(cf->ctx);
    const auto* core = static_cast<const CoreLocation*>(ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
    const auto* rewrite = static_cast<ngx_array_t* const*>(foreign_conf(cf, ctx->loc_conf, "ngx_http_rewrite_module"));
    if (core->noname != 0 || rewrite == nullptr || *rewrite == nullptr || !answers(**rewrite)) {
        return;
    }
    warn(cf, core->name,
         "answers by \"return\" or \"rewrite\" before the gate is asked; write \"billing off;\" in it if that is meant",
         *conf.on_place);
}

void warn_of_unchecked_user(ngx_conf_t* cf, const ConfPlace& place) {
    auto& told = main_conf(cf).unchecked_users;
    const bool known = std::any_of(told.begin(), told.end(), [&](const ConfPlace& other) {
        return other.file == place.file && other.line == place.line;
    });
    if (known || is_user_checked(cf)) {
        return;
    }
    told.push_back(place);
    ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                  "billing: $remote_user is what the client says where no password is checked; write \"auth_basic\" "
                  "beside \"billing_account\", or make sure that another module checks it in %s:%ui",
                  place.file.c_str(), place.line);
}

bool is_closed_to_strangers(const ngx_conf_t* cf) noexcept {
    const auto* ctx = static_cast<const ngx_http_conf_ctx_t*>(cf->ctx);
    const auto* list =
        static_cast<const ngx_array_t* const*>(foreign_conf(cf, ctx->loc_conf, "ngx_http_access_module"));
    if (list == nullptr || *list == nullptr || (*list)->size != sizeof(AccessRule)) {
        return false;
    }
    const auto* rules = static_cast<const AccessRule*>((*list)->elts);
    const auto* end = rules + (*list)->nelts;
    const auto* of_all = std::find_if(rules, end, [](const AccessRule& rule) { return rule.mask == 0; });
    return of_all != end && of_all->deny != 0;
}

void warn_of_gated_targets(ngx_conf_t* cf) {
    const auto& core =
        *static_cast<ngx_http_core_main_conf_t*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));
    const auto* servers = static_cast<ngx_http_core_srv_conf_t* const*>(core.servers.elts);
    for (ngx_uint_t index = 0; index < core.servers.nelts; ++index) {
        Locations locations;
        locations.add_below(
            static_cast<const CoreLocation*>(servers[index]->ctx->loc_conf[ngx_http_core_module.ctx_index]));
        warn_of_targets(cf, locations);
    }
}

ngx_int_t warn_of_environment(ngx_cycle_t* cycle) {
    return guard(cycle->log, ngx_int_t{NGX_ERROR}, [cycle]() -> ngx_int_t {
        const MainConf* main = main_conf(cycle);
        const auto* core = reinterpret_cast<const ngx_core_conf_t*>(ngx_get_conf(cycle->conf_ctx, ngx_core_module));
        const auto* kept = static_cast<const ngx_str_t*>(core->env.elts);
        for (const auto& [name, place] : main == nullptr ? decltype(main->environment){} : main->environment) {
            const bool survives = std::any_of(kept, kept + core->env.nelts, [&name = name](const ngx_str_t& entry) {
                return view(entry).substr(0, view(entry).find('=')) == name;
            });
            if (!survives) {
                ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                              "billing: an upgraded nginx would not find %s, which is read from the environment in "
                              "%s:%ui; write \"env %s;\" at the top of nginx.conf",
                              name.c_str(), place.file.c_str(), place.line, name.c_str());
            }
        }
        return NGX_OK;
    });
}

} // namespace billing
