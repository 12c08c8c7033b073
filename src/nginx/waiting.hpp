// A request that waits at the gate for Redis or PostgreSQL. Made in the request's memory and destroyed by its cleanup
// at the latest; a client that goes away ends the coroutine where it waits.
#pragma once

#include "nginx/ngx.hpp"

#include "async/scope.hpp"
#include "gate/gate.hpp"
#include "nginx/gate_handler.hpp"

namespace billing {

class Waiting final : public Root<Decision> {
public:
    Waiting(ngx_http_request_t* r, RequestRecord& record, Task<Decision> task) noexcept
        : Root<Decision>(std::move(task)), request_(r), record_(record) {}

    // The decision is in the record.
    bool over() const noexcept { return over_; }

    // Takes what the coroutine came to. An exception lets nobody through.
    void collect() noexcept;

private:
    void done() noexcept override;

    ngx_http_request_t* request_;
    RequestRecord& record_;
    ngx_msec_t begun_ = ngx_current_msec;
    bool over_ = false;
};

// Starts resolve(). NGX_OK: decided at once, the decision is in the record; NGX_AGAIN: the handler is called again;
// else an error.
// Takes into `charge`, which lives as long as the client's request.
ngx_int_t begin_waiting(ngx_http_request_t* r, RequestRecord& record, const Ask& ask, Charge& charge);

} // namespace billing
