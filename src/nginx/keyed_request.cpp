#include "nginx/keyed_request.hpp"

#include "nginx/request_body.hpp"

#include <algorithm>
#include <memory>
#include <new>
#include <openssl/evp.h>
#include <string>

namespace billing {

namespace {

constexpr std::size_t k_longest_key = 255;

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

// SHA-256 of pieces.
class Digest {
public:
    Digest() : context_(EVP_MD_CTX_new()) {
        good_ = context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1;
    }

    void add(std::string_view text) {
        good_ = good_ && EVP_DigestUpdate(context_.get(), text.data(), text.size()) == 1;
    }
    // A text that ends where it ends.
    void add_part(std::string_view text) {
        add(std::to_string(text.size()) + ":");
        add(text);
    }
    bool take(IdempotencyClaim::Digest& digest) {
        return good_ && EVP_DigestFinal_ex(context_.get(), digest.data(), nullptr) == 1;
    }

private:
    struct Free {
        void operator()(EVP_MD_CTX* context) const noexcept { EVP_MD_CTX_free(context); }
    };
    std::unique_ptr<EVP_MD_CTX, Free> context_;
    bool good_ = false;
};

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
    void* memory = ngx_palloc(r->pool, sizeof(IdempotencyClaim));
    if (memory == nullptr) {
        return Reason::unavailable;
    }
    auto* claim = new (memory) IdempotencyClaim;
    Digest name;
    name.add_part(view(r->method_name));
    name.add_part(view(r->uri));
    name.add_part(key);
    const ngx_table_elt_t* type = r->headers_in.content_type;
    Digest request;
    request.add_part(view(r->args));
    request.add_part(type == nullptr ? std::string_view{} : view(type->value));
    request.add_part(costs_of(*conf.rules, ask));
    const bool read = walk_request_body(r, [&request](std::string_view piece) { request.add(piece); });
    if (!read || !name.take(claim->key) || !request.take(claim->request)) {
        return Reason::unavailable;
    }
    claim->window_s = conf.idempotency->window_s;
    ask.claim = claim;
    return Reason::allowed;
}

} // namespace billing
