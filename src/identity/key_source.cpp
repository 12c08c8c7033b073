#include "identity/key_source.hpp"

#include "async/sleep.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

namespace billing {

namespace {

constexpr std::int64_t k_look_ms = 1000;        // at a file
constexpr std::int64_t k_refresh_ms = 300'000;  // of an address
constexpr std::int64_t k_least_ms = 5000;       // between two fetches, whatever unknown keys tokens name
constexpr std::int64_t k_first_retry_ms = 1000; // after a failed fetch; doubles
constexpr std::int64_t k_longest_retry_ms = 60'000;
constexpr std::int64_t k_hurried_retry_ms = 4000; // the longest while there are no keys at all
constexpr std::int64_t k_fetch_ms = 5000;

bool same_file(const struct stat& a, const struct stat& b) noexcept {
    return a.st_ino == b.st_ino && a.st_dev == b.st_dev && a.st_size == b.st_size &&
           a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec &&
           a.st_ctim.tv_sec == b.st_ctim.tv_sec && a.st_ctim.tv_nsec == b.st_ctim.tv_nsec;
}

class File {
public:
    explicit File(const std::string& path) noexcept : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
    File(const File&) = delete;
    File& operator=(const File&) = delete;
    ~File() {
        if (fd_ >= 0) {
            ::close(fd_);
        }
    }
    int fd() const noexcept { return fd_; }

private:
    int fd_;
};

HttpConfig http_config(const KeySourceConfig& config) {
    HttpConfig http;
    http.name = "the JWKS server";
    http.timeout_ms = k_fetch_ms;
    http.max_body = k_max_jwks_bytes;
    http.max_connections = 1;
    http.max_pending = 1;
    http.plain_http = config.url.starts_with("http://");
    http.ca_file = config.ca_file;
    return http;
}

} // namespace

Result<std::string> read_key_file(const std::string& path) {
    const File file{path};
    struct stat status {};
    if (file.fd() < 0 || ::fstat(file.fd(), &status) != 0) {
        return Error{"cannot be read: " + std::string{std::strerror(errno)}};
    }
    if (!S_ISREG(status.st_mode)) {
        return Error{"is no regular file"};
    }
    std::string text(k_max_jwks_bytes + 1, '\0');
    std::size_t size = 0;
    while (size < text.size()) {
        const ssize_t got = ::read(file.fd(), text.data() + size, text.size() - size);
        if (got < 0) {
            return Error{"cannot be read: " + std::string{std::strerror(errno)}};
        }
        if (got == 0) {
            break;
        }
        size += static_cast<std::size_t>(got);
    }
    text.resize(size);
    return text;
}

KeySource::KeySource(Reactor& reactor, KeySourceConfig config, KeptText memory)
    : reactor_(reactor), config_(std::move(config)), memory_(memory), wanted_(reactor), trouble_(reactor),
      random_(std::random_device{}()) {
    if (config_.alg == TokenAlg::hs256) {
        keys_ = KeySet{std::vector<TokenKey>(1, TokenKey::of_secret(config_.secret))};
        generation_ = 1;
        return;
    }
    const std::string known = config_.url.empty() ? config_.text : memory_.read();
    if (!known.empty()) {
        take(known);
    }
}

void KeySource::start(Scope& scope) {
    if (!config_.file.empty()) {
        scope.spawn(follow_file());
    } else if (!config_.url.empty()) {
        http_.emplace(reactor_, http_config(config_));
        scope.spawn(follow_url());
    }
}

void KeySource::stop() noexcept {
    if (http_) {
        http_->stop();
    }
}

Task<void> KeySource::follow_file() {
    for (;;) {
        look_at_file();
        co_await sleep_for(reactor_, k_look_ms, true);
    }
}

// A file that is half written does not parse, and is looked at again.
void KeySource::look_at_file() {
    struct stat now {};
    if (::stat(config_.file.c_str(), &now) == 0 && same_file(now, seen_)) {
        return;
    }
    const auto text = read_key_file(config_.file);
    if (!text) {
        trouble_.say(where() + " " + text.error() + "; the keys it had stay in force");
    } else if (take(text.value())) {
        seen_ = now;
    }
}

Task<void> KeySource::follow_url() {
    std::int64_t retry_ms = k_first_retry_ms;
    if (known()) { // after a reload all workers of all hosts would ask at once
        co_await wanted_.wait(jittered(k_first_retry_ms));
    }
    while (!reactor_.leaving()) {
        const std::int64_t began = reactor_.now_ms();
        bool fetched = co_await fetch();
        std::int64_t pause_ms = k_refresh_ms;
        if (!fetched) {
            pause_ms = std::min(retry_ms, known() ? k_longest_retry_ms : k_hurried_retry_ms);
            retry_ms = std::min(retry_ms * 2, k_longest_retry_ms);
        } else {
            retry_ms = k_first_retry_ms;
        }
        bool wanted = co_await wanted_.wait(jittered(pause_ms));
        if (wanted) {
            const std::int64_t least = began + jittered(k_least_ms) - reactor_.now_ms();
            if (least > 0) {
                co_await sleep_for(reactor_, least, true);
            }
        }
    }
}

Task<bool> KeySource::fetch() {
    HttpRequest request;
    request.url = config_.url;
    request.headers.add("Accept", "application/json");
    HttpResponse response = co_await http_->send(std::move(request));
    if (!response || response.status != 200) {
        trouble_.say(where() + " cannot be fetched: " +
                     (response ? "status " + std::to_string(response.status) : response.reason) +
                     (known() ? "; the keys it had stay in force" : "; until it can, tokens are answered with 503"));
        co_return false;
    }
    const bool taken = take(response.body);
    if (taken) {
        memory_.write(response.body);
    }
    co_return taken;
}

bool KeySource::take(const std::string& text) {
    if (text == text_) {
        trouble_.settled();
        return true;
    }
    auto keys = read_jwks(text, config_.alg);
    if (!keys) {
        trouble_.say(where() + " " + keys.error() + "; the keys it had stay in force");
        return false;
    }
    trouble_.settled();
    keys_ = std::move(keys).value();
    text_ = text;
    ++generation_;
    reactor_.log(LogLevel::info, "billing: " + where() + ": keys in force: " + std::to_string(keys_.size()));
    return true;
}

// Between four fifths of it and all of it: those who began together do not go on together.
std::int64_t KeySource::jittered(std::int64_t ms) noexcept {
    return ms - static_cast<std::int64_t>(random_() % 1024) * (ms / 5) / 1024;
}

// Without the query of an address, which is nobody's business.
std::string KeySource::where() const {
    return config_.url.empty() ? config_.file : config_.url.substr(0, config_.url.find('?'));
}

} // namespace billing
