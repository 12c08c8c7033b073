#include "nginx/identity_directives.hpp"

#include "nginx/conf.hpp"
#include "nginx/setters.hpp"
#include "nginx/settings.hpp"

#include <array>

namespace billing {

namespace {

constexpr const char* k_help = "write alg=HS256 secret=file:PATH, or alg=RS256 jwks=PATH, or alg=ES256 "
                               "jwks=https://...";

// "NAME=VALUE" of a directive.
struct Parameter {
    std::string_view name;
    std::string_view value;
};

Parameter parameter_of(std::string_view text) noexcept {
    const auto equals = text.find('=');
    if (equals == text.npos) {
        return {text, {}};
    }
    return {text.substr(0, equals), text.substr(equals + 1)};
}

// What the words say, before it is looked at together.
struct JwtWords {
    std::optional<TokenAlg> alg;
    std::optional<std::string> secret;
    std::string jwks;
    std::string ca;
};

char* read_alg(ngx_conf_t* cf, std::string_view text, JwtWords& words) {
    for (const auto alg : {TokenAlg::hs256, TokenAlg::rs256, TokenAlg::es256}) {
        if (text == to_text(alg)) {
            words.alg = alg;
            return NGX_CONF_OK;
        }
    }
    return fail(cf,
                "invalid alg \"" + std::string{text} + "\"; write HS256, RS256 or ES256, as your tokens are signed");
}

char* read_leeway(ngx_conf_t* cf, std::string_view text, TokenPolicy& policy) {
    ngx_str_t time = as_ngx(text);
    const ngx_int_t seconds = ngx_parse_time(&time, 1);
    if (seconds == NGX_ERROR || text.empty() || seconds > 3600) {
        return fail(cf, "invalid leeway \"" + std::string{text} + "\"; write a time up to 1h, as leeway=60s");
    }
    policy.leeway_seconds = seconds;
    return NGX_CONF_OK;
}

ngx_http_complex_value_t* compile_variable(ngx_conf_t* cf, std::string_view text) {
    auto* value = static_cast<ngx_http_complex_value_t*>(ngx_pcalloc(cf->pool, sizeof(ngx_http_complex_value_t)));
    ngx_str_t source = pool_copy(cf->pool, text);
    ngx_http_compile_complex_value_t compiler{};
    compiler.cf = cf;
    compiler.value = &source;
    compiler.complex_value = value;
    const bool done = value != nullptr && source.data != nullptr && ngx_http_compile_complex_value(&compiler) == NGX_OK;
    return done ? value : nullptr;
}

char* read_word(ngx_conf_t* cf, std::string_view text, JwtWords& words, TokenSource& source) {
    const auto [name, value] = parameter_of(text);
    if (name == "alg") {
        return read_alg(cf, value, words);
    }
    if (name == "leeway") {
        return read_leeway(cf, value, source.config.policy);
    }
    if (value.empty()) { // what stands here may be a part of a secret
        return fail(cf, std::string{"a parameter has no value, or a value has blanks and no quotes; "} + k_help);
    }
    if (name == "secret") {
        auto secret = read_secret(cf, value);
        if (!secret) {
            return fail(cf, secret.error());
        }
        words.secret = std::move(secret).value();
    } else if (name == "jwks") {
        words.jwks = value;
    } else if (name == "ca") {
        words.ca = value;
    } else if (name == "issuer") {
        source.config.policy.issuer = value;
    } else if (name == "audience") {
        source.config.policy.audience = value;
    } else if (name == "token") {
        if (value.find('$') == value.npos) {
            return fail(cf, "token= names where the token is; write a variable, as token=$cookie_session");
        }
        source.token = compile_variable(cf, value);
        return source.token != nullptr ? NGX_CONF_OK : static_cast<char*>(NGX_CONF_ERROR);
    } else {
        return fail(cf, "unknown parameter; known: alg, secret, jwks, ca, issuer, audience, leeway, token");
    }
    return NGX_CONF_OK;
}

char* take_secret(ngx_conf_t* cf, const JwtWords& words, KeySourceConfig& keys) {
    if (!words.secret || !words.jwks.empty()) {
        return fail(cf, "alg=HS256 is verified with a secret; write secret=file:PATH and no jwks=");
    }
    if (words.secret->starts_with("-----BEGIN")) {
        return fail(cf, "secret= is a key of another kind; write alg=RS256 or alg=ES256 and jwks= for public keys");
    }
    if (words.secret->size() < k_min_secret_bytes) {
        return fail(cf, "secret= is shorter than " + std::to_string(k_min_secret_bytes) +
                            " bytes and could be guessed; make one with: openssl rand -hex 32");
    }
    keys.secret = *words.secret;
    return NGX_CONF_OK;
}

// http is for a key server on this very host.
bool is_fetched_safely(std::string_view url) noexcept {
    constexpr std::array<std::string_view, 3> k_here = {"http://127.0.0.1", "http://[::1]", "http://localhost"};
    for (const auto here : k_here) {
        const auto rest = url.starts_with(here) ? url.substr(here.size()) : std::string_view{"x"};
        if (rest.empty() || rest.front() == ':' || rest.front() == '/') {
            return url.find('@') == url.npos;
        }
    }
    return url.starts_with("https://") && url.size() > 8 && url[8] != '/' && url.find('@') == url.npos;
}

char* take_url(ngx_conf_t* cf, const JwtWords& words, TokenSource& source) {
    KeySourceConfig& keys = source.config.keys;
    if (!is_fetched_safely(words.jwks) || words.jwks.find_first_of(" \"\\#") != words.jwks.npos) {
        return fail(cf, "keys are fetched over https only, from an address without a user; correct jwks=");
    }
    keys.url = words.jwks;
    if (!words.ca.empty()) {
        ngx_str_t path = pool_copy(cf->pool, words.ca);
        if (path.data == nullptr || ngx_conf_full_name(cf->cycle, &path, 1) != NGX_OK) {
            return static_cast<char*>(NGX_CONF_ERROR);
        }
        keys.ca_file = view(path);
        if (const auto read = read_key_file(keys.ca_file); !read) {
            return fail(cf, keys.ca_file + " " + read.error());
        }
    }
    source.zone = add_jwks_zone(cf, keys.url);
    return source.zone != nullptr ? NGX_CONF_OK : static_cast<char*>(NGX_CONF_ERROR);
}

char* take_file(ngx_conf_t* cf, const JwtWords& words, KeySourceConfig& keys) {
    std::string_view name = words.jwks;
    name.remove_prefix(name.starts_with("file:") ? 5 : 0);
    ngx_str_t path = pool_copy(cf->pool, name);
    if (path.data == nullptr || ngx_conf_full_name(cf->cycle, &path, 1) != NGX_OK) {
        return static_cast<char*>(NGX_CONF_ERROR);
    }
    keys.file = view(path);
    auto text = read_key_file(keys.file);
    if (!text) {
        return fail(cf, keys.file + " " + text.error());
    }
    if (const auto set = read_jwks(text.value(), keys.alg); !set) {
        return fail(cf, keys.file + " " + set.error());
    }
    keys.text = std::move(text).value();
    return NGX_CONF_OK;
}

char* take_keys(ngx_conf_t* cf, const JwtWords& words, TokenSource& source) {
    if (!words.alg) {
        return fail(cf, std::string{"the configuration says how tokens are signed, never the token; "} + k_help);
    }
    KeySourceConfig& keys = source.config.keys;
    source.config.policy.alg = *words.alg;
    keys.alg = *words.alg;
    const bool is_url = words.jwks.find("://") != words.jwks.npos;
    if (!words.ca.empty() && !words.jwks.starts_with("https://")) {
        return fail(cf, "ca= says whom to believe at an https address; remove it, or write jwks=https://...");
    }
    if (*words.alg == TokenAlg::hs256) {
        return take_secret(cf, words, keys);
    }
    if (words.secret || words.jwks.empty()) {
        return fail(cf, "alg=" + std::string{to_text(*words.alg)} +
                            " is verified with public keys; write jwks=PATH or jwks=https://... and no secret=");
    }
    return is_url ? take_url(cf, words, source) : take_file(cf, words, keys);
}

bool is_off(const ngx_conf_t* cf) noexcept { return cf->args->nelts == 2 && word(cf, 1) == "off"; }

} // namespace

char* set_jwt(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (loc.identity.token) {
            return duplicate();
        }
        if (is_off(cf)) {
            loc.identity.token = nullptr;
            return NGX_CONF_OK;
        }
        auto source = std::make_unique<TokenSource>();
        JwtWords words;
        for (ngx_uint_t index = 1; index < cf->args->nelts; ++index) {
            if (char* problem = read_word(cf, word(cf, index), words, *source); problem != NGX_CONF_OK) {
                return problem;
            }
        }
        if (char* problem = take_keys(cf, words, *source); problem != NGX_CONF_OK) {
            return problem;
        }
        auto& sources = main_conf(cf).token_sources;
        source->index = sources.size();
        loc.identity.token = source.get();
        sources.push_back(std::move(source));
        return NGX_CONF_OK;
    });
}

char* set_api_key(ngx_conf_t* cf, ngx_command_t*, void* conf) {
    return setter<LocConf>(cf, conf, [cf](LocConf& loc) -> char* {
        if (loc.identity.key) {
            return duplicate();
        }
        if (is_off(cf)) {
            loc.identity.key = nullptr;
            return NGX_CONF_OK;
        }
        if (word(cf, 1).find('$') == std::string_view::npos) {
            return fail(cf, "names where a request's key is; write a variable, as $http_x_api_key");
        }
        auto source = std::make_unique<ApiKeySource>();
        source->key = compile_variable(cf, word(cf, 1));
        if (source->key == nullptr) {
            return static_cast<char*>(NGX_CONF_ERROR);
        }
        loc.identity.key = source.get();
        main_conf(cf).key_sources.push_back(std::move(source));
        return NGX_CONF_OK;
    });
}

} // namespace billing
