// One request under way: an easy handle of libcurl and what its callbacks gather. Owner: HttpClient, on the heap, for
// as long as the transfer lasts: longer than its waiter if that one goes away.
#pragma once

#include <curl/curl.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "drivers/http_value.hpp"

namespace billing {

class HttpCall;
struct HttpConfig;

class HttpTransfer {
public:
    // The call's request is moved in. Nothing is sent yet.
    HttpTransfer(HttpCall& waiter, HttpRequest request, std::int64_t due_ms) noexcept
        : call(&waiter), deadline_ms(due_ms), request_(std::move(request)) {}
    HttpTransfer(const HttpTransfer&) = delete;
    HttpTransfer& operator=(const HttpTransfer&) = delete;
    ~HttpTransfer();

    // Makes the handle. False: the request cannot be made, nothing may be sent; problem() says why.
    bool prepare(const HttpConfig& config, std::int64_t timeout_ms) noexcept;
    CURL* easy() const noexcept { return easy_; }
    const char* problem() const noexcept { return problem_; }

    // End it from outside at the next occasion, for this reason.
    void give_up(const char* why) noexcept { problem_ = why; }
    bool given_up() const noexcept { return problem_ != nullptr; }

    // The answer, moved out, once it is over.
    HttpResponse response(CURLcode code);

    HttpCall* call;                 // who waits; nullptr: nobody any more
    const std::int64_t deadline_ms; // of the loop's clock

private:
    static std::size_t on_header(char* data, std::size_t size, std::size_t count, void* self) noexcept;
    static std::size_t on_body(char* data, std::size_t size, std::size_t count, void* self) noexcept;
    static int on_socket(void* self, curl_socket_t fd, curlsocktype purpose) noexcept;

    bool fill_headers() noexcept;
    bool set_method() noexcept;
    bool set_trust(const std::string& ca_file) noexcept;
    void header(std::string_view line);
    bool sent() const noexcept;
    std::string reason(CURLcode code) const;
    template <class Value>
    bool set(CURLoption option, Value value) noexcept {
        return curl_easy_setopt(easy_, option, value) == CURLE_OK;
    }

    HttpRequest request_;
    CURL* easy_ = nullptr;
    curl_slist* list_ = nullptr;
    const char* problem_ = nullptr;
    std::size_t max_body_ = 0;
    std::size_t header_bytes_ = 0;
    bool headers_done_ = false; // what comes later are trailers
    bool too_large_ = false;
    HttpResponse response_;
};

} // namespace billing
