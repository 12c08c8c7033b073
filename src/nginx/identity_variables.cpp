#include "nginx/identity_variables.hpp"

#include "nginx/identity_record.hpp"
#include "nginx/worker.hpp"

namespace billing {

namespace {

constexpr std::string_view k_claim_prefix = "billing_jwt_claim_";

// The text is copied: what it came from may be forgotten before the request ends.
ngx_int_t give(ngx_http_request_t* r, ngx_http_variable_value_t* value, std::string_view text) {
    value->not_found = text.empty();
    if (text.empty()) {
        return NGX_OK;
    }
    const ngx_str_t copy = pool_copy(r->pool, text);
    if (copy.data == nullptr) {
        return NGX_ERROR;
    }
    value->data = copy.data;
    value->len = static_cast<unsigned>(copy.len) & 0xfffffff;
    value->valid = 1;
    value->no_cacheable = 1;
    return NGX_OK;
}

// noexcept edge: data is the variable's whole name.
ngx_int_t get_claim(ngx_http_request_t* r, ngx_http_variable_value_t* value, uintptr_t data) {
    return guard(r->connection->log, ngx_int_t{NGX_ERROR}, [&]() -> ngx_int_t {
        const auto& name = *reinterpret_cast<const ngx_str_t*>(data);
        const TokenAnswer* answer = token_answer(r);
        if (answer == nullptr || answer->verdict != TokenVerdict::good) {
            value->not_found = 1;
            return NGX_OK;
        }
        return give(r, value, claim_text(answer->claims->get(), std::string{view(name).substr(k_claim_prefix.size())}));
    });
}

ngx_int_t get_key_account(ngx_http_request_t* r, ngx_http_variable_value_t* value, uintptr_t) {
    return guard(r->connection->log, ngx_int_t{NGX_ERROR}, [&]() -> ngx_int_t {
        const ApiKeySource* source = loc_conf(r).account.key;
        const IdentityRecord* record = find_identity(r);
        if (source == nullptr || Worker::current() == nullptr) {
            value->not_found = 1;
            return NGX_OK;
        }
        if (record != nullptr && record->key_source == source) {
            return give(r, value, record->key.account);
        }
        // Earlier than the keys' own handler: what is remembered, without asking anybody.
        ngx_str_t key;
        if (ngx_http_complex_value(r, source->key, &key) != NGX_OK) {
            return NGX_ERROR;
        }
        const auto known = key.len == 0 ? std::nullopt : Worker::current()->identity().keys().look(view(key));
        return give(r, value, known ? known->account : "");
    });
}

ngx_int_t add_variable(ngx_conf_t* cf, std::string_view text, ngx_uint_t flags, ngx_http_get_variable_pt handler) {
    ngx_str_t name = as_ngx(text);
    ngx_http_variable_t* variable = ngx_http_add_variable(cf, &name, NGX_HTTP_VAR_NOCACHEABLE | flags);
    if (variable == nullptr) {
        return NGX_ERROR;
    }
    variable->get_handler = handler;
    return NGX_OK;
}

} // namespace

ngx_int_t add_identity_variables(ngx_conf_t* cf) {
    if (add_variable(cf, k_claim_prefix, NGX_HTTP_VAR_PREFIX, get_claim) != NGX_OK) {
        return NGX_ERROR;
    }
    return add_variable(cf, "billing_api_key_account", 0, get_key_account);
}

} // namespace billing
