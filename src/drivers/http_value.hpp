// What goes to an HTTP server and what comes back. Values; no connection is needed. Used by HttpClient, by those who
// speak through it and by the tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace billing {

// A few headers, in order. Names are compared without case.
class HttpHeaders {
public:
    struct Header {
        std::string name;
        std::string value;
    };

    void add(std::string_view name, std::string_view value) { all_.push_back({std::string(name), std::string(value)}); }
    // The first one of that name, or "".
    std::string_view find(std::string_view name) const noexcept;
    bool has(std::string_view name) const noexcept { return position(name) != all_.size(); }
    std::size_t size() const noexcept { return all_.size(); }
    const std::vector<Header>& all() const noexcept { return all_; }
    void clear() noexcept { all_.clear(); }

private:
    std::size_t position(std::string_view name) const noexcept;

    std::vector<Header> all_;
};

struct HttpRequest {
    std::string method = "GET"; // GET, HEAD, POST, PUT, PATCH or DELETE
    std::string url;            // whole, with its query
    HttpHeaders headers;
    std::string body; // of POST, PUT and PATCH
    std::int64_t timeout_ms =
        0; // from send() to the end of the answer, waiting for a connection included; 0: the client's
    std::size_t max_body = 0; // largest answer, bytes; 0: the client's
};

enum class HttpOutcome {
    ok,          // a whole answer, whatever its status says
    unreachable, // nothing was sent
    lost,        // sent, at least in part, and no whole answer: it may or may not have been carried out
    too_large,   // answered, with more than was asked for; status and headers are there
};

struct HttpResponse {
    HttpOutcome outcome = HttpOutcome::unreachable;
    int status = 0; // 0: none came
    HttpHeaders headers;
    std::string body;
    std::string reason; // unless ok: why, fit for a log (no URL, no header, no body)

    bool ok() const noexcept { return outcome == HttpOutcome::ok; }
    explicit operator bool() const noexcept { return ok(); }
};

} // namespace billing
