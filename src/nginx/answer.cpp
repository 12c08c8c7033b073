#include "nginx/answer.hpp"

#include <algorithm>

namespace billing {

bool add_header(ngx_http_request_t* r, std::string_view name, std::string_view value) noexcept {
    const bool clean =
        std::none_of(value.begin(), value.end(), [](char c) { return static_cast<unsigned char>(c) < ' '; });
    const ngx_str_t copy = clean ? pool_copy(r->pool, value) : ngx_str_t{};
    return copy.data != nullptr && push_header(r, name, view(copy)) != nullptr;
}

ngx_table_elt_t* push_header(ngx_http_request_t* r, std::string_view name, std::string_view value) noexcept {
    auto* header = static_cast<ngx_table_elt_t*>(ngx_list_push(&r->headers_out.headers));
    if (header == nullptr) {
        return nullptr;
    }
    header->hash = 1;
    header->key = as_ngx(name);
    header->value = as_ngx(value);
    header->lowcase_key = nullptr;
#if (nginx_version >= 1023000)
    header->next = nullptr;
#endif
    return header;
}

void remove_header(ngx_http_request_t* r, std::string_view name) noexcept {
    for (ngx_list_part_t* part = &r->headers_out.headers.part; part != nullptr; part = part->next) {
        auto* headers = static_cast<ngx_table_elt_t*>(part->elts);
        for (ngx_uint_t index = 0; index < part->nelts; ++index) {
            if (view(headers[index].key) == name) {
                headers[index].hash = 0; // nginx sends no field without a hash
            }
        }
    }
}

ngx_int_t send_answer(ngx_http_request_t* r, int status, std::string_view type, std::string_view body) noexcept {
    ngx_str_t content_type = as_ngx(type);
    ngx_http_complex_value_t value{};
    value.value = pool_copy(r->pool, body);
    if (value.value.data == nullptr) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    return ngx_http_send_response(r, static_cast<ngx_uint_t>(status), &content_type, &value);
}

} // namespace billing
