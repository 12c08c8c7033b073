// One run of the load: connections that ask and look at the answers. What they ask comes from Requests.
#pragma once

#include "loop.hpp"
#include "requests.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

constexpr std::int64_t k_patience = 60 * k_second; // for any answer at all

// Nanoseconds on a core so far.
inline std::int64_t cpu_of(const std::string& pid) {
    return pid.empty() ? 0 : std::atoll(contents_of("/proc/" + pid + "/schedstat").c_str());
}

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
          source_(requests_of(order)), count_(order.whole("count", 0)), seconds_(order.number("seconds", 1)),
          warm_(order.number("warm", 0)), rate_(order.number("rate", 0)),
          timed_(rate_ > 0 || order.whole("timed", 0) > 0) {
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

    std::string_view next_request() { return source_->next(); }
    void answered(Client& client, int status, std::int64_t due, std::string_view answer) {
        --open_;
        ++requests_;
        if (status != expected_ && ++wrong_ == 1) {
            complain(answer.substr(0, 300));
        }
        if (timed_) {
            latencies_.push_back(now_ns() - due);
        }
        if (rate_ == 0 && may_send()) {
            send(client, sent_at());
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
                may_send() ? send(*client, sent_at()) : free_.push_back(client);
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
    // When it was sent, where that is asked for: the clock costs something.
    std::int64_t sent_at() const { return timed_ ? now_ns() : 0; }
    bool may_send() const { return !stopped_ && (limit_ == 0 || sent_ < limit_); }
    void send(Client& client, std::int64_t due) {
        ++sent_;
        ++open_;
        client.ask(due);
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
    std::unique_ptr<Requests> source_;
    std::int64_t count_;
    double seconds_, warm_, rate_;
    bool timed_;
    std::vector<std::unique_ptr<Client>> clients_;
    std::vector<Client*> free_;
    std::int64_t limit_ = 0, sent_ = 0, open_ = 0, requests_ = 0, wrong_ = 0, errors_ = 0;
    bool stopped_ = false;
    std::vector<std::int64_t> latencies_;
    std::string complaint_;
};

inline void Client::ask(std::int64_t due) {
    due_ = due;
    have_ = need_ = 0;
    const std::string_view request = run_.next_request();
    if (write(fd(), request.data(), request.size()) != static_cast<ssize_t>(request.size())) {
        run_.broken("a request could not be sent");
    }
}

inline void Client::readable() {
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
        const auto length = std::min(text.find("\r\nContent-Length: "), text.find("\r\ncontent-length: "));
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
