// What nginx has made of a request, as far as deciding and paying depend on it: whose answer it is, what its client
// got. Called by gate_handler and refusal in the worker.
#pragma once

#include "nginx/ngx.hpp"

namespace billing {

// The request line says OPTIONS.
bool line_says_options(const ngx_http_request_t* r) noexcept;

// What the client sent, whatever nginx's redirects have made of it since.
inline bool sent_as_options(const ngx_http_request_t* r) noexcept {
    return r->method == NGX_HTTP_OPTIONS || (r->internal != 0 && line_says_options(r));
}

// A subrequest by which an access module wants to know whether to let its parent in (auth_request); of its answer the
// client gets nothing.
bool asks_for_access(const ngx_http_request_t* r) noexcept;

// Of a redirect or subrequest: it belongs to the answer to OPTIONS, although nginx itself makes a GET of it.
bool answers_options(const ngx_http_request_t* r) noexcept;

// An application has been reached.
bool reached_upstream(const ngx_http_request_t* r) noexcept;

// The answer was in a cache of nginx, and no application was asked for it.
inline bool came_from_cache([[maybe_unused]] const ngx_http_request_t* r) noexcept {
#if (NGX_HTTP_CACHE)
    return r->cached != 0 && r->upstream != nullptr && r->upstream->cache_status != NGX_HTTP_CACHE_REVALIDATED;
#else
    return false;
#endif
}

// How often a field of that name, in lower case, stands in a list of fields.
std::size_t count_fields(const ngx_list_t& fields, std::string_view lower_name) noexcept;

// A gRPC call that has ended with an error, whatever its HTTP status is.
bool failed_as_call(const ngx_http_request_t* r) noexcept;

} // namespace billing
