// The event loop on poll(2): for the command and for tests. Owner: main(). Ignores SIGPIPE for the whole process, since
// libraries write to sockets whose peer may have gone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "async/reactor.hpp"
#include "async/scope.hpp"
#include "async/task.hpp"

namespace billing {

class PollReactor final : public Reactor {
public:
    using LogSink = std::function<void(LogLevel, std::string_view)>;

    // Without a sink, `notice` and above go to stderr.
    explicit PollReactor(LogSink sink = {});
    // Every socket must have been released, every timer disarmed.
    ~PollReactor() override;

    Socket* attach(int fd, SocketHandler& handler) noexcept override;
    void want(Socket& socket, bool read, bool write) noexcept override;
    void release(Socket& socket) noexcept override;
    std::int64_t now_ms() const noexcept override;
    std::int64_t unix_ms() const noexcept override;
    bool leaving() const noexcept override { return leaving_; }
    void log(LogLevel level, std::string_view text) noexcept override;

    // One turn: posted work, or wait at most `max_wait_ms` (below 0: without limit) for events and timers, then serve
    // them.
    void turn(std::int64_t max_wait_ms);
    // Turns until `done()`; false when `limit_ms` (below 0: none) passed before.
    bool run_until(const std::function<bool()>& done, std::int64_t limit_ms = -1);

    // From now on the process counts as leaving. For tests: whoever runs this loop decides himself when it ends.
    void leave() noexcept { leaving_ = true; }

    // Tells every attached handler that the process will not wait any longer.
    void shutdown() noexcept;

    std::size_t sockets() const noexcept;
    // Armed timers; of these, the ones a graceful shutdown would wait for.
    std::size_t timers() const noexcept;
    std::size_t foreground_timers() const noexcept;

private:
    struct PollSocket;
    struct TimerNode;

    void start_timer(Timer& timer, std::int64_t ms) noexcept override;
    void stop_timer(Timer& timer) noexcept override;
    void wake() noexcept override {} // turn() looks itself

    static TimerNode& node(Timer& timer) noexcept;
    void serve_sockets(std::int64_t wait_ms);
    void serve_timers() noexcept;
    std::int64_t next_wait(std::int64_t max_wait_ms) const noexcept;

    LogSink sink_;
    std::vector<std::unique_ptr<PollSocket>> sockets_;
    Timer* first_timer_ = nullptr; // by due time
    bool leaving_ = false;
};

// Runs one task to its end and gives its value, or rethrows. For the command and tests; not from inside a coroutine.
template <class T>
T run(PollReactor& reactor, Task<T> task) {
    struct Main final : Root<T> {
        using Root<T>::Root;
        void done() noexcept override {}
    };
    Scope scope(reactor);
    Main main(std::move(task));
    if (!scope.start(main))
        reactor.run_until([&main] { return main.finished(); });
    return main.take();
}

} // namespace billing
