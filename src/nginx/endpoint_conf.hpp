// What the configuration says of our own locations: checkout, portal, settings, upgrade, webhook, metrics, and where
// the pages around them are. Filled by endpoint_directives.cpp, inherited and completed when levels are merged.
#pragma once

#include "nginx/ngx.hpp"

#include "endpoints/services.hpp"
#include "nginx/conf_place.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace billing {

enum class EndpointKind : std::uint8_t {
    none,
    checkout,
    portal,
    upgrade,
    webhook,
    metrics,
    credits_api,
    settings,
    status,
    entitlements,
};

// Where a server's checkout and portal are; "" for none, and for those without a fixed address.
struct EndpointPaths {
    std::string checkout;
    std::string portal;
};

struct MainConf;
struct LocConf;

// A variable that says who a person is or what it may, and the roles that are enough.
struct RoleSource {
    ngx_http_complex_value_t* value = nullptr;
    std::vector<std::string> roles;
};

// billing_customer: what a new customer at Stripe is called; null for nothing.
struct ContactSource {
    ngx_http_complex_value_t* email = nullptr;
    ngx_http_complex_value_t* name = nullptr;
};

// billing_account_from.
struct NamedAccount {
    AccountFrom from;
    std::vector<std::string> tokens;
    ngx_http_complex_value_t* certificate = nullptr; // as EndpointConf's
    ConfPlace place;
};

struct EndpointConf {
    // The handler's own words; not inherited, as no content handler is.
    EndpointKind kind = EndpointKind::none;
    bool redirect = false;
    std::string default_plan;
    std::string portal_configuration;
    std::string portal_return;
    bool portal_makes_customer = false;
    std::vector<std::string> api_tokens;
    ngx_http_complex_value_t* certificate = nullptr; // "SUCCESS" where nginx has verified the client's
    QuantityRange packs;
    QuantityRange seats;
    std::optional<std::int64_t> tolerance_seconds; // of a webhook's time
    EntitlementNames entitlements;                 // as written: of a quota its name, or NAME:WINDOW
    ConfPlace place;

    std::optional<std::string> public_url; // without a slash at its end
    std::optional<std::string> success_url;
    std::optional<std::string> cancel_url;
    std::optional<std::vector<std::string>> return_urls;
    std::optional<CheckoutOptions> checkout;
    std::optional<RoleSource> role;
    std::optional<RoleSource> subject;
    std::optional<ContactSource> contact;
    std::optional<NamedAccount> named;
    std::vector<std::string> secrets;

    EndpointSettings settings; // after merge, of a location that has a kind
};

// An "if" or a limit_except inside of a location of ours is a configuration of its own to nginx, and still that
// location.
void inherit_handler(ngx_conf_t* cf, EndpointConf& conf, const EndpointConf& parent);

void inherit_endpoint(EndpointConf& conf, const EndpointConf& parent);

// Who asks at this level: as the last word on the way to it says, `own_account` a billing_account at the level itself.
// Says what is wrong with a billing_account_from, `own_named` one at the level itself.
char* choose_account(ngx_conf_t* cf, LocConf& loc, bool own_account, bool own_named);

// Completes the settings of a location that has a kind; says what is missing.
char* finish_endpoint(ngx_conf_t* cf, LocConf& loc, const MainConf& main);

} // namespace billing
