#include "nginx/accompany.hpp"

#include "nginx/gate_handler.hpp"
#include "nginx/pass_headers.hpp"
#include "nginx/recheck.hpp"

namespace billing {

ngx_int_t accompany(ngx_http_request_t* r, const LocConf& conf) noexcept {
    return guard(r->connection->log, ngx_int_t{NGX_HTTP_INTERNAL_SERVER_ERROR}, [&]() -> ngx_int_t {
        const bool passed = pass_headers(r, conf.passes);
        const RequestRecord* record = conf.recheck_ms == 0 || r != r->main ? nullptr : find_record(r);
        const bool rechecked = record == nullptr || !record->passed() || begin_rechecks(r, conf);
        return passed && rechecked ? NGX_DECLINED : NGX_HTTP_INTERNAL_SERVER_ERROR;
    });
}

} // namespace billing
