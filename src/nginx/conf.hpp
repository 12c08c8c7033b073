// The configuration as nginx holds it: one MainConf for http, one LocConf for each level. Filled by the setters in
// directives.cpp in the master, inherited by the workers, freed with the cycle.
#pragma once

#include "nginx/ngx.hpp"

#include "domain/catalog_file.hpp"
#include "drivers/address.hpp"
#include "drivers/stripe_api.hpp"
#include "gate/decision.hpp"
#include "gate/rules.hpp"
#include "nginx/conf_place.hpp"
#include "nginx/endpoint_conf.hpp"
#include "nginx/identity_conf.hpp"

#include <array>
#include <bitset>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace billing {

// Who pays: `billing_account`. A plain variable is looked up by its number, which costs a third less than evaluating a
// text; a header field is found without nginx's variable, at a third of its cost.
struct AccountSource {
    ngx_http_complex_value_t* text = nullptr;
    ngx_int_t variable = NGX_ERROR;
    std::string header;       // of a variable $http_...: the field's name in lower case
    bool names_claim = false; // $billing_jwt_claim_... is in it
    bool names_key = false;   // $billing_api_key_account is in it
    bool names_user = false;  // $remote_user is in it: what the client says, until another module has checked it
    // After merge: what is believed at this level; null where nothing is.
    const TokenSource* token = nullptr;
    const ApiKeySource* key = nullptr;

    bool operator==(const AccountSource&) const = default;
    bool given() const noexcept { return text != nullptr || variable != NGX_ERROR; }
    // Empty when nobody is named. False: nginx could not tell.
    bool read(ngx_http_request_t* r, std::string_view& account) const noexcept;
};

// Where the application says what a request was worth; null: nowhere. More than `most` is not believed.
struct UseReport {
    ngx_http_complex_value_t* value = nullptr;
    std::string field; // of a variable $upstream_http_...: the field's name in lower case
    std::uint32_t most = k_max_cost;
};

// Statuses that an answer is paid for with; 499 (nginx's own) stands for a client that left.
using PaidStatuses = std::bitset<600>;

// A location's rules with what only nginx can evaluate. Shared by all levels that inherit them.
struct LocationRules {
    Rules rules;
    Costs costs{}; // the quotas' constant costs
    CreditUnits credits{};
    // Empty where all are constant; else one for each quota, or each type of credits, or null.
    std::vector<ngx_http_complex_value_t*> variable_costs;
    std::vector<ngx_http_complex_value_t*> variable_credits;
    bool constant = true; // nothing of a request has to be read but its account
    // Empty where nothing is reported.
    std::vector<UseReport> quota_use;
    std::vector<UseReport> credit_use;
    std::uint32_t takings = 0;  // what one request may have to remember of them
    bool takes_credits = false; // or places of a stock
    std::size_t index = 0;      // place in MainConf::rules and among a worker's bound rules
};

struct PlacedPlan {
    PlanRule rule;
    ConfPlace place;
};
struct PlacedFeature {
    FeatureRule rule;
    ConfPlace place;
};
struct PlacedQuota {
    QuotaRule rule;
    std::string window; // as it was written; "" = the quota's only one
    ngx_http_complex_value_t* cost = nullptr;
    UseReport use;
    ConfPlace place;
};
struct PlacedCredit {
    CreditRule rule;
    ngx_http_complex_value_t* units = nullptr;
    UseReport use;
    ConfPlace place;
};
struct PlacedStock {
    StockRule rule;
    ngx_uint_t methods = 0; // that make or remove
    ConfPlace place;
};
struct PlacedRate {
    RateRule rule;
    ConfPlace place;
};

constexpr std::int64_t k_day_s = 86400;
constexpr std::int64_t k_keep_payloads_s = 30 * k_day_s;

// What becomes of an account whose payment has failed: `billing_payment_failed`.
struct PaymentPolicy {
    bool maintenance = false;                                            // reading goes on, writing does not
    std::optional<std::int64_t> grace_seconds = std::int64_t{7} * 86400; // nothing: until Stripe gives up
};

// `billing_idempotency_key`; no value: off.
struct IdempotencySource {
    ngx_http_complex_value_t* key = nullptr;
    std::uint32_t window_s = 86400;
};

// `billing_codes`; 0 = the default.
struct Codes {
    std::array<std::uint16_t, k_reasons> gate{};
    std::uint16_t unknown_plan = 0; // what checkout and portal may have to say
    std::uint16_t no_customer = 0;
    std::uint16_t stripe_error = 0;
};

struct MainConf {
    ngx_shm_zone_t* zone = nullptr;
    std::string postgres;        // resolved conninfo; holds the password
    std::string postgres_listen; // a direct connection for LISTEN
    std::optional<RedisAddress> redis;
    std::optional<CatalogFile> catalog;
    std::string catalog_path;
    std::vector<std::unique_ptr<LocationRules>> rules;
    std::optional<StripeConfig> stripe;
    std::optional<PaymentPolicy> payment_policy;
    std::optional<MetadataNames> metadata;       // billing_metadata
    std::optional<bool> dev_mode;                // billing_dev_mode
    std::optional<std::int64_t> keep_payloads_s; // billing_keep_payloads
    std::optional<bool> dispute_maintenance;     // `billing_payment_disputed`
    std::vector<std::unique_ptr<TokenSource>> token_sources;
    std::vector<std::unique_ptr<ApiKeySource>> key_sources;
    std::optional<bool> jobs;                                 // off: other hosts publish changes and process events
    std::vector<std::pair<const void*, EndpointPaths>> paths; // of each server that has some, by its core configuration
    std::vector<std::pair<std::string, ConfPlace>> environment; // what was read from there, and for which line
    bool gated = false;                                         // some location has `billing on`
    bool endpoints = false;                                     // some location is ours
    std::vector<ConfPlace> unchecked_users;                     // places of billing_account that have been warned of
    bool strict_paths = false;                                  // some level has `billing_strict_path on`

    const EndpointPaths& paths_of(const void* server) const noexcept;
};

enum class GateMode : std::uint8_t { off, on, observe };

// Methods that change nothing, unless the operator says otherwise.
inline constexpr ngx_uint_t k_read_methods = NGX_HTTP_GET | NGX_HTTP_HEAD | NGX_HTTP_OPTIONS | NGX_HTTP_TRACE;

struct LocConf {
    std::optional<GateMode> mode;
    std::optional<ngx_uint_t> reads; // billing_read_methods
    std::optional<StatusSet> live;   // billing_live_status
    std::optional<bool> pass;        // billing_pass_headers
    std::optional<ngx_msec_t> recheck;
    std::optional<bool> strict_path;  // billing_strict_path
    std::optional<bool> free_hits;    // billing_cache_hits free
    std::optional<PaidStatuses> paid; // billing_paid_status
    std::optional<IdempotencySource> idempotency;
    AccountSource account;
    std::optional<ConfPlace> account_place;
    bool account_from_client = false; // a header, argument or cookie that anybody can set
    std::optional<UnknownAccount> unknown;
    std::optional<ErrorPolicy> on_error;
    std::optional<Codes> codes;
    std::optional<PlacedPlan> plan;
    std::vector<PlacedFeature> features;
    std::vector<PlacedQuota> quotas;
    std::vector<PlacedRate> rates;
    std::vector<PlacedCredit> credits;
    std::vector<PlacedStock> stock;
    std::optional<ConfPlace> on_place;
    std::optional<ConfPlace> check; // billing_check; inherited by an "if" alone
    EndpointConf endpoint;
    IdentityConf identity;
    const LocationRules* rules = nullptr; // after merge, where billing is on

    // After merge: what the request path reads.
    bool gated = false;
    bool observes = false;     // refuses nothing
    bool passes = false;       // billing_pass_headers
    ngx_msec_t recheck_ms = 0; // billing_recheck; 0 = off
    bool settles = false;      // the application says what a request was worth
    bool keyed = false;        // requests may carry a key of their client's (billing_idempotency_key)
    bool accompanies = false;  // more than a decision: one of these, or billing_recheck
    ngx_uint_t read_methods = k_read_methods;
    StatusSet live_statuses = k_live_statuses;
    const PaidStatuses* paid_statuses = nullptr; // null: 2xx, 3xx and 499
    UnknownAccount unknown_account = UnknownAccount::create;
    ErrorPolicy error_policy;
    Codes status_codes{};
};

// nginx's hooks.
void* create_main_conf(ngx_conf_t* cf);
void* create_loc_conf(ngx_conf_t* cf);
char* merge_loc_conf(ngx_conf_t* cf, void* parent, void* child);

inline MainConf& main_conf(ngx_conf_t* cf) noexcept {
    return *static_cast<MainConf*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_billing_module));
}
// Null when the cycle has no http block.
inline MainConf* main_conf(ngx_cycle_t* cycle) noexcept {
    return static_cast<MainConf*>(ngx_http_cycle_get_module_main_conf(cycle, ngx_http_billing_module));
}
inline const MainConf& main_conf(ngx_http_request_t* r) noexcept {
    return *static_cast<const MainConf*>(ngx_http_get_module_main_conf(r, ngx_http_billing_module));
}
inline LocConf& loc_conf(const ngx_http_request_t* r) noexcept {
    return *static_cast<LocConf*>(ngx_http_get_module_loc_conf(r, ngx_http_billing_module));
}

} // namespace billing
