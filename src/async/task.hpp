// Task<T>: a lazy coroutine which owns its frame. Awaiting it runs it at once, on the awaiter's stack, until it waits
// for something real; destroying it destroys the frame and whatever the frame waits for (that is cancellation: nothing
// is resumed). Used by everything slow in the module and the command; started from outside by Scope (scope.hpp).
#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <optional>
#include <source_location>
#include <type_traits>
#include <utility>

namespace billing {

class RootBase;

// Every live frame of the process is in one list: for the leak assertion and for debugging.
class Frame {
public:
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;

    // The coroutine's own name and line.
    const std::source_location& where() const noexcept { return where_; }
    const Frame* next() const noexcept { return next_; }

protected:
    Frame() noexcept;
    ~Frame();
    void name(const std::source_location& where) noexcept { where_ = where; }

private:
    Frame* prev_ = nullptr;
    Frame* next_ = nullptr;
    std::source_location where_{};
};

// Number of coroutine frames alive in this process; 0 once every scope has been cancelled.
std::size_t frames_live() noexcept;
// The newest of them, nullptr if none; go on with next().
const Frame* frames_first() noexcept;

template <class T = void>
class Task;

// What every promise has: who continues, which root it runs under, what was thrown.
class PromiseBase : public Frame {
public:
    std::suspend_always initial_suspend() const noexcept { return {}; }

    struct Final {
        bool await_ready() const noexcept { return false; }
        template <class Promise>
        std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> self) const noexcept {
            return self.promise().finish();
        }
        void await_resume() const noexcept {}
    };
    Final final_suspend() const noexcept { return {}; }

    void unhandled_exception() noexcept { error_ = std::current_exception(); }

    // The root under which this frame runs; set from the first resume on.
    RootBase* root() const noexcept { return root_; }
    void run_under(RootBase* root) noexcept { root_ = root; }
    // It is the root's own frame: its end is the root's end.
    void begin(RootBase* root) noexcept {
        root_ = root;
        outermost_ = true;
    }
    void continue_with(std::coroutine_handle<> awaiter) noexcept { awaiter_ = awaiter; }

protected:
    void rethrow() const {
        if (error_)
            std::rethrow_exception(error_);
    }

private:
    std::coroutine_handle<> finish() noexcept;

    std::coroutine_handle<> awaiter_;
    RootBase* root_ = nullptr;
    std::exception_ptr error_;
    bool outermost_ = false;
};

template <class T>
class Promise final : public PromiseBase {
public:
    Task<T> get_return_object(std::source_location where = std::source_location::current()) noexcept;

    template <class U>
    requires std::is_constructible_v<T, U&&>
    void return_value(U&& value) { value_.emplace(std::forward<U>(value)); }

    // The value, moved out, or the exception. Once, after the coroutine has finished.
    T take() {
        rethrow();
        return std::move(*value_);
    }

private:
    std::optional<T> value_;
};

template <>
class Promise<void> final : public PromiseBase {
public:
    Task<void> get_return_object(std::source_location where = std::source_location::current()) noexcept;
    void return_void() const noexcept {}
    void take() const { rethrow(); }
};

template <class T>
class [[nodiscard]] Task {
public:
    using promise_type = Promise<T>;
    using Handle = std::coroutine_handle<promise_type>;

    Task() noexcept = default;
    explicit Task(Handle frame) noexcept : frame_(frame) {}
    Task(Task&& other) noexcept : frame_(std::exchange(other.frame_, nullptr)) {}
    Task& operator=(Task&& other) noexcept {
        if (this != &other) {
            reset();
            frame_ = std::exchange(other.frame_, nullptr);
        }
        return *this;
    }
    ~Task() { reset(); }

    explicit operator bool() const noexcept { return static_cast<bool>(frame_); }
    // Destroy the frame. It must be suspended.
    void reset() noexcept {
        if (frame_)
            std::exchange(frame_, nullptr).destroy();
    }
    // For Root.
    Handle frame() const noexcept { return frame_; }

    class Awaiter {
    public:
        explicit Awaiter(Handle child) noexcept : child_(child) {}
        Awaiter(const Awaiter&) = delete;
        Awaiter& operator=(const Awaiter&) = delete;

        bool await_ready() const noexcept { return false; }
        // Started on this stack: no symmetric transfer (which overflows in loops at -O0), no trip through the loop.
        template <class Parent>
        bool await_suspend(std::coroutine_handle<Parent> parent) const noexcept {
            if (!child_)
                std::abort(); // an empty or moved-from Task was awaited
            child_.promise().run_under(parent.promise().root());
            child_.resume();
            if (child_.done())
                return false;
            child_.promise().continue_with(parent);
            return true;
        }
        T await_resume() const { return child_.promise().take(); }

    private:
        Handle child_;
    };

    // co_await make_task(...), or co_await std::move(task). Once.
    Awaiter operator co_await() && noexcept { return Awaiter(frame_); }

private:
    Handle frame_;
};

template <class T>
Task<T> Promise<T>::get_return_object(std::source_location where) noexcept {
    name(where);
    return Task<T>(std::coroutine_handle<Promise<T>>::from_promise(*this));
}

inline Task<void> Promise<void>::get_return_object(std::source_location where) noexcept {
    name(where);
    return Task<void>(std::coroutine_handle<Promise<void>>::from_promise(*this));
}

} // namespace billing
