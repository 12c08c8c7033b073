// A value or the reason why there is none. The project returns errors as values; nothing throws across a C callback.
#pragma once

#include <string>
#include <utility>
#include <variant>

namespace billing {

// What went wrong, in words for the operator: what, where, and what to do instead. Never holds a secret.
struct Error {
    std::string message;
};

template <class T>
class [[nodiscard]] Result {
public:
    Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
    Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

    bool ok() const noexcept { return state_.index() == 0; }
    explicit operator bool() const noexcept { return ok(); }

    // Only after ok() said true.
    T& value() & { return std::get<0>(state_); }
    const T& value() const& { return std::get<0>(state_); }
    T&& value() && { return std::get<0>(std::move(state_)); }

    // Only after ok() said false.
    const std::string& error() const { return std::get<1>(state_).message; }

private:
    std::variant<T, Error> state_;
};

// Success carries nothing.
struct Done {};

} // namespace billing
