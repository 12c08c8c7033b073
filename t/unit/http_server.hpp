// An HTTP server for tests which does as it is told, wrong things too: a thread for each connection, a script for each
// request. Owner: the test; its destructor ends all threads.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <condition_variable>
#include <cstdlib>
#include <functional>
#include <list>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace billing::test {

struct HttpAsk {
    std::string method;
    std::string target;
    std::string head; // request line and headers as they came
    std::string body;

    // The header's value, or "". Names as curl writes them.
    std::string header(const std::string& name) const {
        const auto at = head.find("\r\n" + name + ": ");
        if (at == head.npos)
            return {};
        const auto begin = at + name.size() + 4;
        return head.substr(begin, head.find("\r\n", begin) - begin);
    }
    bool has(const std::string& name) const { return head.find("\r\n" + name + ":") != head.npos; }
};

// The server's end of one connection.
class HttpPeer {
public:
    explicit HttpPeer(int fd) : fd_(fd) {}

    bool write(std::string_view bytes) {
        while (!bytes.empty()) {
            const ssize_t done = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (done <= 0)
                return false;
            bytes.remove_prefix(static_cast<std::size_t>(done));
        }
        return true;
    }
    bool answer(int status, const std::string& body, const std::string& headers = {}) {
        return write("HTTP/1.1 " + std::to_string(status) + " X\r\nContent-Length: " + std::to_string(body.size()) +
                     "\r\n" + headers + "\r\n" + body);
    }
    // Until the other side, or the server, has closed the connection.
    void hang() {
        char bytes[4096];
        while (::recv(fd_, bytes, sizeof(bytes), 0) > 0)
            ;
    }
    // False: the connection has ended.
    bool read(HttpAsk& ask) {
        ask = HttpAsk();
        std::size_t end = 0;
        while ((end = buffer_.find("\r\n\r\n")) == buffer_.npos)
            if (!more())
                return false;
        ask.head = buffer_.substr(0, end + 2);
        buffer_.erase(0, end + 4);
        ask.method = ask.head.substr(0, ask.head.find(' '));
        const auto target = ask.method.size() + 1;
        ask.target = ask.head.substr(target, ask.head.find(' ', target) - target);
        const std::size_t length = std::strtoul(ask.header("Content-Length").c_str(), nullptr, 10);
        while (buffer_.size() < length)
            if (!more())
                return false;
        ask.body = buffer_.substr(0, length);
        buffer_.erase(0, length);
        return true;
    }
    int fd() const { return fd_; }

private:
    bool more() {
        char bytes[16384];
        const ssize_t got = ::recv(fd_, bytes, sizeof(bytes), 0);
        if (got <= 0)
            return false;
        buffer_.append(bytes, static_cast<std::size_t>(got));
        return true;
    }

    int fd_;
    std::string buffer_;
};

// A socket on 127.0.0.1 which listens, and no more: the kernel accepts, nobody answers.
class SilentListener {
public:
    explicit SilentListener(int backlog = 16, int port = 0) {
        fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const int on = 1;
        ::setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.sin_port = htons(static_cast<std::uint16_t>(port));
        socklen_t size = sizeof(address);
        if (::bind(fd_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(fd_, backlog) != 0)
            throw std::runtime_error("cannot listen");
        ::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
        port_ = ntohs(address.sin_port);
    }
    SilentListener(const SilentListener&) = delete;
    SilentListener& operator=(const SilentListener&) = delete;
    ~SilentListener() { ::close(fd_); }

    int fd() const { return fd_; }
    int port() const { return port_; }
    std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }

private:
    int fd_;
    int port_ = 0;
};

class HttpServer {
public:
    // What to do with a request: true to go on with the connection. Called in the connection's thread.
    using Script = std::function<bool(HttpPeer&, const HttpAsk&)>;

    explicit HttpServer(Script script, int port = 0)
        : script_(std::move(script)), listener_(64, port), acceptor_([this] { accept(); }) {}
    HttpServer(const HttpServer&) = delete;
    HttpServer& operator=(const HttpServer&) = delete;
    ~HttpServer() {
        open_gate();
        stopping_ = true;
        ::shutdown(listener_.fd(), SHUT_RDWR);
        acceptor_.join();
        for (Connection& one : connections_) { // nobody adds any more
            ::shutdown(one.peer.fd(), SHUT_RDWR);
            one.thread.join();
            ::close(one.peer.fd());
        }
    }

    std::string url() const { return listener_.url(); }
    int port() const { return listener_.port(); }
    int accepted() const { return accepted_; }
    int requests() const { return requests_; }
    int most_at_once() const { return most_; } // requests between being read and being answered

    // Scripts which call gate() wait there for open_gate().
    void gate() {
        std::unique_lock lock(mutex_);
        ++at_gate_;
        opened_.wait(lock, [this] { return open_; });
    }
    void open_gate() {
        const std::lock_guard lock(mutex_);
        open_ = true;
        opened_.notify_all();
    }
    int at_gate() {
        const std::lock_guard lock(mutex_);
        return at_gate_;
    }
    std::vector<HttpAsk> asked() {
        const std::lock_guard lock(mutex_);
        return asked_;
    }

private:
    struct Connection {
        explicit Connection(int fd) : peer(fd) {}
        HttpPeer peer;
        std::thread thread;
    };

    void accept() {
        for (int fd; (fd = ::accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC)) >= 0;) {
            if (stopping_) {
                ::close(fd);
                return;
            }
            ++accepted_;
            Connection& one = connections_.emplace_back(fd);
            one.thread = std::thread([this, &one] { serve(one.peer); });
        }
    }
    void serve(HttpPeer& peer) {
        HttpAsk ask;
        bool again = true;
        while (again && peer.read(ask)) {
            ++requests_;
            {
                const std::lock_guard lock(mutex_);
                asked_.push_back(ask);
                most_ = std::max<int>(most_, ++now_);
            }
            again = script_(peer, ask);
            const std::lock_guard lock(mutex_);
            --now_;
        }
        ::shutdown(peer.fd(), SHUT_RDWR);
    }

    Script script_;
    SilentListener listener_;
    std::atomic<bool> stopping_ = false;
    std::atomic<int> accepted_ = 0;
    std::atomic<int> requests_ = 0;
    std::atomic<int> most_ = 0;
    std::mutex mutex_;
    std::condition_variable opened_;
    bool open_ = false;
    int at_gate_ = 0;
    int now_ = 0;
    std::vector<HttpAsk> asked_;
    std::list<Connection> connections_;
    std::thread acceptor_; // last: it uses the others
};

} // namespace billing::test
