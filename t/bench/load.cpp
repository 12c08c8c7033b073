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
//   on, each number
//                     `repeat` times before the next
//   seconds=S         of measuring, after `warm` seconds that do not count
//   rate=N            open loop: N requests a second at even intervals, latency counted from the moment at which each
//   was due;
//                     without it closed loop: each connection asks again at once
//   connections=N     32
//   pid=N             whose CPU time is measured
#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace {

constexpr std::int64_t k_second = 1'000'000'000;
constexpr std::int64_t k_patience = 60 * k_second; // for any answer at all
constexpr std::string_view k_blank_line = "\r\n\r\n";

std::int64_t now_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * k_second + now.tv_nsec;
}

[[noreturn]] void fail(const std::string& what) {
    throw std::runtime_error(errno != 0 ? what + ": " + std::strerror(errno) : what);
}

std::string contents_of(const std::string& name) {
    std::ifstream in{name};
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
}

// Nanoseconds on a core so far.
std::int64_t cpu_of(const std::string& pid) {
    return pid.empty() ? 0 : std::atoll(contents_of("/proc/" + pid + "/schedstat").c_str());
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

// --- the application ---

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

// --- the load ---

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

class Run;

class Client : public Socket {
public:
    Client(Run& run, int fd) : Socket(fd), run_(run) {}
    void ask(std::int64_t due);
    void readable() override;

private:
    void answered();

    Run& run_;
    std::int64_t due_ = 0;
    std::size_t have_ = 0;
    std::size_t need_ = 0; // of the whole answer; 0 until its header is there
    int status_ = 0;
    std::array<char, 16384> buffer_;
};

class Run {
public:
    Run(Loop& loop, const Order& order)
        : loop_(loop), pid_(order.text("pid")), expected_(static_cast<int>(order.whole("status", 200))),
          accounts_(static_cast<std::uint64_t>(order.whole("accounts", 1))), count_(order.whole("count", 0)),
          repeat_(order.whole("repeat", 1)), next_(order.whole("from", 1) * repeat_),
          seconds_(order.number("seconds", 1)), warm_(order.number("warm", 0)), rate_(order.number("rate", 0)),
          random_(static_cast<std::uint64_t>(now_ns()) | 1) {
        const std::string request = contents_of(order.text("request"));
        const auto hash = request.find('#');
        if (hash == std::string::npos) {
            fail("no request in " + order.text("request"));
        }
        head_ = request.substr(0, hash);
        rest_ = request.substr(hash + 1);
        for (std::int64_t i = order.whole("connections", 32); i > 0; --i) {
            clients_.push_back(std::make_unique<Client>(*this, connection(order)));
            loop.add(*clients_.back());
            free_.push_back(clients_.back().get());
        }
    }

    std::string work() {
        if (warm_ > 0) {
            drive(static_cast<std::int64_t>(warm_ * k_second), 0);
        }
        const std::int64_t uncounted = std::exchange(requests_, 0);
        latencies_.clear();
        const std::int64_t cpu = cpu_of(pid_);
        const std::clock_t own = std::clock();
        const std::int64_t begun = now_ns();
        drive(count_ > 0 ? k_second * 3600 : static_cast<std::int64_t>(seconds_ * k_second), count_);
        const double took = static_cast<double>(now_ns() - begun) / k_second;
        std::ostringstream out;
        out << R"({"requests":)" << requests_ << R"(,"all":)" << requests_ + uncounted << R"(,"seconds":)" << took
            << R"(,"wrong":)" << wrong_ << R"(,"errors":)" << errors_ << R"(,"cpu":)"
            << static_cast<double>(cpu_of(pid_) - cpu) / k_second << R"(,"own":)"
            << static_cast<double>(std::clock() - own) / CLOCKS_PER_SEC << R"(,"p50":)" << percentile(0.5)
            << R"(,"p99":)" << percentile(0.99) << R"(,"complaint":")" << complaint_ << "\"}";
        return out.str();
    }

    // --- for its clients ---

    std::string_view next_request() {
        const std::uint64_t number = count_ > 0 ? static_cast<std::uint64_t>(next_++ / repeat_) : random_number();
        text_ = head_;
        std::array<char, 20> digits;
        const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
        text_.append(digits.data(), end).append(rest_);
        return text_;
    }
    void answered(Client& client, int status, std::int64_t due, std::string_view answer) {
        --open_;
        ++requests_;
        if (status != expected_ && ++wrong_ == 1) {
            complain(answer.substr(0, 300));
        }
        if (rate_ > 0) {
            latencies_.push_back(now_ns() - due);
        }
        if (rate_ == 0 && may_send()) {
            send(client, 0);
        } else {
            free_.push_back(&client);
        }
    }
    void broken(std::string_view what) {
        open_ = 0; // the run is worth nothing any more
        ++errors_;
        stopped_ = true;
        complain(what);
    }

private:
    static int connection(const Order& order) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.sin_port = htons(static_cast<std::uint16_t>(order.whole("port", 0)));
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        const int one = 1;
        if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 ||
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0 || fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
            fail("connect");
        }
        return fd;
    }

    // Until the time is over or so many are sent, and the last answer is there.
    void drive(std::int64_t duration, std::int64_t limit) {
        limit_ = limit;
        sent_ = 0;
        stopped_ = false;
        std::int64_t now = now_ns();
        const std::int64_t begun = now;
        std::int64_t last = now; // when something was answered
        std::int64_t seen = requests_;
        const double interval = rate_ > 0 ? k_second / rate_ : 0;
        std::int64_t due = begun;
        if (rate_ == 0) {
            for (auto free = std::exchange(free_, {}); Client * client : free) {
                may_send() ? send(*client, 0) : free_.push_back(client);
            }
        }
        while (open_ > 0 || (rate_ > 0 && !stopped_)) {
            while (rate_ > 0 && !stopped_ && due <= now && !free_.empty()) {
                Client* client = free_.back();
                free_.pop_back();
                send(*client, due);
                due = begun + static_cast<std::int64_t>(static_cast<double>(sent_) * interval);
            }
            loop_.turn(rate_ > 0 ? 0 : 1000); // whoever sleeps between requests that are due wakes too late
            now = now_ns();
            stopped_ = stopped_ || now - begun >= duration;
            if (requests_ != seen) {
                seen = requests_;
                last = now;
            } else if (now - last > k_patience) {
                ++errors_;
                complain("an answer does not come");
                return;
            }
        }
    }
    bool may_send() const { return !stopped_ && (limit_ == 0 || sent_ < limit_); }
    void send(Client& client, std::int64_t due) {
        ++sent_;
        ++open_;
        client.ask(due);
    }
    std::uint64_t random_number() {
        random_ ^= random_ << 13;
        random_ ^= random_ >> 7;
        random_ ^= random_ << 17;
        return random_ % accounts_ + 1;
    }
    double percentile(double part) {
        if (latencies_.empty()) {
            return 0;
        }
        const auto at =
            latencies_.begin() + static_cast<std::ptrdiff_t>(part * static_cast<double>(latencies_.size() - 1));
        std::nth_element(latencies_.begin(), at, latencies_.end());
        return static_cast<double>(*at) / 1000;
    }
    void complain(std::string_view what) {
        if (complaint_.empty()) {
            complaint_ = what;
            std::replace_if(
                complaint_.begin(), complaint_.end(), [](char c) { return c < ' ' || c == '"' || c == '\\'; }, ' ');
        }
    }

    Loop& loop_;
    std::string pid_;
    int expected_;
    std::uint64_t accounts_;
    std::int64_t count_, repeat_, next_;
    double seconds_, warm_, rate_;
    std::uint64_t random_;
    std::string head_, rest_, text_;
    std::vector<std::unique_ptr<Client>> clients_;
    std::vector<Client*> free_;
    std::int64_t limit_ = 0, sent_ = 0, open_ = 0, requests_ = 0, wrong_ = 0, errors_ = 0;
    bool stopped_ = false;
    std::vector<std::int64_t> latencies_;
    std::string complaint_;
};

void Client::ask(std::int64_t due) {
    due_ = due;
    have_ = need_ = 0;
    const std::string_view request = run_.next_request();
    if (write(fd(), request.data(), request.size()) != static_cast<ssize_t>(request.size())) {
        run_.broken("a request could not be sent");
    }
}

void Client::readable() {
    const ssize_t size = read(fd(), buffer_.data() + have_, buffer_.size() - have_);
    if (size <= 0) {
        if (size == 0 || errno != EAGAIN) {
            run_.broken("a connection was closed");
        }
        return;
    }
    have_ += static_cast<std::size_t>(size);
    const std::string_view text{buffer_.data(), have_};
    if (need_ == 0) {
        const auto end = text.find(k_blank_line);
        const auto length = text.find("\r\nContent-Length: ");
        if (end == std::string_view::npos) {
            return;
        }
        if (length > end) {
            run_.broken("an answer without its length");
            return;
        }
        status_ = std::atoi(buffer_.data() + 9);
        need_ = end + 4 + static_cast<std::size_t>(std::atoi(buffer_.data() + length + 18));
    }
    if (have_ >= need_) {
        run_.answered(*this, status_, due_, text);
    }
}

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
