#include "nginx/check_handler.hpp"

#include "nginx/answer.hpp"
#include "nginx/variables.hpp"

namespace billing {

namespace {

struct Field {
    std::string_view name;
    std::string_view variable;
};
constexpr std::array<Field, 6> k_fields = {{
    {"X-Billing-Account", "billing_account"},
    {"X-Billing-Plan", "billing_plan"},
    {"X-Billing-Status", "billing_status"},
    {"X-Billing-Decision", "billing_decision"},
    {"X-Billing-Remaining", "billing_remaining"},
    {"X-Billing-Warning", "billing_warning"},
}};

} // namespace

ngx_int_t check_handler(ngx_http_request_t* r) {
    return guard(r->connection->log, ngx_int_t{NGX_HTTP_INTERNAL_SERVER_ERROR}, [r]() -> ngx_int_t {
        if (const ngx_int_t discarded = ngx_http_discard_request_body(r); discarded != NGX_OK) {
            return discarded;
        }
        const RequestRecord* record = find_record(r);
        for (const Field& field : k_fields) {
            const std::string value = record == nullptr ? "" : read_variable(*record, field.variable);
            if (!value.empty() && !add_header(r, field.name, value)) {
                return NGX_HTTP_INTERNAL_SERVER_ERROR;
            }
        }
        if (!add_header(r, "Cache-Control", "no-store")) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
        return send_answer(r, NGX_HTTP_OK, "text/plain", "");
    });
}

} // namespace billing
