// What a host has once: its shared memory, its stores, its catalog.
#include "nginx/directives.hpp"

#include "nginx/conf.hpp"
#include "nginx/setters.hpp"
#include "nginx/settings.hpp"
#include "nginx/zone.hpp"

namespace billing {

char* set_zone(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<MainConf>(cf, conf, [cf](MainConf& main) -> char* {
        if (main.zone != nullptr) {
            return duplicate();
        }
        ngx_str_t* words = static_cast<ngx_str_t*>(cf->args->elts);
        const ssize_t size = ngx_parse_size(&words[2]);
        if (size == NGX_ERROR) {
            return fail(cf, "invalid size \"" + std::string{word(cf, 2)} + "\"; write a number with k or m, as 16m");
        }
        return add_zone(cf, words[1], static_cast<std::size_t>(size), main);
    });
}

char* set_postgres(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<MainConf>(cf, conf, [cf](MainConf& main) -> char* {
        if (!main.postgres.empty()) {
            return duplicate();
        }
        for (ngx_uint_t index = 1; index < cf->args->nelts; ++index) {
            std::string_view text = word(cf, index);
            const bool listen = index == 2;
            if (listen && !text.starts_with("listen=")) {
                return fail(cf, "the second word must be listen=DSN");
            }
            text.remove_prefix(listen ? std::string_view{"listen="}.size() : 0);
            auto setting = read_secret(cf, text);
            if (!setting) {
                return fail(cf, setting.error());
            }
            auto resolved = resolve_postgres(setting.value());
            if (!resolved) {
                return fail(cf, resolved.error());
            }
            (listen ? main.postgres_listen : main.postgres) = std::move(resolved).value();
        }
        if (main.postgres_listen.empty()) {
            main.postgres_listen = main.postgres;
        }
        return NGX_CONF_OK;
    });
}

char* set_redis(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<MainConf>(cf, conf, [cf](MainConf& main) -> char* {
        if (main.redis) {
            return duplicate();
        }
        auto setting = read_secret(cf, word(cf, 1));
        if (!setting) {
            return fail(cf, setting.error());
        }
        auto address = resolve_redis(setting.value());
        if (!address) {
            return fail(cf, address.error());
        }
        main.redis = std::move(address).value();
        return NGX_CONF_OK;
    });
}

char* set_catalog(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<MainConf>(cf, conf, [cf](MainConf& main) -> char* {
        if (main.catalog) {
            return duplicate();
        }
        ngx_str_t path = static_cast<ngx_str_t*>(cf->args->elts)[1];
        if (ngx_conf_full_name(cf->cycle, &path, 1) != NGX_OK) {
            return static_cast<char*>(NGX_CONF_ERROR);
        }
        main.catalog_path = view(path);
        auto file = CatalogFile::load(main.catalog_path);
        if (!file) {
            return fail(cf, file.error());
        }
        main.catalog = std::move(file).value();
        for (const std::string& name : main.catalog->environment()) {
            main.environment.emplace_back(name, ConfPlace::here(cf));
        }
        return NGX_CONF_OK;
    });
}

} // namespace billing
