#include "nginx/identity_conf.hpp"

#include "nginx/conf.hpp"

namespace billing {

namespace {

constexpr std::size_t k_block_bytes = k_max_jwks_bytes + 1024;
constexpr std::size_t k_zone_bytes = 2 * k_max_jwks_bytes;

// In the master, at start and at each reload; with `old` the block is in use by the workers of before.
ngx_int_t init_jwks_zone(ngx_shm_zone_t* zone, void* old) noexcept {
    auto& own = *static_cast<JwksZone*>(zone->data);
    auto* pool = reinterpret_cast<ngx_slab_pool_t*>(zone->shm.addr);
    own.bytes = k_block_bytes;
    if (old != nullptr || zone->shm.exists) {
        own.block = pool->data;
        return NGX_OK;
    }
    own.block = ngx_slab_calloc(pool, k_block_bytes);
    pool->data = own.block;
    return own.block == nullptr ? NGX_ERROR : NGX_OK;
}

} // namespace

JwksZone* add_jwks_zone(ngx_conf_t* cf, std::string_view url) {
    ngx_str_t name = pool_copy(cf->pool, "billing_jwks:" + std::string{url});
    if (name.data == nullptr) {
        return nullptr;
    }
    ngx_shm_zone_t* zone = ngx_shared_memory_add(cf, &name, k_zone_bytes, &ngx_http_billing_module);
    if (zone == nullptr) {
        return nullptr;
    }
    if (zone->data == nullptr) {
        zone->data = pool_new<JwksZone>(cf->pool);
        zone->init = init_jwks_zone;
    }
    return static_cast<JwksZone*>(zone->data);
}

std::vector<Identity::Tokens> worker_tokens(const MainConf& main) {
    std::vector<Identity::Tokens> tokens;
    for (const auto& source : main.token_sources) {
        const JwksZone* zone = source->zone;
        tokens.push_back({source->config, zone == nullptr ? KeptText{} : KeptText{zone->block, zone->bytes}});
    }
    return tokens;
}

void inherit_identity(LocConf& conf, const LocConf& parent) {
    conf.identity.token = conf.identity.token ? conf.identity.token : parent.identity.token;
    conf.identity.key = conf.identity.key ? conf.identity.key : parent.identity.key;
    conf.account.token = conf.identity.token.value_or(nullptr);
    conf.account.key = conf.identity.key.value_or(nullptr);
}

// Only what cannot be meant: a server may name the claim and leave it to its locations whose tokens they believe.
char* check_identity(ngx_conf_t* cf, const ConfPlace& place, const LocConf& conf) {
    if (conf.account.names_claim && main_conf(cf).token_sources.empty()) {
        return complain(
            cf, place,
            "\"billing_account\" names a token's claim, and no token is believed anywhere; write \"billing_jwt "
            "alg=HS256 secret=file:PATH;\" or \"billing_jwt alg=RS256 jwks=https://...;\" beside it");
    }
    if (conf.account.names_key && main_conf(cf).key_sources.empty()) {
        return complain(cf, place,
                        "\"billing_account\" names an API key's account, and no key is looked at anywhere; write "
                        "\"billing_api_key $http_x_api_key;\" beside it");
    }
    return NGX_CONF_OK;
}

} // namespace billing
