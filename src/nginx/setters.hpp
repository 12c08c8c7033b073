// What the directives' setters share.
#pragma once

#include "nginx/ngx.hpp"

#include <optional>
#include <string>

namespace billing {

// The directive's word; 0 is its name.
inline std::string_view word(const ngx_conf_t* cf, ngx_uint_t index) noexcept {
    return view(static_cast<const ngx_str_t*>(cf->args->elts)[index]);
}

// Without the keyword and its "=", or nothing.
inline std::optional<std::string_view> after(std::string_view text, std::string_view prefix) noexcept {
    if (!text.starts_with(prefix)) {
        return std::nullopt;
    }
    return text.substr(prefix.size());
}

// Says file, line, directive and what to write instead.
inline char* fail(ngx_conf_t* cf, const std::string& what) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\": %s", static_cast<ngx_str_t*>(cf->args->elts), what.c_str());
    return static_cast<char*>(NGX_CONF_ERROR);
}

inline char* duplicate() noexcept { return const_cast<char*>("is duplicate"); }

// One of two words: true for `yes`.
inline char* choose(ngx_conf_t* cf, std::optional<bool>& choice, std::string_view yes, std::string_view no) {
    if (choice) {
        return duplicate();
    }
    const auto text = word(cf, 1);
    if (text != yes && text != no) {
        return fail(cf, "invalid value \"" + std::string{text} + "\"; write " + std::string{yes} + " or " +
                            std::string{no});
    }
    choice = text == yes;
    return NGX_CONF_OK;
}

// The location is answered by this handler, and by no other directive's that stands before it; one behind it is found
// when levels are merged.
inline char* claim_content(ngx_conf_t* cf, ngx_http_handler_pt handler) {
    auto* core = static_cast<ngx_http_core_loc_conf_t*>(ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
    if (core->handler != nullptr) {
        return fail(cf, "this location answers for something else already");
    }
    core->handler = handler;
    return NGX_CONF_OK;
}

// A text with variables, to be evaluated for each request. Null: nginx has said why.
inline ngx_http_complex_value_t* compile(ngx_conf_t* cf, std::string_view text) {
    auto* value = static_cast<ngx_http_complex_value_t*>(ngx_pcalloc(cf->pool, sizeof(ngx_http_complex_value_t)));
    ngx_str_t source = pool_copy(cf->pool, text);
    if (value == nullptr || source.data == nullptr) {
        return nullptr;
    }
    ngx_http_compile_complex_value_t compiler{};
    compiler.cf = cf;
    compiler.value = &source;
    compiler.complex_value = value;
    return ngx_http_compile_complex_value(&compiler) == NGX_OK ? value : nullptr;
}

// Runs `body` on the level's own configuration.
template <class Conf, class Body>
char* setter(ngx_conf_t* cf, void* conf, Body body) {
    return guard(cf->log, static_cast<char*>(NGX_CONF_ERROR),
                 [&]() -> char* { return body(*static_cast<Conf*>(conf)); });
}

} // namespace billing
