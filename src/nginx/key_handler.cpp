#include "nginx/key_handler.hpp"

#include "nginx/identity_record.hpp"
#include "nginx/worker.hpp"

namespace billing {

// A request that waits for PostgreSQL to say whose its key is. Made in the request's memory, gone with it; a client
// that leaves ends the coroutine where it waits.
class KeyWaiting final : public Root<KeyAnswer> {
public:
    KeyWaiting(ngx_http_request_t* r, IdentityRecord& record, Task<KeyAnswer> task) noexcept
        : Root<KeyAnswer>(std::move(task)), request_(r), record_(record) {}

    void collect() noexcept {
        record_.waiting = nullptr;
        try {
            record_.key = take();
        } catch (...) {
            record_.key = KeyAnswer{}; // nobody can tell
        }
    }

private:
    void done() noexcept override {
        collect();
        ngx_http_request_t* r = request_;
        ngx_connection_t* connection = r->connection; // the request may be gone below
        r->read_event_handler = ngx_http_block_reading;
        r->write_event_handler = ngx_http_core_run_phases;
        ngx_http_core_run_phases(r);
        ngx_http_run_posted_requests(connection);
    }

    ngx_http_request_t* request_;
    IdentityRecord& record_;
};

namespace {

static_assert(alignof(KeyWaiting) <= NGX_ALIGNMENT);

// NGX_DECLINED: told at once; NGX_AGAIN: the handler is called again; else an error.
ngx_int_t begin_waiting(ngx_http_request_t* r, IdentityRecord& record, std::string_view key) {
    Worker& worker = *Worker::current();
    ngx_http_cleanup_t* cleanup = ngx_http_cleanup_add(r, sizeof(KeyWaiting));
    if (cleanup == nullptr) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    const std::uint64_t stale_ms = loc_conf(r).error_policy.stale_ms;
    auto* waiting =
        new (cleanup->data) KeyWaiting{r, record, worker.identity().keys().resolve(std::string{key}, stale_ms)};
    cleanup->handler = [](void* data) { static_cast<KeyWaiting*>(data)->~KeyWaiting(); };
    if (worker.requests().start(*waiting)) {
        waiting->collect();
        return NGX_DECLINED;
    }
    record.waiting = waiting;
    if (r == r->main) {
        r->read_event_handler = ngx_http_test_reading; // notices a client that goes away
    }
    r->write_event_handler = ngx_http_request_empty_handler;
    return NGX_AGAIN;
}

ngx_int_t look_up(ngx_http_request_t* r, const ApiKeySource& source) {
    IdentityRecord* record = make_identity(r);
    if (record == nullptr) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    if (record->waiting != nullptr) {
        return NGX_AGAIN;
    }
    if (record->key_source == &source) {
        return NGX_DECLINED;
    }
    ngx_str_t key;
    if (ngx_http_complex_value(r, source.key, &key) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    record->key_source = &source;
    record->has_key = key.len > 0;
    record->key = KeyAnswer{};
    if (!record->has_key) {
        return NGX_DECLINED;
    }
    if (auto known = Worker::current()->identity().keys().look(view(key))) {
        record->key = std::move(*known);
        return NGX_DECLINED;
    }
    return begin_waiting(r, *record, view(key));
}

} // namespace

ngx_int_t key_handler(ngx_http_request_t* r) {
    const LocConf& conf = loc_conf(r);
    const bool asks = conf.gated || conf.endpoint.kind != EndpointKind::none;
    if (conf.account.key == nullptr || !asks || r->method == NGX_HTTP_OPTIONS || r->background) {
        return NGX_DECLINED;
    }
    return guard(r->connection->log, ngx_int_t{NGX_HTTP_INTERNAL_SERVER_ERROR},
                 [&] { return look_up(r, *conf.account.key); });
}

} // namespace billing
