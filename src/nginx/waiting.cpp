#include "nginx/waiting.hpp"

#include "nginx/worker.hpp"

namespace billing {

static_assert(alignof(Waiting) <= NGX_ALIGNMENT);

void Waiting::collect() noexcept {
    over_ = true;
    record_.waited_ms += static_cast<std::uint32_t>(ngx_current_msec - begun_);
    Decision failed;
    failed.reason = Reason::unavailable;
    record_.decision = guard(request_->connection->log, failed, [this] { return take(); });
}

void Waiting::done() noexcept {
    collect();
    ngx_http_request_t* r = request_;
    ngx_connection_t* connection = r->connection; // the request may be gone below
    r->read_event_handler = ngx_http_block_reading;
    r->write_event_handler = ngx_http_core_run_phases;
    ngx_http_core_run_phases(r);
    ngx_http_run_posted_requests(connection);
}

ngx_int_t begin_waiting(ngx_http_request_t* r, RequestRecord& record, const Ask& ask, Charge& charge) {
    Worker& worker = *Worker::current();
    ngx_http_cleanup_t* cleanup = ngx_http_cleanup_add(r, sizeof(Waiting));
    if (cleanup == nullptr) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    auto* waiting = new (cleanup->data) Waiting{r, record, worker.gate().resolve(ask, charge)};
    cleanup->handler = [](void* data) { static_cast<Waiting*>(data)->~Waiting(); };
    if (worker.requests().start(*waiting)) {
        waiting->collect();
        return NGX_OK;
    }
    record.waiting = waiting;
    if (r == r->main) {
        r->read_event_handler = ngx_http_test_reading; // notices a client that goes away
    }
    r->write_event_handler = ngx_http_request_empty_handler;
    return NGX_AGAIN;
}

} // namespace billing
