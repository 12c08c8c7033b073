// The one place that includes nginx. Include it first: nginx's headers decide feature macros.
#pragma once

extern "C" {
#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_http.h>
}

#include <new>
#include <string>
#include <string_view>
#include <utility>

extern "C" {
extern ngx_module_t ngx_http_billing_module;
}

namespace billing {

inline std::string_view view(const ngx_str_t& text) noexcept {
    return {reinterpret_cast<const char*>(text.data), text.len};
}

// Refers to the bytes of `text`, which must outlive it.
inline ngx_str_t as_ngx(std::string_view text) noexcept {
    return {text.size(), reinterpret_cast<u_char*>(const_cast<char*>(text.data()))};
}

// A copy in the pool; data is null when memory is out.
inline ngx_str_t pool_copy(ngx_pool_t* pool, std::string_view text) noexcept {
    auto* data = static_cast<u_char*>(ngx_pnalloc(pool, text.size() + 1));
    if (data == nullptr) {
        return {0, nullptr};
    }
    ngx_memcpy(data, text.data(), text.size());
    data[text.size()] = '\0';
    return {text.size(), data};
}

// A C++ object in a pool, destroyed with it. Null when memory is out.
template <class T, class... Args>
T* pool_new(ngx_pool_t* pool, Args&&... args) {
    ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(pool, sizeof(T));
    if (cleanup == nullptr) {
        return nullptr;
    }
    auto* object = new (cleanup->data) T(std::forward<Args>(args)...);
    cleanup->handler = [](void* data) { static_cast<T*>(data)->~T(); };
    return object;
}

// The edge to C: whatever is thrown inside ends here, in the log, and becomes `fallback`.
template <class Body, class Value>
Value guard(ngx_log_t* log, Value fallback, Body body) noexcept {
    try {
        return body();
    } catch (const std::exception& problem) {
        ngx_log_error(NGX_LOG_CRIT, log, 0, "billing: unexpected: %s", problem.what());
    } catch (...) {
        ngx_log_error(NGX_LOG_CRIT, log, 0, "billing: unexpected exception");
    }
    return fallback;
}

} // namespace billing
