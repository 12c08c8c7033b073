// What a run sends: a request with a number in it, or Stripe's events, each of them new and signed when it is sent.
#pragma once

#include "loop.hpp"

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <openssl/evp.h>
#include <openssl/hmac.h>

class Requests {
public:
    Requests() = default;
    Requests(const Requests&) = delete;
    Requests& operator=(const Requests&) = delete;
    virtual ~Requests() = default;
    virtual std::string_view next() = 0; // good until the next one
};

class NumberedRequests : public Requests {
public:
    explicit NumberedRequests(const Order& order)
        : accounts_(static_cast<std::uint64_t>(order.whole("accounts", 1))), in_order_(order.whole("count", 0) > 0),
          repeat_(order.whole("repeat", 1)), next_(order.whole("from", 1) * repeat_),
          random_(static_cast<std::uint64_t>(now_ns()) | 1) {
        const std::string request = contents_of(order.text("request"));
        const auto hash = request.find('#');
        if (hash == std::string::npos) {
            fail("no request in " + order.text("request"));
        }
        head_ = request.substr(0, hash);
        rest_ = request.substr(hash + 1);
    }
    std::string_view next() override {
        const std::uint64_t number = in_order_ ? static_cast<std::uint64_t>(next_++ / repeat_) : random_number();
        text_ = head_;
        std::array<char, 20> digits;
        const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
        text_.append(digits.data(), end).append(rest_);
        return text_;
    }

private:
    std::uint64_t random_number() {
        random_ ^= random_ << 13;
        random_ ^= random_ >> 7;
        random_ ^= random_ << 17;
        return random_ % accounts_ + 1;
    }

    std::uint64_t accounts_;
    bool in_order_;
    std::int64_t repeat_, next_;
    std::uint64_t random_;
    std::string head_, rest_, text_;
};

// A body in which every ############ is the event's number and every @@@@@@@@@@ the time.
class Pattern {
public:
    explicit Pattern(std::string body) : body_(std::move(body)), numbers_(places(k_number)), times_(places(k_time)) {}
    const std::string& filled(std::int64_t number, std::int64_t time) {
        fill(numbers_, k_number.size(), number);
        fill(times_, k_time.size(), time);
        return body_;
    }

private:
    static constexpr std::string_view k_number = "############";
    static constexpr std::string_view k_time = "@@@@@@@@@@";

    std::vector<std::size_t> places(std::string_view mark) const {
        std::vector<std::size_t> found;
        for (auto at = body_.find(mark); at != std::string::npos; at = body_.find(mark, at + mark.size())) {
            found.push_back(at);
        }
        return found;
    }
    void fill(const std::vector<std::size_t>& places, std::size_t width, std::int64_t value) {
        std::string digits = std::to_string(value);
        digits.insert(0, width - digits.size(), '0');
        for (const std::size_t place : places) {
            body_.replace(place, width, digits);
        }
    }

    std::string body_;
    std::vector<std::size_t> numbers_, times_;
};

class SignedEvents : public Requests {
public:
    explicit SignedEvents(const Order& order)
        : path_(order.text("path")), secret_(order.text("secret")), next_(order.whole("from", 1)) {
        std::istringstream files{order.text("events")};
        for (std::string file; std::getline(files, file, ',');) {
            patterns_.emplace_back(contents_of(file));
        }
    }
    std::string_view next() override {
        const std::int64_t now = std::time(nullptr);
        const auto number = next_++;
        const std::string& body = patterns_[static_cast<std::size_t>(number) % patterns_.size()].filled(number, now);
        const std::string time = std::to_string(now);
        text_ =
            "POST " + path_ +
            " HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)\r\n"
            "Accept: */*; q=0.5, application/xml\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: " +
            std::to_string(body.size()) + "\r\nStripe-Signature: t=" + time + ",v1=";
        sign(time + "." + body);
        text_.append("\r\n\r\n").append(body);
        return text_;
    }

private:
    void sign(const std::string& what) {
        std::array<unsigned char, EVP_MAX_MD_SIZE> bytes;
        unsigned int size = 0;
        HMAC(EVP_sha256(), secret_.data(), static_cast<int>(secret_.size()),
             reinterpret_cast<const unsigned char*>(what.data()), what.size(), bytes.data(), &size);
        constexpr std::string_view digits = "0123456789abcdef";
        for (std::size_t i = 0; i < size; ++i) {
            text_ += digits[bytes[i] >> 4];
            text_ += digits[bytes[i] & 15];
        }
    }

    std::string path_, secret_, text_;
    std::int64_t next_;
    std::vector<Pattern> patterns_;
};

inline std::unique_ptr<Requests> requests_of(const Order& order) {
    if (order.text("events").empty()) {
        return std::make_unique<NumberedRequests>(order);
    }
    return std::make_unique<SignedEvents>(order);
}
