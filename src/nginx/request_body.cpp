#include "nginx/request_body.hpp"

#include <algorithm>
#include <array>

namespace billing {

namespace {

bool append_file(std::string& bytes, const ngx_buf_t& buffer) {
    const auto size = static_cast<std::size_t>(buffer.file_last - buffer.file_pos);
    const std::size_t before = bytes.size();
    bytes.resize(before + size);
    const ssize_t got =
        ngx_read_file(buffer.file, reinterpret_cast<u_char*>(bytes.data()) + before, size, buffer.file_pos);
    return got == static_cast<ssize_t>(size);
}

bool walk_file(const ngx_buf_t& buffer, const std::function<void(std::string_view)>& piece) {
    std::array<char, std::size_t{64} * 1024> bytes;
    for (off_t at = buffer.file_pos; at < buffer.file_last;) {
        const auto size = std::min<std::size_t>(bytes.size(), static_cast<std::size_t>(buffer.file_last - at));
        const ssize_t got = ngx_read_file(buffer.file, reinterpret_cast<u_char*>(bytes.data()), size, at);
        if (got <= 0) {
            return false;
        }
        piece({bytes.data(), static_cast<std::size_t>(got)});
        at += got;
    }
    return true;
}

} // namespace

bool walk_request_body(ngx_http_request_t* r, const std::function<void(std::string_view)>& piece) {
    ngx_chain_t* first = r->request_body == nullptr ? nullptr : r->request_body->bufs;
    for (ngx_chain_t* link = first; link != nullptr; link = link->next) {
        const ngx_buf_t& buffer = *link->buf;
        if (ngx_buf_in_memory(link->buf)) {
            piece({reinterpret_cast<const char*>(buffer.pos), static_cast<std::size_t>(buffer.last - buffer.pos)});
        } else if (buffer.in_file && !walk_file(buffer, piece)) {
            return false;
        }
    }
    return true;
}

RequestBody read_request_body(ngx_http_request_t* r, std::size_t most) {
    RequestBody body;
    if (r->request_body == nullptr) {
        return body;
    }
    for (ngx_chain_t* link = r->request_body->bufs; link != nullptr; link = link->next) {
        const ngx_buf_t& buffer = *link->buf;
        if (body.bytes.size() + static_cast<std::size_t>(ngx_buf_size(link->buf)) > most) {
            body.too_large = true;
            return body;
        }
        if (ngx_buf_in_memory(link->buf)) {
            body.bytes.append(reinterpret_cast<const char*>(buffer.pos),
                              static_cast<std::size_t>(buffer.last - buffer.pos));
        } else if (buffer.in_file && !append_file(body.bytes, buffer)) {
            body.failed = true;
            return body;
        }
    }
    return body;
}

} // namespace billing
