// The connection: hiredis on the loop, handshake, back-off. Called by the loop; the commands' side is in
// redis_commands.cpp.
#include "drivers/redis.hpp"

#include <fcntl.h>
#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

namespace billing {

// What hiredis calls. hiredis.data, ev.data and each command's private data are the Redis object.
struct RedisHooks {
    static Redis& self(void* data) noexcept { return *static_cast<Redis*>(data); }

    static void add_read(void* data) noexcept { self(data).watch(true, self(data).want_write_); }
    static void del_read(void* data) noexcept { self(data).watch(false, self(data).want_write_); }
    static void add_write(void* data) noexcept { self(data).want_write(true); }
    static void del_write(void* data) noexcept { self(data).want_write(false); }
    // Called whenever the context is being freed, whyever; after the pending callbacks.
    static void cleanup(void* data) noexcept { self(data).freed(); }
    static void handshake(redisAsyncContext*, void* reply, void* data) noexcept {
        self(data).handshake_reply(static_cast<const redisReply*>(reply));
    }
};

Redis::Redis(Reactor& reactor, RedisConfig config)
    : Timer(true), reactor_(reactor), config_(std::move(config)),
      backoff_(static_cast<std::uint64_t>(::getpid()) * 7919U + reinterpret_cast<std::uintptr_t>(this)),
      outage_(reactor, "Redis at " + config_.address.display()), command_timer_(*this, config_.background),
      flush_(*this), fifo_(std::max<std::size_t>(config_.max_pending, 1)) {
    config_.max_pending = std::max<std::size_t>(config_.max_pending, 1);
}

Redis::~Redis() { stop(); }

void Redis::start() noexcept {
    if (state_ == State::stopped)
        connect();
}

void Redis::stop() noexcept {
    state_ = State::stopped;
    first_ = false;
    reactor_.disarm(*this);
    flush_.unpost();
    if (context_)
        redisAsyncFree(context_); // answers every command with nullptr, then calls freed()
    fail_queue("the connection to Redis is being closed");
    reactor_.disarm(command_timer_);
}

void Redis::connect() noexcept {
    state_ = State::connecting;
    trouble_.clear();
    const RedisAddress& address = config_.address;
    // The address is numeric: getaddrinfo() inside hiredis asks nobody.
    context_ = address.unix_path.empty() ? redisAsyncConnect(address.ip.c_str(), address.port)
                                         : redisAsyncConnectUnix(address.unix_path.c_str());
    if (!context_) {
        down("out of memory");
        return;
    }
    if (!prepare()) {
        redisAsyncFree(context_);
        context_ = nullptr; // freed() may not have been installed yet
        down(trouble_);
        return;
    }
    reactor_.arm(*this, config_.connect_ms);
}

bool Redis::prepare() noexcept {
    if (context_->err != 0) {
        trouble_ = context_->errstr;
        return false;
    }
    ::fcntl(context_->c.fd, F_SETFD, FD_CLOEXEC);
    if (config_.address.unix_path.empty())
        redisEnableKeepAlive(&context_->c);
    socket_ = reactor_.attach(context_->c.fd, *this);
    if (!socket_) {
        trouble_ = "the loop has no room for a connection";
        return false;
    }
    want_read_ = want_write_ = false;
    context_->data = this;
    context_->ev.data = this;
    context_->ev.addRead = &RedisHooks::add_read;
    context_->ev.delRead = &RedisHooks::del_read;
    context_->ev.addWrite = &RedisHooks::add_write;
    context_->ev.delWrite = &RedisHooks::del_write;
    context_->ev.cleanup = &RedisHooks::cleanup;
    if (handshake())
        return true;
    trouble_ = "out of memory";
    return false;
}

// Sent as soon as the connection is there. PING even if nothing else is to be said: a server which does not answer, or
// is loading its data, is of no use. Asking for writability is what makes hiredis notice the connection.
bool Redis::handshake() {
    std::vector<std::vector<std::string>> commands;
    const RedisAddress& address = config_.address;
    if (!address.password.empty()) {
        commands.push_back({"AUTH"});
        if (!address.user.empty())
            commands.back().push_back(address.user);
        commands.back().push_back(address.password);
    }
    if (address.database != 0)
        commands.push_back({"SELECT", std::to_string(address.database)});
    commands.push_back({"PING"});
    handshaking_ = 0;
    for (const auto& command : commands) {
        std::vector<const char*> words;
        std::vector<std::size_t> sizes;
        for (const std::string& word : command) {
            words.push_back(word.data());
            sizes.push_back(word.size());
        }
        if (redisAsyncCommandArgv(context_, &RedisHooks::handshake, this, static_cast<int>(words.size()), words.data(),
                                  sizes.data()) != REDIS_OK)
            return false;
        ++handshaking_;
    }
    return true;
}

void Redis::handshake_reply(const redisReply* reply) noexcept {
    if (!reply)
        return; // the connection is ending
    --handshaking_;
    if (reply->type == REDIS_REPLY_ERROR && trouble_.empty())
        trouble_ = std::string(reply->str, reply->len);
}

void Redis::watch(bool read, bool write) noexcept {
    if (!socket_ || (read == want_read_ && write == want_write_))
        return;
    want_read_ = read;
    want_write_ = write;
    reactor_.want(*socket_, read, write);
}

// Once connected, writing is tried first, at the end of the turn; only what is left then waits for the socket.
void Redis::want_write(bool on) noexcept {
    if (on && !writing_ && state_ == State::up)
        reactor_.post(flush_);
    else
        watch(want_read_, on);
}

void Redis::write() noexcept {
    if (!context_)
        return;
    writing_ = true;
    redisAsyncHandleWrite(context_); // may free the context
    writing_ = false;
    after_io();
}

// hiredis asserts that nothing comes which was not asked, an error apart: look before it reads.
bool Redis::unasked() noexcept {
    if (!fifo_.empty() || handshaking_ != 0)
        return false;
    char first = 0;
    return ::recv(context_->c.fd, &first, 1, MSG_PEEK | MSG_DONTWAIT) == 1 && first != '-';
}

void Redis::on_ready(bool readable, bool writable) noexcept {
    if (writable) {
        write();
        if (!context_)
            return;
    }
    if (!readable)
        return;
    if (unasked()) {
        close("it sent something which was not asked");
        return;
    }
    redisAsyncHandleRead(context_); // may free the context
    after_io();
}

// Outside hiredis again: act on what its callbacks have noted.
void Redis::after_io() noexcept {
    if (!context_) {
        down(trouble_);
        return;
    }
    if (!trouble_.empty()) {
        close(std::move(trouble_));
        return;
    }
    if (state_ != State::connecting || handshaking_ != 0)
        return;
    reactor_.disarm(*this);
    state_ = State::up;
    first_ = false;
    up_since_ms_ = reactor_.now_ms();
    ++counters_.connects;
    outage_.up();
    flush_queue();
}

void Redis::freed() noexcept {
    if (trouble_.empty())
        trouble_ = context_->c.err != 0 ? context_->c.errstr : "the connection was closed";
    context_ = nullptr;
    if (socket_)
        reactor_.release(*socket_);
    socket_ = nullptr;
    flush_.unpost();
}

void Redis::close(std::string why) noexcept {
    trouble_ = std::move(why);
    redisAsyncFree(context_); // not from inside a callback of hiredis, so it happens at once
    down(trouble_);
}

void Redis::down(std::string_view why) noexcept {
    const std::string reason(why);
    ++counters_.failures;
    if (state_ == State::up && reactor_.now_ms() - up_since_ms_ >= Backoff::k_limit_ms)
        backoff_.reset();
    state_ = State::waiting;
    first_ = false;
    const std::int64_t pause = backoff_.next_ms();
    reactor_.arm(*this, pause); // connecting anew from here would reuse a number hiredis is about to close
    outage_.down(reason, pause);
    fail_queue("there is no connection to Redis");
    rearm();
}

void Redis::on_timer() noexcept {
    if (state_ == State::waiting)
        connect();
    else if (state_ == State::connecting)
        close("no answer in " + std::to_string(config_.connect_ms) + " ms");
}

} // namespace billing
