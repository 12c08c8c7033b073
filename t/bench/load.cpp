// The load of script/bench and the application behind the proxies, in one process on one core, so that the core of the
// gate is what limits: a request costs here little more than its four system calls. Started by Billing::Bench::Load,
// which compiles it.
//
//   bench-load APPLICATION_SOCKET SECOND_SOCKET
//
// The application answers every request on the first socket with 200 and 1 kB, on the second with 204, always. Each
// line on the standard input is one run, words name=value, and is answered with one line of JSON:
//   port=N            of the host on 127.0.0.1
//   request=FILE      the bytes of a request, with # where the number of the account belongs
//   status=N          that every answer must have
//   accounts=N        numbers 1 to N, uniformly random; or with count=N that many requests, in order from number `from`
//                     on, each number `repeat` times before the next
//   events=FILE,...   instead of request: bodies of Stripe's events, which take turns, sent to path=PATH, signed with
//                     secret=TEXT, numbered from number `from` on (requests.hpp)
//   seconds=S         of measuring, after `warm` seconds that do not count
//   rate=N            open loop: N requests a second at even intervals, latency counted from the moment at which each
//                     was due; without it closed loop: each connection asks again at once
//   timed=1           latencies in closed loop too
//   connections=N     32
//   pid=N             whose CPU time is measured
#include "loop.hpp"
#include "run.hpp"

#include <cstdio>
#include <iostream>
#include <optional>

#include <sys/stat.h>
#include <sys/un.h>

namespace {

// A connection of nginx, which sends one request at a time and no body. Ends with the process.
class Served : public Socket {
public:
    Served(int fd, const std::string& answer) : Socket(fd), answer_(answer) {}
    void readable() override {
        std::array<char, 8192> buffer;
        const ssize_t size = read(fd(), buffer.data(), buffer.size());
        if (size <= 0) {
            if (size == 0 || errno != EAGAIN) {
                delete this;
            }
            return;
        }
        tail_.append(buffer.data(), static_cast<std::size_t>(size));
        if (!tail_.ends_with(k_blank_line)) {
            return;
        }
        tail_.clear();
        if (write(fd(), answer_.data(), answer_.size()) != static_cast<ssize_t>(answer_.size())) {
            delete this;
        }
    }

private:
    const std::string& answer_;
    std::string tail_;
};

class Application : public Socket {
public:
    Application(Loop& loop, const std::string& path, std::string answer)
        : Socket(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0)), loop_(loop), answer_(std::move(answer)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        path.copy(address.sun_path, sizeof(address.sun_path) - 1);
        unlink(path.c_str());
        if (bind(fd(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 || listen(fd(), 511) != 0 ||
            chmod(path.c_str(), 0777) != 0) {
            fail(path);
        }
        loop.add(*this);
    }
    void readable() override {
        const int client = accept4(fd(), nullptr, nullptr, SOCK_NONBLOCK);
        if (client >= 0) {
            loop_.add(*new Served(client, answer_));
        }
    }

private:
    Loop& loop_;
    std::string answer_;
};

class Orders : public Socket {
public:
    explicit Orders(Loop& loop) : Socket(STDIN_FILENO) { loop.add(*this); }
    void readable() override {
        std::array<char, 4096> buffer;
        const ssize_t size = read(fd(), buffer.data(), buffer.size());
        if (size <= 0) {
            std::exit(0);
        }
        line_.append(buffer.data(), static_cast<std::size_t>(size));
        if (!line_.ends_with('\n')) {
            return;
        }
        std::istringstream words{std::exchange(line_, {})};
        order_.emplace();
        for (std::string word; words >> word;) {
            const auto equals = word.find('=');
            order_->words[word.substr(0, equals)] = word.substr(equals + 1);
        }
    }
    std::optional<Order> next() { return std::exchange(order_, {}); }

private:
    std::string line_;
    std::optional<Order> order_;
};

} // namespace

int main(int count, char** arguments) {
    if (count != 3) {
        std::cerr << "usage: bench-load APPLICATION_SOCKET SECOND_SOCKET\n";
        return 2;
    }
    try {
        Loop loop;
        const std::string head =
            "\r\nServer: application\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nConnection: keep-alive\r\n";
        Application page{loop, arguments[1],
                         "HTTP/1.1 200 OK" + head + "Content-Type: text/plain\r\nContent-Length: 1000\r\n\r\n" +
                             std::string(1000, 'x')};
        Application yes{loop, arguments[2], "HTTP/1.1 204 No Content" + head + "\r\n"};
        Orders orders{loop};
        for (;;) {
            loop.turn(-1);
            if (const auto order = orders.next()) {
                std::cout << Run{loop, *order}.work() << std::endl;
            }
        }
    } catch (const std::exception& error) {
        std::cerr << "bench-load: " << error.what() << "\n";
        return 1;
    }
}
