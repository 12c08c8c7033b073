#include "nginx/request_header.hpp"

#include "nginx/methods.hpp"

namespace billing {

std::string_view header_of(const ngx_http_request_t* r, std::string_view lower_name) noexcept {
    for (const ngx_list_part_t* part = &r->headers_in.headers.part; part != nullptr; part = part->next) {
        const auto* headers = static_cast<const ngx_table_elt_t*>(part->elts);
        for (ngx_uint_t index = 0; index < part->nelts; ++index) {
            const ngx_table_elt_t& header = headers[index];
            if (header.key.len == lower_name.size() &&
                ngx_memcmp(header.lowcase_key, lower_name.data(), lower_name.size()) == 0) {
                return view(header.value);
            }
        }
    }
    return {};
}

ngx_uint_t asked_method(const ngx_http_request_t* r) noexcept {
    for (const std::string_view name : {"x-original-method", "x-forwarded-method"}) {
        if (const auto method = header_of(r, name); !method.empty()) {
            return method_bit(method).value_or(NGX_HTTP_UNKNOWN);
        }
    }
    return r->method;
}

} // namespace billing
