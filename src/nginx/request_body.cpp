#include "nginx/request_body.hpp"

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

} // namespace

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
