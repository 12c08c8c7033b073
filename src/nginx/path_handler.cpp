#include "nginx/path_handler.hpp"

#include "gate/strict_path.hpp"
#include "nginx/conf.hpp"
#include "nginx/endpoint_handler.hpp"
#include "nginx/refusal.hpp"

namespace billing {

ngx_int_t path_handler(ngx_http_request_t* r) {
    const bool is_clients = r == r->main && r->internal == 0;
    if (!is_clients || !loc_conf(r).strict_path.value_or(false) || is_plain_path(view(r->unparsed_uri))) {
        return NGX_DECLINED;
    }
    if (const ngx_int_t discarded = ngx_http_discard_request_body(r); discarded != NGX_OK) {
        return discarded;
    }
    return guard(r->connection->log, ngx_int_t{NGX_HTTP_INTERNAL_SERVER_ERROR}, [r]() -> ngx_int_t {
        ngx_log_error(NGX_LOG_INFO, r->connection->log, 0, "billing: refused with 400 INVALID_PATH");
        if (has_error_page(r, NGX_HTTP_BAD_REQUEST)) {
            return NGX_HTTP_BAD_REQUEST;
        }
        const ngx_int_t sent = send_response(r, problem(400, "INVALID_PATH", "Invalid path",
                                                        "The path can be read in more than one way; write it plainly"));
        ngx_http_finalize_request(r, sent);
        return NGX_DONE;
    });
}

} // namespace billing
