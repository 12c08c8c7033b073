// HTTP methods by their names.
#pragma once

#include "nginx/ngx.hpp"

#include <array>
#include <optional>

namespace billing {

// nginx's bit for a method; nothing for one that it does not know.
inline std::optional<ngx_uint_t> method_bit(std::string_view name) noexcept {
    struct Method {
        std::string_view name;
        ngx_uint_t bit;
    };
    constexpr std::array<Method, 14> k_methods = {{
        {"GET", NGX_HTTP_GET},
        {"HEAD", NGX_HTTP_HEAD},
        {"POST", NGX_HTTP_POST},
        {"PUT", NGX_HTTP_PUT},
        {"DELETE", NGX_HTTP_DELETE},
        {"PATCH", NGX_HTTP_PATCH},
        {"OPTIONS", NGX_HTTP_OPTIONS},
        {"TRACE", NGX_HTTP_TRACE},
        {"PROPFIND", NGX_HTTP_PROPFIND},
        {"PROPPATCH", NGX_HTTP_PROPPATCH},
        {"MKCOL", NGX_HTTP_MKCOL},
        {"COPY", NGX_HTTP_COPY},
        {"MOVE", NGX_HTTP_MOVE},
        {"LOCK", NGX_HTTP_LOCK},
    }};
    for (const Method& method : k_methods) {
        if (method.name == name) {
            return method.bit;
        }
    }
    return std::nullopt;
}

} // namespace billing
