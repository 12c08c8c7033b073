// HTTP for a worker: libcurl's multi handle on the loop, each request awaitable. Owner: the worker (or the command),
// one for each destination, made after fork(). It outlives the scopes whose coroutines use it; a waiting coroutine may
// be destroyed at any time: what is being sent then goes on to its end and the answer is dropped, so that no call which
// changes something is cut in the middle; what was not begun yet is not sent.
//
//   HttpResponse response = co_await client.send(std::move(request));
#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "async/scope.hpp"
#include "drivers/http_value.hpp"

namespace billing {

struct HttpConfig {
    std::string name = "the HTTP server"; // for the log: "Stripe"
    std::int64_t connect_ms = 3000;       // name, connection and TLS together
    std::int64_t timeout_ms = 10000;      // for requests which do not bring their own
    std::size_t max_body = std::size_t{1} << 20;
    std::size_t max_connections = 8; // requests under way at a time; the others wait in order
    std::size_t max_pending = 256;   // requests without an answer; abandoned ones count until answered
    bool plain_http = false;         // also http://, for tests: only if the configured address itself is http
    std::string ca_file;             // PEM; empty: those of the system
};

struct HttpCounters {
    std::uint64_t requests = 0;
    std::uint64_t refused = 0; // by max_pending; part of unreachable
    std::uint64_t unreachable = 0;
    std::uint64_t lost = 0;
    std::uint64_t too_large = 0;
    std::uint64_t late = 0; // answered after their waiter had gone
};

class HttpClient;
class HttpTransfer;

// One request under way; made by HttpClient::send(), lives in the waiting frame.
class HttpCall final : public Waiter {
public:
    HttpCall(HttpClient& client, HttpRequest request) : client_(client), request_(std::move(request)) {}
    ~HttpCall() override;

    bool await_ready() const noexcept { return false; }
    template <class Promise>
    bool await_suspend(std::coroutine_handle<Promise> frame) noexcept {
        suspend(frame);
        return submit();
    }
    HttpResponse await_resume() noexcept { return std::move(response_); }

private:
    friend class HttpClient;

    bool submit() noexcept; // false: answered already
    void answer(HttpResponse response) noexcept;

    HttpClient& client_;
    HttpRequest request_;
    std::int64_t deadline_ms_ = 0;
    bool suspended_ = false;
    bool queued_ = false;
    HttpTransfer* transfer_ = nullptr; // once begun
    HttpCall* prev_ = nullptr;         // in the queue
    HttpCall* next_ = nullptr;
    HttpResponse response_;
};

class HttpClient final : private Timer {
public:
    HttpClient(Reactor& reactor, HttpConfig config);
    ~HttpClient() override; // stop()

    // Cuts every transfer, abandoned ones too; who waits gets `lost` or `unreachable`, as does who comes later. Does
    // not block. Idempotent.
    void stop() noexcept;

    // co_await it at once. Redirects are answers like others; nothing is decompressed; proxies and credentials of the
    // environment are not looked at. Answered at once with `unreachable` when max_pending are waiting, or when the
    // request cannot be written (line ends in a header, a scheme which is not allowed).
    // A kept connection on which the server hung up before the first byte of an answer: the request is sent once more,
    // on a new one. So whatever changes something needs an idempotency key.
    [[nodiscard]] HttpCall send(HttpRequest request) { return HttpCall(*this, std::move(request)); }

    const HttpCounters& counters() const noexcept { return counters_; }
    // Requests without an answer, including abandoned ones; of these, the ones on a connection.
    std::size_t pending() const noexcept { return active_.size() + queued_; }
    std::size_t active() const noexcept { return active_.size(); }

private:
    friend class HttpCall;
    friend struct HttpHooks; // the C callbacks
    class Watch;

    // Deadlines. In the foreground: who waits for an answer is waited for.
    class Deadline final : public Timer {
    public:
        explicit Deadline(HttpClient& client) noexcept : client_(client) {}

    private:
        void on_timer() noexcept override { client_.expire(); }
        HttpClient& client_;
    };

    void on_timer() noexcept override; // libcurl's

    // Called from inside libcurl: they note, they do not call it.
    void watch(void* easy, int fd, int what) noexcept;
    void want_timer(long ms) noexcept;

    void drive(int fd, int events) noexcept;
    void collect() noexcept;
    void finish(HttpTransfer& transfer, int code) noexcept;
    HttpResponse detach(HttpTransfer& transfer, int code) noexcept;
    void deliver(HttpTransfer& transfer, HttpResponse response) noexcept;
    void note(const HttpResponse& response) noexcept;

    bool submit(HttpCall& call) noexcept;
    bool begin(HttpCall& call) noexcept;
    bool begin_queued() noexcept;
    void enqueue(HttpCall& call) noexcept;
    void unqueue(HttpCall& call) noexcept;
    void expire() noexcept;
    void expect(std::int64_t due_ms) noexcept;
    void settle_deadline() noexcept;
    static HttpResponse not_sent(const char* why);

    Reactor& reactor_;
    HttpConfig config_;
    HttpCounters counters_;
    Deadline deadline_;
    void* multi_ = nullptr;                                   // CURLM
    std::unordered_map<int, std::unique_ptr<Watch>> watches_; // by libcurl's descriptor
    std::vector<std::unique_ptr<HttpTransfer>> active_;
    HttpCall* queue_first_ = nullptr;
    HttpCall* queue_last_ = nullptr;
    std::size_t queued_ = 0;
    std::int64_t armed_for_ = 0; // due time of deadline_
    std::string trouble_;        // what the log was told last; empty: it is reachable
};

} // namespace billing
