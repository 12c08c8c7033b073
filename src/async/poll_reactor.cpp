// poll(2), a list of timers, two clocks. Called by the command's main thread and by tests.
#include "async/poll_reactor.hpp"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <limits>
#include <new>

namespace billing {

struct PollReactor::PollSocket : Socket {
    int fd = -1; // our duplicate; -1 once released
    SocketHandler* handler = nullptr;
    bool read = false;
    bool write = false;
};

// In Timer::storage.
struct PollReactor::TimerNode {
    std::int64_t due;
    Timer* prev;
    Timer* next;
};

PollReactor::PollReactor(LogSink sink) : sink_(std::move(sink)) { std::signal(SIGPIPE, SIG_IGN); }

PollReactor::~PollReactor() {
    for (auto& socket : sockets_)
        if (socket->fd >= 0)
            ::close(socket->fd);
}

Socket* PollReactor::attach(int fd, SocketHandler& handler) noexcept {
    const int own = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own < 0) {
        log(LogLevel::error, "billing: no descriptor left to watch a connection");
        return nullptr;
    }
    try {
        auto socket = std::make_unique<PollSocket>();
        socket->fd = own;
        socket->handler = &handler;
        sockets_.push_back(std::move(socket));
        return sockets_.back().get();
    } catch (const std::bad_alloc&) {
        ::close(own);
        return nullptr;
    }
}

void PollReactor::want(Socket& socket, bool read, bool write) noexcept {
    auto& entry = static_cast<PollSocket&>(socket);
    entry.read = read;
    entry.write = write;
}

void PollReactor::release(Socket& socket) noexcept {
    auto& entry = static_cast<PollSocket&>(socket);
    ::close(entry.fd);
    entry.fd = -1; // swept before the next poll(): an event of this turn must find it
    entry.handler = nullptr;
}

std::int64_t PollReactor::now_ms() const noexcept {
    using namespace std::chrono;
    return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
}

std::int64_t PollReactor::unix_ms() const noexcept {
    using namespace std::chrono;
    return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

void PollReactor::log(LogLevel level, std::string_view text) noexcept {
    try {
        if (sink_)
            sink_(level, text);
        else if (level >= LogLevel::notice)
            std::fprintf(stderr, "%.*s\n", static_cast<int>(text.size()), text.data());
    } catch (...) {
        // A log which cannot be written is no reason to stop.
    }
}

PollReactor::TimerNode& PollReactor::node(Timer& timer) noexcept {
    static_assert(sizeof(TimerNode) <= Timer::k_storage_bytes);
    return *reinterpret_cast<TimerNode*>(timer.storage);
}

void PollReactor::start_timer(Timer& timer, std::int64_t ms) noexcept {
    stop_timer(timer);
    const std::int64_t due = now_ms() + ms;
    Timer* prev = nullptr;
    Timer* next = first_timer_;
    while (next && node(*next).due <= due) {
        prev = next;
        next = node(*next).next;
    }
    node(timer) = TimerNode{due, prev, next};
    (prev ? node(*prev).next : first_timer_) = &timer;
    if (next)
        node(*next).prev = &timer;
}

// Also for a timer which is in no list: it has no neighbours and is not the first.
void PollReactor::stop_timer(Timer& timer) noexcept {
    TimerNode& own = node(timer);
    if (own.prev)
        node(*own.prev).next = own.next;
    else if (first_timer_ == &timer)
        first_timer_ = own.next;
    if (own.next)
        node(*own.next).prev = own.prev;
    own = TimerNode{0, nullptr, nullptr};
}

std::int64_t PollReactor::next_wait(std::int64_t max_wait_ms) const noexcept {
    if (any_posted())
        return 0;
    if (!first_timer_)
        return max_wait_ms;
    const std::int64_t due = std::max<std::int64_t>(0, node(*first_timer_).due - now_ms());
    return max_wait_ms < 0 ? due : std::min(due, max_wait_ms);
}

void PollReactor::turn(std::int64_t max_wait_ms) {
    serve_sockets(next_wait(max_wait_ms));
    serve_timers();
    run_posted();
}

void PollReactor::serve_sockets(std::int64_t wait_ms) {
    std::erase_if(sockets_, [](const auto& socket) { return socket->fd < 0; });
    std::vector<pollfd> fds;
    fds.reserve(sockets_.size());
    for (const auto& socket : sockets_) {
        const int events = (socket->read ? POLLIN : 0) | (socket->write ? POLLOUT : 0);
        // Nothing wanted: not even hang-ups, which poll() would report for ever.
        fds.push_back(pollfd{events ? socket->fd : -1, static_cast<short>(events), 0});
    }
    const auto wait = std::min<std::int64_t>(wait_ms, std::numeric_limits<int>::max());
    if (::poll(fds.data(), static_cast<nfds_t>(fds.size()), static_cast<int>(wait)) <= 0)
        return;
    // Handlers may attach (at the end of sockets_, not served now) and release (fd becomes -1).
    for (std::size_t i = 0; i < fds.size(); ++i) {
        PollSocket& socket = *sockets_[i];
        const bool broken = (fds[i].revents & (POLLERR | POLLHUP | POLLNVAL)) != 0;
        const bool readable = socket.read && (broken || (fds[i].revents & POLLIN) != 0);
        const bool writable = socket.write && (broken || (fds[i].revents & POLLOUT) != 0);
        if (socket.fd >= 0 && (readable || writable))
            socket.handler->on_ready(readable, writable);
    }
}

void PollReactor::serve_timers() noexcept {
    // Those due now; one which is armed again for 0 ms waits for the next turn.
    const std::int64_t now = now_ms();
    for (std::size_t limit = timers(); limit > 0 && first_timer_ && node(*first_timer_).due <= now; --limit) {
        Timer& timer = *first_timer_;
        stop_timer(timer);
        fire(timer);
    }
}

bool PollReactor::run_until(const std::function<bool()>& done, std::int64_t limit_ms) {
    const std::int64_t end = now_ms() + limit_ms;
    while (!done()) {
        if (limit_ms < 0) {
            turn(-1);
            continue;
        }
        const std::int64_t left = end - now_ms();
        if (left <= 0)
            return false;
        turn(std::min<std::int64_t>(left, 50)); // the fact may also come from outside the loop
    }
    return true;
}

void PollReactor::shutdown() noexcept {
    for (std::size_t i = 0; i < sockets_.size(); ++i) {
        PollSocket& socket = *sockets_[i];
        if (socket.fd >= 0)
            socket.handler->on_shutdown();
    }
}

std::size_t PollReactor::sockets() const noexcept {
    std::size_t count = 0;
    for (const auto& socket : sockets_)
        if (socket->fd >= 0)
            ++count;
    return count;
}

std::size_t PollReactor::timers() const noexcept {
    std::size_t count = 0;
    for (Timer* timer = first_timer_; timer; timer = node(*timer).next)
        ++count;
    return count;
}

std::size_t PollReactor::foreground_timers() const noexcept {
    std::size_t count = 0;
    for (Timer* timer = first_timer_; timer; timer = node(*timer).next)
        if (!timer->background)
            ++count;
    return count;
}

} // namespace billing
