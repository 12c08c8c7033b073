// What goes to Redis and what comes back. Values; no connection is needed. Used by state/ and by the tests.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

struct redisReply; // hiredis

namespace billing {

// A command and its arguments, binary safe: RedisArgs("HGET", key, "body"). Copies what it is given.
class RedisArgs {
public:
    RedisArgs() = default;
    template <class First, class... Rest>
    requires(!std::same_as<std::remove_cvref_t<First>, RedisArgs>) explicit RedisArgs(const First& first,
                                                                                      const Rest&... rest) {
        add(first);
        (add(rest), ...);
    }

    RedisArgs& add(std::string_view text);
    RedisArgs& add(const char* text) { return add(std::string_view(text)); }
    RedisArgs& add(const std::string& text) { return add(std::string_view(text)); }
    template <std::integral Int>
    requires(!std::same_as<Int, bool> && !std::same_as<Int, char>) RedisArgs& add(Int value) {
        return add(std::string_view(std::to_string(value)));
    }
    RedisArgs& add(const std::vector<std::string>& texts);

    std::size_t size() const noexcept { return ends_.size(); }
    std::string_view operator[](std::size_t i) const noexcept;

private:
    std::string bytes_;
    std::vector<std::size_t> ends_;
};

enum class RedisKind {
    nil,
    status, // "OK"
    string,
    integer,
    array,
    error,       // Redis refused the command: text()
    unavailable, // never sent
    lost,        // sent, and no answer: it may or may not have been carried out
};

// A reply, owned, as a tree.
class RedisReply {
public:
    RedisReply() noexcept = default; // lost
    RedisReply(RedisKind kind, std::string text) : kind_(kind), text_(std::move(text)) {}
    static RedisReply copy(const redisReply& reply);

    RedisKind kind() const noexcept { return kind_; }
    // Redis answered, and not with an error; nil is an answer.
    bool ok() const noexcept { return kind_ < RedisKind::error; }
    explicit operator bool() const noexcept { return ok(); }
    bool is_nil() const noexcept { return kind_ == RedisKind::nil; }
    bool is_array() const noexcept { return kind_ == RedisKind::array; }
    bool is_error() const noexcept { return kind_ == RedisKind::error; }

    // status, string: the bytes. error, unavailable, lost: why. Else "".
    const std::string& text() const noexcept { return text_; }
    // integer: the value. Else 0.
    std::int64_t integer() const noexcept { return integer_; }
    // array: its elements. Else 0; out of range is a nil.
    std::size_t size() const noexcept { return elements_.size(); }
    const RedisReply& operator[](std::size_t i) const noexcept;
    const std::vector<RedisReply>& elements() const noexcept { return elements_; }

private:
    RedisKind kind_ = RedisKind::lost;
    std::int64_t integer_ = 0;
    std::string text_;
    std::vector<RedisReply> elements_;
};

// A Lua script and its SHA-1, which EVALSHA names it by. Make it once.
class RedisScript {
public:
    explicit RedisScript(std::string_view source);
    const std::string& source() const noexcept { return source_; }
    const std::string& sha1() const noexcept { return sha1_; }

private:
    std::string source_;
    std::string sha1_; // 40 hex digits
};

} // namespace billing
