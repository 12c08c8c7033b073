// A request's body as one text, wherever nginx has put it: in buffers, in a temporary file, or both.
#pragma once

#include "nginx/ngx.hpp"

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace billing {

struct RequestBody {
    std::string bytes;
    bool too_large = false; // longer than asked for; `bytes` are the beginning
    bool failed = false;    // the temporary file cannot be read; it is logged
};

// After ngx_http_read_client_request_body() has called back.
RequestBody read_request_body(ngx_http_request_t* r, std::size_t most);

// The body piece by piece, in its order, whatever its size; what is in a file is read on the spot. False: the temporary
// file cannot be read; it is logged.
bool walk_request_body(ngx_http_request_t* r, const std::function<void(std::string_view)>& piece);

} // namespace billing
