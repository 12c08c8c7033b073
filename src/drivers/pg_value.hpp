// What goes into a PostgreSQL statement and what comes out of it. Values; no connection is needed to make or read them.
// Used by state/ (every SQL statement is there) and by the tests.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

struct pg_result; // libpq

namespace billing {

// Parameters $1, $2, ... in text form, but for bytes. The server infers their types: where it cannot (unnest,
// overloads), the SQL says $1::bigint[]. Copies what it is given.
class PgParams {
public:
    PgParams() = default;
    // PgParams(account, 7, true, nullptr): as a chain of add().
    template <class First, class... Rest>
    requires(!std::same_as<std::remove_cvref_t<First>, PgParams>) explicit PgParams(const First& first,
                                                                                    const Rest&... rest) {
        add(first);
        (add(rest), ...);
    }

    PgParams& add(std::string_view text);
    PgParams& add(const char* text) { return add(std::string_view(text)); }
    PgParams& add(const std::string& text) { return add(std::string_view(text)); }
    PgParams& add(std::nullptr_t); // NULL
    PgParams& add(std::nullopt_t) { return add(nullptr); }
    PgParams& add(bool value) { return add(std::string_view(value ? "t" : "f")); }
    template <std::integral Int>
    requires(!std::same_as<Int, bool> && !std::same_as<Int, char>) PgParams& add(Int value) {
        return add(std::string_view(std::to_string(value)));
    }
    template <class T>
    PgParams& add(const std::optional<T>& value) {
        return value ? add(*value) : add(nullptr);
    }
    // Arrays, for bigint[], integer[], smallint[], boolean[], text[].
    PgParams& add(std::span<const std::int64_t> values);
    PgParams& add(std::span<const std::int32_t> values);
    PgParams& add(std::span<const std::int16_t> values);
    PgParams& add(std::span<const std::string> values);
    PgParams& add(std::span<const std::optional<std::string>> values); // nullopt: NULL
    template <class T>
    PgParams& add(const std::vector<T>& values) {
        return add(std::span<const T>(values));
    }

    // For bytea alone, as they are.
    PgParams& add_bytes(std::string_view bytes);

    std::size_t size() const noexcept { return starts_.size(); }
    // A text held a zero byte, which PostgreSQL has no place for: the query is refused (22021) without being sent.
    bool has_zero_byte() const noexcept { return zero_byte_; }
    // For the driver: one pointer each, nullptr for NULL; valid while this object is unchanged.
    std::vector<const char*> pointers() const;
    // The same of their lengths and formats (1: binary), as libpq has them; empty where all is text.
    std::vector<int> lengths() const;
    std::vector<int> formats() const;

private:
    static constexpr std::size_t k_null = static_cast<std::size_t>(-1);

    std::string bytes_; // each value ends with a zero byte
    std::vector<std::size_t> starts_;
    std::vector<std::pair<std::size_t, int>> binary_; // which, and how long
    bool zero_byte_ = false;
};

enum class PgOutcome {
    ok,
    refused,     // an SQL error: sqlstate(), message(); nothing was changed
    unavailable, // never sent
    lost,        // sent, and no answer: it may or may not have been carried out
};

class PgResult {
public:
    PgResult() noexcept = default; // lost, without a message
    PgResult(PgOutcome outcome, std::string message) : outcome_(outcome), message_(std::move(message)) {}
    static PgResult refused(std::string sqlstate, std::string message);
    // Takes over a libpq result which is no libpq-made error: ok or refused.
    explicit PgResult(pg_result* result);

    PgOutcome outcome() const noexcept { return outcome_; }
    bool ok() const noexcept { return outcome_ == PgOutcome::ok; }
    explicit operator bool() const noexcept { return ok(); }

    // Five characters, empty unless refused.
    std::string_view sqlstate() const noexcept { return sqlstate_; }
    // Why it is not ok, one line: the server's primary message, or the connection's state. Never holds a password.
    const std::string& message() const noexcept { return message_; }

    int rows() const noexcept;
    int columns() const noexcept;
    // Out of range is like NULL. Views live as long as this result.
    bool is_null(int row, int column) const noexcept;
    std::string_view text(int row, int column) const noexcept; // "" for NULL
    std::int64_t integer(int row, int column) const noexcept;  // 0 for NULL and for what is no integer
    bool boolean(int row, int column) const noexcept;          // false for NULL
    std::optional<std::int64_t> maybe_integer(int row, int column) const noexcept;
    std::string bytes(int row, int column) const; // of encode(..., 'hex')
    // Rows changed by INSERT, UPDATE, DELETE, MERGE; 0 else.
    std::int64_t affected() const noexcept;

private:
    struct Clear {
        void operator()(pg_result* result) const noexcept;
    };

    PgOutcome outcome_ = PgOutcome::lost;
    std::string sqlstate_;
    std::string message_;
    std::unique_ptr<pg_result, Clear> result_;
};

} // namespace billing
