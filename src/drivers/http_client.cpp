// libcurl's multi handle on the loop; the queue before it. Called by the loop, by coroutines (send) and by libcurl.
#include "drivers/http_client.hpp"

#include <curl/curl.h>
#include <openssl/err.h>
#include <sys/stat.h>

#include <algorithm>

#include "drivers/http_transfer.hpp"

namespace billing {

namespace {

// libcurl ends a transfer in time by itself, except when something happens to it within the last millisecond: then it
// takes its own timer for run out, and waits for ever (7.88). So much later we end it.
constexpr std::int64_t k_grace_ms = 100;

} // namespace

// One of libcurl's sockets on the loop.
class HttpClient::Watch final : public SocketHandler {
public:
    Watch(HttpClient& client, int fd) noexcept : client_(client), fd_(fd), inode_(inode(fd)) {
        socket_ = client.reactor_.attach(fd, *this);
    }
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;
    ~Watch() {
        if (socket_)
            client_.reactor_.release(*socket_);
    }

    bool attached() const noexcept { return socket_ != nullptr; }
    // libcurl closes a descriptor before it says so, sometimes, and may get the same number again.
    bool stale() const noexcept { return inode(fd_) != inode_; }
    void want(bool read, bool write) noexcept { client_.reactor_.want(*socket_, read, write); }

private:
    static ino_t inode(int fd) noexcept {
        struct stat status {};
        return ::fstat(fd, &status) == 0 ? status.st_ino : 0;
    }
    // This may be destroyed by libcurl's callbacks before drive() returns.
    void on_ready(bool readable, bool writable) noexcept override {
        client_.drive(fd_, (readable ? CURL_CSELECT_IN : 0) | (writable ? CURL_CSELECT_OUT : 0));
    }
    void on_shutdown() noexcept override { client_.stop(); }

    HttpClient& client_;
    int fd_;
    ino_t inode_;
    Socket* socket_ = nullptr;
};

// What libcurl calls.
struct HttpHooks {
    static int socket(CURL* easy, curl_socket_t fd, int what, void* self, void*) noexcept {
        static_cast<HttpClient*>(self)->watch(easy, fd, what);
        return 0; // anything else would kill the multi handle for good
    }
    static int timer(CURLM*, long ms, void* self) noexcept {
        static_cast<HttpClient*>(self)->want_timer(ms);
        return 0;
    }
};

HttpCall::~HttpCall() {
    if (queued_)
        client_.unqueue(*this);
    else if (transfer_)
        transfer_->call = nullptr; // the answer will be dropped
}

bool HttpCall::submit() noexcept {
    const bool waits = client_.submit(*this);
    suspended_ = true;
    return waits;
}

void HttpCall::answer(HttpResponse response) noexcept {
    transfer_ = nullptr;
    response_ = std::move(response);
    if (response_.outcome == HttpOutcome::unreachable)
        ++client_.counters_.unreachable;
    else if (response_.outcome == HttpOutcome::lost)
        ++client_.counters_.lost;
    else if (response_.outcome == HttpOutcome::too_large)
        ++client_.counters_.too_large;
    if (suspended_)
        client_.reactor_.post(*this);
}

HttpClient::HttpClient(Reactor& reactor, HttpConfig config)
    : Timer(true), reactor_(reactor), config_(std::move(config)), deadline_(*this) {
    static const CURLcode global = curl_global_init(CURL_GLOBAL_DEFAULT);
    config_.max_connections = std::max<std::size_t>(config_.max_connections, 1);
    config_.max_pending = std::max<std::size_t>(config_.max_pending, 1);
    multi_ = global == CURLE_OK ? curl_multi_init() : nullptr;
    if (!multi_) {
        reactor_.log(LogLevel::error, "billing: libcurl cannot be set up; " + config_.name + " will not be reached");
        return;
    }
    curl_multi_setopt(multi_, CURLMOPT_SOCKETFUNCTION, &HttpHooks::socket);
    curl_multi_setopt(multi_, CURLMOPT_SOCKETDATA, this);
    curl_multi_setopt(multi_, CURLMOPT_TIMERFUNCTION, &HttpHooks::timer);
    curl_multi_setopt(multi_, CURLMOPT_TIMERDATA, this);
    curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS, static_cast<long>(config_.max_connections)); // kept ones included
}

HttpClient::~HttpClient() { stop(); }

void HttpClient::stop() noexcept {
    if (!multi_)
        return;
    while (queue_first_) {
        HttpCall& call = *queue_first_;
        unqueue(call);
        call.answer(not_sent("the connections are being closed"));
    }
    while (!active_.empty()) {
        active_.back()->give_up("the connections are being closed");
        deliver(*active_.back(), detach(*active_.back(), CURLE_ABORTED_BY_CALLBACK));
    }
    curl_multi_cleanup(multi_); // closes the kept connections; calls watch() and want_timer()
    multi_ = nullptr;
    watches_.clear();
    reactor_.disarm(*this);
    reactor_.disarm(deadline_);
    ERR_clear_error();
}

// Sockets and timer
// ---------------------------------------------------------------------------------------------------------------

void HttpClient::watch(void* easy, int fd, int what) noexcept {
    const auto known = watches_.find(fd);
    if (known != watches_.end() && (what == CURL_POLL_REMOVE || known->second->stale()))
        watches_.erase(known);
    if (what == CURL_POLL_REMOVE)
        return;
    try {
        auto& entry = watches_[fd];
        if (!entry)
            entry = std::make_unique<Watch>(*this, fd);
        if (entry->attached()) {
            entry->want((what & CURL_POLL_IN) != 0, (what & CURL_POLL_OUT) != 0);
            return;
        }
    } catch (...) {
        // Treated below, as if the loop had no room.
    }
    watches_.erase(fd);
    HttpTransfer* transfer = nullptr;
    if (easy && curl_easy_getinfo(easy, CURLINFO_PRIVATE, &transfer) == CURLE_OK && transfer)
        transfer->give_up("the loop has no room for a connection"); // collect() ends it
}

void HttpClient::want_timer(long ms) noexcept {
    if (ms < 0)
        reactor_.disarm(*this);
    else
        reactor_.arm(*this, ms);
}

void HttpClient::on_timer() noexcept { drive(CURL_SOCKET_TIMEOUT, 0); }

// What has been begun goes on at once, so that it has a socket, by which a shutdown reaches it.
void HttpClient::drive(int fd, int events) noexcept {
    if (!multi_)
        return;
    int running = 0;
    curl_multi_socket_action(multi_, fd, events, &running);
    collect();
    while (begin_queued()) {
        curl_multi_socket_action(multi_, CURL_SOCKET_TIMEOUT, 0, &running);
        collect();
    }
    settle_deadline();
    ERR_clear_error(); // nginx shares the queue of OpenSSL's errors, and would take ours for its own
}

// Outside libcurl again: act on what it and its callbacks have noted.
void HttpClient::collect() noexcept {
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi_, &left)) {
        HttpTransfer* transfer = nullptr;
        if (message->msg == CURLMSG_DONE &&
            curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer) == CURLE_OK && transfer)
            finish(*transfer, message->data.result);
    }
    for (std::size_t i = active_.size(); i-- > 0;)
        if (active_[i]->given_up())
            finish(*active_[i], CURLE_COULDNT_CONNECT);
}

HttpResponse HttpClient::detach(HttpTransfer& transfer, int code) noexcept {
    HttpResponse response = transfer.response(static_cast<CURLcode>(code));
    curl_multi_remove_handle(multi_, transfer.easy());
    return response;
}

void HttpClient::deliver(HttpTransfer& transfer, HttpResponse response) noexcept {
    if (transfer.call)
        transfer.call->answer(std::move(response));
    else
        ++counters_.late;
    std::erase_if(active_, [&](const auto& held) { return held.get() == &transfer; });
}

void HttpClient::finish(HttpTransfer& transfer, int code) noexcept {
    HttpResponse response = detach(transfer, code);
    note(response);
    deliver(transfer, std::move(response));
}

// Tells the operator once when it is lost and once when it is back, not for each request.
void HttpClient::note(const HttpResponse& response) noexcept {
    if (response.outcome == HttpOutcome::ok || response.outcome == HttpOutcome::too_large) {
        if (!trouble_.empty())
            reactor_.log(LogLevel::notice, "billing: " + config_.name + " answers again");
        trouble_.clear();
        return;
    }
    const bool sent = response.outcome == HttpOutcome::lost;
    std::string trouble = (sent ? "no whole answer from " : "cannot reach ") + config_.name + ": " + response.reason;
    if (trouble_ == trouble)
        return;
    trouble_ = std::move(trouble);
    reactor_.log(LogLevel::error, "billing: " + trouble_);
}

// Requests
// ------------------------------------------------------------------------------------------------------------------------

HttpResponse HttpClient::not_sent(const char* why) {
    HttpResponse response;
    response.reason = why;
    return response;
}

// True: it waits. False: it has been answered.
bool HttpClient::submit(HttpCall& call) noexcept {
    ++counters_.requests;
    const std::int64_t timeout = call.request_.timeout_ms > 0 ? call.request_.timeout_ms : config_.timeout_ms;
    call.deadline_ms_ = reactor_.now_ms() + timeout;
    if (!multi_) {
        call.answer(not_sent("the connections have been closed"));
        return false;
    }
    if (pending() >= config_.max_pending) {
        ++counters_.refused;
        call.answer(not_sent("too many requests are waiting"));
        return false;
    }
    if (active_.size() >= config_.max_connections) {
        enqueue(call);
        return true;
    }
    if (begin(call))
        drive(CURL_SOCKET_TIMEOUT, 0);
    return call.transfer_ != nullptr;
}

bool HttpClient::begin(HttpCall& call) noexcept {
    const std::int64_t left = call.deadline_ms_ - reactor_.now_ms();
    active_.push_back(std::make_unique<HttpTransfer>(call, std::move(call.request_), call.deadline_ms_));
    HttpTransfer& transfer = *active_.back();
    if (left > 0 && transfer.prepare(config_, left) && curl_multi_add_handle(multi_, transfer.easy()) == CURLM_OK) {
        call.transfer_ = &transfer;
        expect(transfer.deadline_ms + k_grace_ms);
        return true;
    }
    const char* const problem = transfer.problem() ? transfer.problem() : "the request could not be begun in time";
    call.answer(not_sent(problem));
    active_.pop_back();
    return false;
}

// True if one has been begun.
bool HttpClient::begin_queued() noexcept {
    bool any = false;
    while (queue_first_ && active_.size() < config_.max_connections) {
        HttpCall& call = *queue_first_;
        unqueue(call);
        any = begin(call) || any;
    }
    return any;
}

void HttpClient::enqueue(HttpCall& call) noexcept {
    call.queued_ = true;
    call.prev_ = queue_last_;
    (queue_last_ ? queue_last_->next_ : queue_first_) = &call;
    queue_last_ = &call;
    ++queued_;
    expect(call.deadline_ms_);
}

void HttpClient::unqueue(HttpCall& call) noexcept {
    (call.prev_ ? call.prev_->next_ : queue_first_) = call.next_;
    (call.next_ ? call.next_->prev_ : queue_last_) = call.prev_;
    call.prev_ = call.next_ = nullptr;
    call.queued_ = false;
    --queued_;
}

void HttpClient::expect(std::int64_t due_ms) noexcept {
    if (deadline_.armed() && armed_for_ <= due_ms)
        return;
    armed_for_ = due_ms;
    reactor_.arm(deadline_, due_ms - reactor_.now_ms());
}

void HttpClient::settle_deadline() noexcept {
    if (pending() == 0)
        reactor_.disarm(deadline_);
}

void HttpClient::expire() noexcept {
    const std::int64_t now = reactor_.now_ms();
    for (HttpCall* call = queue_first_; call;) {
        HttpCall* const next = call->next_;
        if (call->deadline_ms_ <= now) {
            unqueue(*call);
            call->answer(not_sent("no connection was free in time"));
        } else {
            expect(call->deadline_ms_);
        }
        call = next;
    }
    for (const auto& transfer : active_) {
        if (transfer->deadline_ms + k_grace_ms <= now)
            transfer->give_up("no answer in time");
        else
            expect(transfer->deadline_ms + k_grace_ms);
    }
    drive(CURL_SOCKET_TIMEOUT, 0);
}

} // namespace billing
