#include "nginx/identity_record.hpp"

#include "nginx/worker.hpp"

#include <algorithm>

namespace billing {

namespace {

constexpr std::string_view k_scheme = "bearer";

void destroy_record(void* data) noexcept { static_cast<IdentityRecord*>(data)->~IdentityRecord(); }

static_assert(alignof(IdentityRecord) <= NGX_ALIGNMENT);

// Past "Bearer" and blanks; nothing for another scheme.
std::optional<std::string_view> after_scheme(std::string_view field) noexcept {
    const auto* text = reinterpret_cast<const u_char*>(field.data());
    if (field.size() < k_scheme.size() ||
        ngx_strncasecmp(const_cast<u_char*>(text), reinterpret_cast<u_char*>(const_cast<char*>(k_scheme.data())),
                        k_scheme.size()) != 0) {
        return std::nullopt;
    }
    field.remove_prefix(k_scheme.size());
    if (!field.empty() && field.front() != ' ') {
        return std::nullopt;
    }
    field.remove_prefix(std::min(field.find_first_not_of(' '), field.size()));
    return field;
}

// Nothing: the request has no token.
std::optional<std::string_view> token_of(ngx_http_request_t* r, const TokenSource& source, bool& failed) {
    if (source.token == nullptr) {
        const ngx_table_elt_t* field = r->headers_in.authorization;
        return field == nullptr ? std::nullopt : after_scheme(view(field->value));
    }
    ngx_str_t text;
    failed = ngx_http_complex_value(r, source.token, &text) != NGX_OK;
    if (failed || text.len == 0) {
        return std::nullopt;
    }
    const auto token = after_scheme(view(text));
    return token ? token : view(text);
}

} // namespace

IdentityRecord* find_identity(ngx_http_request_t* r) noexcept {
    for (ngx_pool_cleanup_t* cleanup = r->pool->cleanup; cleanup != nullptr; cleanup = cleanup->next) {
        if (cleanup->handler == destroy_record && static_cast<IdentityRecord*>(cleanup->data)->request == r) {
            return static_cast<IdentityRecord*>(cleanup->data);
        }
    }
    return nullptr;
}

IdentityRecord* make_identity(ngx_http_request_t* r) {
    if (IdentityRecord* known = find_identity(r); known != nullptr) {
        return known;
    }
    ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(r->pool, sizeof(IdentityRecord));
    if (cleanup == nullptr) {
        return nullptr;
    }
    auto* record = new (cleanup->data) IdentityRecord;
    record->request = r;
    cleanup->handler = destroy_record;
    return record;
}

const TokenAnswer* token_answer(ngx_http_request_t* r) {
    const TokenSource* source = loc_conf(r).account.token;
    Worker* worker = Worker::current();
    IdentityRecord* record = source == nullptr || worker == nullptr ? nullptr : make_identity(r);
    if (record == nullptr) {
        return nullptr;
    }
    if (record->token_source != source) {
        bool failed = false;
        const auto token = token_of(r, *source, failed);
        record->has_token = failed || token.has_value();
        record->token = token ? worker->identity().verifier(source->index).check(*token) : TokenAnswer{};
        record->token_source = source;
        if (record->has_token && record->token.verdict == TokenVerdict::bad) {
            ngx_log_error(NGX_LOG_INFO, r->connection->log, 0, "billing: the token is refused: %s",
                          record->token.why.c_str());
        }
    }
    return record->has_token ? &record->token : nullptr;
}

Reason expired_token(ngx_http_request_t* r, const AccountSource& source) {
    const IdentityRecord* record = source.token == nullptr ? nullptr : find_identity(r);
    if (record == nullptr || record->token_source != source.token || !record->has_token) {
        return Reason::allowed;
    }
    bool failed = false;
    const auto token = token_of(r, *source.token, failed);
    if (!token) {
        return Reason::invalid_token;
    }
    const TokenAnswer answer = Worker::current()->identity().verifier(source.token->index).check(*token);
    return answer.verdict == TokenVerdict::good  ? Reason::allowed
           : answer.verdict == TokenVerdict::bad ? Reason::invalid_token
                                                 : Reason::unavailable;
}

Reason credential_refusal(ngx_http_request_t* r, const AccountSource& source) noexcept {
    const IdentityRecord* record = find_identity(r);
    if (record == nullptr) {
        return Reason::allowed;
    }
    if (source.token != nullptr && record->token_source == source.token && record->has_token &&
        record->token.verdict != TokenVerdict::good) {
        return record->token.verdict == TokenVerdict::bad ? Reason::invalid_token : Reason::unavailable;
    }
    if (source.key != nullptr && record->key_source == source.key && record->has_key &&
        record->key.verdict != KeyVerdict::good) {
        return record->key.verdict == KeyVerdict::bad ? Reason::invalid_key : Reason::unavailable;
    }
    return Reason::allowed;
}

} // namespace billing
