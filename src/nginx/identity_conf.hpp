// What the configuration says of built-in identity: which bearer tokens (`billing_jwt`) and which API keys
// (`billing_api_key`) are believed at a level. Filled by identity_directives.cpp in the master; levels share what they
// inherit.
#pragma once

#include "nginx/ngx.hpp"

#include "identity/identity.hpp"
#include "nginx/conf_place.hpp"

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

namespace billing {

struct MainConf;
struct LocConf;

// The block in shared memory where a fetched JWKS outlives a reload. In the memory of the cycle.
struct JwksZone {
    void* block = nullptr;
    std::size_t bytes = 0;
};

// One `billing_jwt`.
struct TokenSource {
    TokenConfig config;
    ngx_http_complex_value_t* token = nullptr; // null: the Authorization field
    std::size_t index = 0;                     // in MainConf::token_sources and among a worker's verifiers
    JwksZone* zone = nullptr;                  // of an address
};

// One `billing_api_key`.
struct ApiKeySource {
    ngx_http_complex_value_t* key = nullptr;
};

// Nothing: as the level above says. Null: off.
struct IdentityConf {
    std::optional<const TokenSource*> token;
    std::optional<const ApiKeySource*> key;
};

// The zone that keeps what is fetched from this address, shared by all directives that name it. Null when memory is
// out.
JwksZone* add_jwks_zone(ngx_conf_t* cf, std::string_view url);

// What a worker's Identity is made of.
std::vector<Identity::Tokens> worker_tokens(const MainConf& main);

// When levels are merged, after the account's source was.
void inherit_identity(LocConf& conf, const LocConf& parent);
// NGX_CONF_OK, or what is missing beside `billing_account`.
char* check_identity(ngx_conf_t* cf, const ConfPlace& place, const LocConf& conf);

} // namespace billing
