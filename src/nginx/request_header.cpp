#include "nginx/request_header.hpp"

#include "nginx/methods.hpp"

namespace billing {

namespace {

bool has_name(const ngx_table_elt_t& header, std::string_view lower_name) noexcept {
    return header.key.len == lower_name.size() &&
           ngx_memcmp(header.lowcase_key, lower_name.data(), lower_name.size()) == 0;
}

} // namespace

std::string_view header_of(const ngx_http_request_t* r, std::string_view lower_name) noexcept {
    for (const ngx_list_part_t* part = &r->headers_in.headers.part; part != nullptr; part = part->next) {
        const auto* headers = static_cast<const ngx_table_elt_t*>(part->elts);
        for (ngx_uint_t index = 0; index < part->nelts; ++index) {
            const ngx_table_elt_t& header = headers[index];
            if (has_name(header, lower_name)) {
                return view(header.value);
            }
        }
    }
    return {};
}

bool is_read_asked_about(const ngx_http_request_t* r, ngx_uint_t reads) noexcept {
    if ((r->main->method & reads) == 0) { // nginx makes a GET of what auth_request asks
        return false;
    }
    for (const ngx_list_part_t* part = &r->headers_in.headers.part; part != nullptr; part = part->next) {
        const auto* headers = static_cast<const ngx_table_elt_t*>(part->elts);
        for (ngx_uint_t index = 0; index < part->nelts; ++index) {
            const ngx_table_elt_t& header = headers[index];
            const bool names = has_name(header, "x-original-method") || has_name(header, "x-forwarded-method");
            if (names && (method_bit(view(header.value)).value_or(NGX_HTTP_UNKNOWN) & reads) == 0) {
                return false;
            }
        }
    }
    return true;
}

ngx_uint_t methods_asked_about(const ngx_http_request_t* r) noexcept {
    ngx_uint_t methods = r == r->main ? 0 : r->main->method; // of auth_request: the client's own
    for (const std::string_view name : {"x-original-method", "x-forwarded-method"}) {
        const std::string_view method = header_of(r, name);
        methods |= method.empty() ? 0 : method_bit(method).value_or(NGX_HTTP_UNKNOWN);
    }
    return methods == 0 ? r->method : methods;
}

} // namespace billing
