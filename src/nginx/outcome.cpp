#include "nginx/outcome.hpp"

namespace billing {

namespace {

// Calls f with the value of each field of that name.
template <class F>
void each_field(const ngx_list_t& fields, std::string_view lower_name, F&& f) {
    for (const ngx_list_part_t* part = &fields.part; part != nullptr; part = part->next) {
        const auto* fields_of_part = static_cast<const ngx_table_elt_t*>(part->elts);
        for (ngx_uint_t index = 0; index < part->nelts; ++index) {
            const ngx_table_elt_t& field = fields_of_part[index];
            if (field.hash != 0 && field.key.len == lower_name.size() &&
                ngx_strncasecmp(field.key.data, as_ngx(lower_name).data, lower_name.size()) == 0) {
                f(field.value);
            }
        }
    }
}

// The first; null: there is none.
const ngx_str_t* find_field(const ngx_list_t& fields, std::string_view lower_name) noexcept {
    const ngx_str_t* found = nullptr;
    each_field(fields, lower_name, [&](const ngx_str_t& value) { found = found == nullptr ? &value : found; });
    return found;
}

} // namespace

bool line_says_options(const ngx_http_request_t* r) noexcept { return view(r->request_line).starts_with("OPTIONS "); }

bool asks_for_access(const ngx_http_request_t* r) noexcept {
    if (r->parent == nullptr) {
        return false;
    }
    const auto* core = static_cast<ngx_http_core_main_conf_t*>(ngx_http_get_module_main_conf(r, ngx_http_core_module));
    return core->phase_engine.handlers[r->parent->phase_handler].checker == ngx_http_core_access_phase;
}

bool answers_options(const ngx_http_request_t* r) noexcept {
    return r == r->main ? r->err_status >= NGX_HTTP_BAD_REQUEST && sent_as_options(r)
                        : sent_as_options(r->main) && asks_for_access(r);
}

bool reached_upstream(const ngx_http_request_t* r) noexcept {
    if (r->upstream_states == nullptr) {
        return false;
    }
    const auto* states = static_cast<const ngx_http_upstream_state_t*>(r->upstream_states->elts);
    for (ngx_uint_t index = 0; index < r->upstream_states->nelts; ++index) { // one without a peer separates redirects
        if (states[index].peer != nullptr && states[index].connect_time != static_cast<ngx_msec_t>(-1)) {
            return true;
        }
    }
    return false;
}

std::size_t count_fields(const ngx_list_t& fields, std::string_view lower_name) noexcept {
    std::size_t count = 0;
    each_field(fields, lower_name, [&](const ngx_str_t&) { ++count; });
    return count;
}

bool failed_as_call(const ngx_http_request_t* r) noexcept {
    if (!view(r->headers_out.content_type).starts_with("application/grpc")) {
        return false;
    }
    const ngx_str_t* status = find_field(r->headers_out.trailers, "grpc-status");
    if (status == nullptr) { // an answer that is a header alone
        status = find_field(r->headers_out.headers, "grpc-status");
    }
    return status != nullptr && view(*status) != "0";
}

} // namespace billing
