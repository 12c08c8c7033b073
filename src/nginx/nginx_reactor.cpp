#include "nginx/nginx_reactor.hpp"

#include <fcntl.h>
#include <unistd.h>

namespace billing {

namespace {

// A registration. nginx owns the connection slot, we own the duplicate descriptor.
class NginxSocket final : public Socket {
public:
    NginxSocket(ngx_connection_t* taken, SocketHandler& driver) noexcept : connection(taken), handler(driver) {}

    ngx_connection_t* connection;
    SocketHandler& handler;
};

// The event of a timer is followed by its owner: nginx hands us the event, we need both.
struct TimerEvent {
    ngx_event_t event; // data points to the reactor's dummy connection
    Timer* timer;
};
static_assert(sizeof(TimerEvent) <= Timer::k_storage_bytes);

TimerEvent& timer_event(Timer& timer) noexcept { return *reinterpret_cast<TimerEvent*>(timer.storage); }

void set_interest(ngx_event_t* event, ngx_int_t kind, bool wanted) noexcept {
    // Level-triggered: none of the libraries promises to drain its socket.
    if (wanted && !event->active) {
        ngx_add_event(event, kind, NGX_LEVEL_EVENT);
    } else if (!wanted && event->active) {
        ngx_del_event(event, kind, 0);
    }
}

ngx_uint_t severity(LogLevel level) noexcept {
    switch (level) {
    case LogLevel::debug:
        return NGX_LOG_DEBUG;
    case LogLevel::info:
        return NGX_LOG_INFO;
    case LogLevel::notice:
        return NGX_LOG_NOTICE;
    case LogLevel::warn:
        return NGX_LOG_WARN;
    case LogLevel::error:
        break;
    }
    return NGX_LOG_ERR;
}

} // namespace

NginxReactor::NginxReactor(ngx_log_t* log) noexcept : log_(log) {
    timer_connection_.fd = static_cast<ngx_socket_t>(-1);
    timer_connection_.log = log;
    timer_connection_.data = this;
    posted_.data = &timer_connection_;
    posted_.log = log;
    posted_.handler = on_posted;
}

NginxReactor::~NginxReactor() {
    if (posted_.posted) {
        ngx_delete_posted_event(&posted_);
    }
}

Socket* NginxReactor::attach(int fd, SocketHandler& handler) noexcept {
    const int duplicate = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (duplicate == -1) {
        ngx_log_error(NGX_LOG_ERR, log_, ngx_errno,
                      "billing: no descriptor left for a connection; raise worker_rlimit_nofile");
        return nullptr;
    }
    ngx_connection_t* connection = ngx_get_connection(duplicate, log_);
    auto* socket = connection == nullptr ? nullptr : new (std::nothrow) NginxSocket(connection, handler);
    if (socket == nullptr) {
        if (connection != nullptr) {
            ngx_free_connection(connection);
            connection->fd = static_cast<ngx_socket_t>(-1);
        } else {
            ngx_log_error(NGX_LOG_ERR, log_, 0, "billing: no connection left; raise worker_connections");
        }
        close(duplicate);
        return nullptr;
    }
    connection->number = ngx_atomic_fetch_add(ngx_connection_counter, 1);
    connection->data = socket;
    connection->log = log_;
    connection->read->log = log_;
    connection->write->log = log_;
    connection->read->handler = on_event;
    connection->write->handler = on_event;
    return socket;
}

void NginxReactor::want(Socket& socket, bool read, bool write) noexcept {
    ngx_connection_t* connection = static_cast<NginxSocket&>(socket).connection;
    set_interest(connection->read, NGX_READ_EVENT, read);
    set_interest(connection->write, NGX_WRITE_EVENT, write);
}

void NginxReactor::release(Socket& socket) noexcept {
    auto& ours = static_cast<NginxSocket&>(socket);
    ngx_connection_t* connection = ours.connection;
    if (connection->read->active || connection->write->active) {
        ngx_del_conn(connection, 0);
    }
    if (connection->read->posted) {
        ngx_delete_posted_event(connection->read);
    }
    if (connection->write->posted) {
        ngx_delete_posted_event(connection->write);
    }
    connection->read->closed = 1;
    connection->write->closed = 1;
    const ngx_socket_t duplicate = connection->fd;
    ngx_free_connection(connection);
    connection->fd = static_cast<ngx_socket_t>(-1); // a stale event of this turn is then dropped by nginx
    close(duplicate);
    delete &ours;
}

std::int64_t NginxReactor::now_ms() const noexcept { return static_cast<std::int64_t>(ngx_current_msec); }

std::int64_t NginxReactor::unix_ms() const noexcept {
    const ngx_time_t* now = ngx_timeofday();
    return std::int64_t{now->sec} * 1000 + static_cast<std::int64_t>(now->msec);
}

bool NginxReactor::leaving() const noexcept { return ngx_exiting || ngx_terminate || ngx_quit; }

void NginxReactor::log(LogLevel level, std::string_view text) noexcept {
    ngx_str_t line = as_ngx(text);
    ngx_log_error(severity(level), log_, 0, "%V", &line);
}

void NginxReactor::start_timer(Timer& timer, std::int64_t ms) noexcept {
    auto& slot = timer_event(timer);
    if (slot.event.timer_set) {
        ngx_del_timer(&slot.event); // nginx keeps the old deadline when the new one is near it
    }
    slot.event.data = &timer_connection_;
    slot.event.log = log_;
    slot.event.handler = on_timer_event;
    slot.event.cancelable = timer.background;
    slot.timer = &timer;
    ngx_add_timer(&slot.event, static_cast<ngx_msec_t>(ms < 0 ? 0 : ms));
}

void NginxReactor::stop_timer(Timer& timer) noexcept {
    auto& slot = timer_event(timer);
    if (slot.event.timer_set) {
        ngx_del_timer(&slot.event);
    }
}

void NginxReactor::wake() noexcept { ngx_post_event(&posted_, &ngx_posted_events); }

void NginxReactor::on_event(ngx_event_t* event) noexcept {
    auto* connection = static_cast<ngx_connection_t*>(event->data);
    auto* socket = static_cast<NginxSocket*>(connection->data);
    if (connection->close || connection->error) { // worker_shutdown_timeout
        socket->handler.on_shutdown();
        return;
    }
    socket->handler.on_ready(!event->write, event->write);
}

void NginxReactor::on_timer_event(ngx_event_t* event) noexcept { fire(*reinterpret_cast<TimerEvent*>(event)->timer); }

void NginxReactor::on_posted(ngx_event_t* event) noexcept {
    auto* connection = static_cast<ngx_connection_t*>(event->data);
    static_cast<NginxReactor*>(connection->data)->run_posted();
}

} // namespace billing
