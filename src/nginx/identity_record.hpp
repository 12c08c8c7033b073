// What a request's credentials came to. Made when something first asks for them (a variable, the API keys' handler),
// kept with the request across internal redirects, looked at again where another location believes others.
#pragma once

#include "nginx/ngx.hpp"

#include "gate/decision.hpp"
#include "nginx/conf.hpp"

namespace billing {

class KeyWaiting;

struct IdentityRecord {
    ngx_http_request_t* request = nullptr;
    const TokenSource* token_source = nullptr; // that the answer below is of; null = not looked at
    bool has_token = false;
    TokenAnswer token;
    const ApiKeySource* key_source = nullptr;
    bool has_key = false;
    KeyAnswer key;
    KeyWaiting* waiting = nullptr; // while PostgreSQL is asked for the key
};

// Null when nothing has asked yet.
IdentityRecord* find_identity(ngx_http_request_t* r) noexcept;
// The same, made where there is none; null when memory is out.
IdentityRecord* make_identity(ngx_http_request_t* r);

// The token's answer for this level; null without a token, without `billing_jwt`, or when nginx could not tell.
const TokenAnswer* token_answer(ngx_http_request_t* r);

// Whether the token that the request was let in with still is good, for what runs longer than the token does.
Reason expired_token(ngx_http_request_t* r, const AccountSource& source);

// A credential that was looked at and is not good refuses, whatever else names an account.
Reason credential_refusal(ngx_http_request_t* r, const AccountSource& source) noexcept;
[[gnu::always_inline]] inline Reason identity_refusal(ngx_http_request_t* r, const AccountSource& source) noexcept {
    return source.token == nullptr && source.key == nullptr ? Reason::allowed : credential_refusal(r, source);
}

} // namespace billing
