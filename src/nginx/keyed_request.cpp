#include "nginx/keyed_request.hpp"

#include "nginx/request_body.hpp"

#include <algorithm>
#include <new>
#include <openssl/sha.h>
#include <string>

namespace billing {

namespace {

constexpr std::size_t k_longest_key = 255;
constexpr std::size_t k_longest_body = std::size_t{1} << 20; // longer ones are known by their length alone

// False: nginx cannot tell.
bool read_key(ngx_http_request_t* r, const LocConf& conf, std::string_view& key) noexcept {
    ngx_str_t text;
    if (ngx_http_complex_value(r, conf.idempotency->key, &text) != NGX_OK) {
        return false;
    }
    key = view(text);
    return true;
}

bool valid_key(std::string_view key) noexcept {
    return key.size() <= k_longest_key &&
           std::all_of(key.begin(), key.end(), [](char c) { return c > ' ' && c < 127; });
}

// What it costs, where that is no constant: the same work for another price is another request.
std::string costs_of(const LocationRules& rules, const Ask& ask) {
    std::string text;
    for (std::size_t index = 0; index < rules.variable_costs.size(); ++index) {
        text += rules.variable_costs[index] == nullptr ? "-\n" : std::to_string(ask.costs[index]) + "\n";
    }
    for (std::size_t index = 0; index < rules.variable_credits.size(); ++index) {
        text += rules.variable_credits[index] == nullptr ? "-\n" : std::to_string(ask.credits[index]) + "\n";
    }
    return text;
}

IdempotencyClaim::Digest digest_of(const std::string& text) noexcept {
    IdempotencyClaim::Digest digest{};
    SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
    return digest;
}

void resume(ngx_http_request_t* r) {
    r->write_event_handler = ngx_http_core_run_phases;
    ngx_http_core_run_phases(r);
}

} // namespace

ngx_int_t read_keyed_body(ngx_http_request_t* r, const LocConf& conf) {
    const bool reads = conf.gated && r->method != NGX_HTTP_OPTIONS && r == r->main && r->request_body == nullptr &&
                       r->post_action == 0 && r->background == 0;
    std::string_view key;
    if (!reads || !read_key(r, conf, key) || key.empty()) {
        return NGX_DECLINED;
    }
    const ngx_int_t begun = ngx_http_read_client_request_body(r, resume);
    if (begun >= NGX_HTTP_SPECIAL_RESPONSE) {
        return begun;
    }
    ngx_http_finalize_request(r, NGX_DONE);
    return NGX_DONE;
}

Reason read_claim(ngx_http_request_t* r, const LocConf& conf, Ask& ask) {
    std::string_view key;
    if (r != r->main) {
        return Reason::allowed;
    }
    if (!read_key(r, conf, key)) {
        return Reason::unavailable;
    }
    if (key.empty()) {
        return Reason::allowed;
    }
    if (!valid_key(key)) {
        return Reason::invalid_idempotency_key;
    }
    const RequestBody body = read_request_body(r, k_longest_body);
    void* memory = ngx_palloc(r->pool, sizeof(IdempotencyClaim));
    if (body.failed || memory == nullptr) {
        return Reason::unavailable;
    }
    auto* claim = new (memory) IdempotencyClaim;
    const ngx_table_elt_t* type = r->headers_in.content_type;
    const off_t length = r->headers_in.content_length_n;
    claim->key =
        digest_of(std::string{view(r->method_name)}.append("\n").append(view(r->uri)).append("\n").append(key));
    claim->request = digest_of(std::string{view(r->args)}
                                   .append("\n")
                                   .append(type == nullptr ? std::string_view{} : view(type->value))
                                   .append("\n" + costs_of(*conf.rules, ask) + std::to_string(length) + "\n")
                                   .append(body.too_large ? std::string_view{} : body.bytes));
    claim->window_s = conf.idempotency->window_s;
    ask.claim = claim;
    return Reason::allowed;
}

} // namespace billing
