// What load and application of script/bench share: sockets that are told when they can be read, and the words of an
// order.
#pragma once

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

#include <sys/epoll.h>
#include <unistd.h>

constexpr std::int64_t k_second = 1'000'000'000;
constexpr std::string_view k_blank_line = "\r\n\r\n";

inline std::int64_t now_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * k_second + now.tv_nsec;
}

[[noreturn]] inline void fail(const std::string& what) {
    throw std::runtime_error(errno != 0 ? what + ": " + std::strerror(errno) : what);
}

inline std::string contents_of(const std::string& name) {
    std::ifstream in{name};
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
}

class Socket {
public:
    explicit Socket(int fd) : fd_(fd) {}
    Socket(const Socket&) = delete;
    Socket& operator=(const Socket&) = delete;
    virtual ~Socket() { close(fd_); }
    int fd() const { return fd_; }
    virtual void readable() = 0;

private:
    int fd_;
};

class Loop {
public:
    void add(Socket& socket) {
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.ptr = &socket;
        if (epoll_ctl(fd_, EPOLL_CTL_ADD, socket.fd(), &event) != 0) {
            fail("epoll_ctl");
        }
    }
    void turn(int timeout_ms) {
        std::array<epoll_event, 128> events{};
        const int count = epoll_wait(fd_, events.data(), static_cast<int>(events.size()), timeout_ms);
        for (int i = 0; i < count; ++i) {
            static_cast<Socket*>(events[static_cast<std::size_t>(i)].data.ptr)->readable();
        }
    }

private:
    int fd_ = epoll_create1(EPOLL_CLOEXEC);
};

// One line of the standard input.
struct Order {
    std::map<std::string, std::string> words;

    std::string text(const std::string& name) const {
        const auto at = words.find(name);
        return at == words.end() ? "" : at->second;
    }
    double number(const std::string& name, double otherwise) const {
        const auto at = words.find(name);
        return at == words.end() ? otherwise : std::stod(at->second);
    }
    std::int64_t whole(const std::string& name, std::int64_t otherwise) const {
        return static_cast<std::int64_t>(number(name, static_cast<double>(otherwise)));
    }
};
