// The Reactor on nginx's event loop. One for each worker, made in init_process and destroyed in exit_process after
// everything that uses it.
#pragma once

#include "nginx/ngx.hpp"

#include "async/reactor.hpp"

namespace billing {

class NginxReactor final : public Reactor {
public:
    explicit NginxReactor(ngx_log_t* log) noexcept;
    ~NginxReactor() override;

    Socket* attach(int fd, SocketHandler& handler) noexcept override;
    void want(Socket& socket, bool read, bool write) noexcept override;
    void release(Socket& socket) noexcept override;

    std::int64_t now_ms() const noexcept override;
    std::int64_t unix_ms() const noexcept override;
    bool leaving() const noexcept override;
    void log(LogLevel level, std::string_view text) noexcept override;

private:
    void start_timer(Timer& timer, std::int64_t ms) noexcept override;
    void stop_timer(Timer& timer) noexcept override;
    void wake() noexcept override;

    static void on_event(ngx_event_t* event) noexcept;
    static void on_timer_event(ngx_event_t* event) noexcept;
    static void on_posted(ngx_event_t* event) noexcept;

    ngx_log_t* log_;
    ngx_connection_t timer_connection_{}; // debug logs look for a descriptor behind each event's data
    ngx_event_t posted_{};
};

} // namespace billing
