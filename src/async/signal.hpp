// A wake-up call for background loops: set() as often as you like, the loop wakes once and looks for its work. Owner:
// who runs the loop; it outlives the waiters and whoever calls set().
#pragma once

#include <coroutine>
#include <cstdint>

#include "async/scope.hpp"

namespace billing {

class Signal {
public:
    explicit Signal(Reactor& reactor) noexcept : reactor_(reactor) {}
    Signal(const Signal&) = delete;
    Signal& operator=(const Signal&) = delete;
    // Nobody may be waiting any more.
    ~Signal() = default;

    // Wakes all who wait now; if nobody waits, the next wait() returns at once. Several calls before the waiter runs
    // are one.
    void set() noexcept;

    class Wait final : public Waiter, private Timer {
    public:
        Wait(Signal& signal, std::int64_t ms) noexcept : Timer(true), signal_(signal), ms_(ms) {}
        ~Wait() override;

        bool await_ready() noexcept;
        template <class Promise>
        void await_suspend(std::coroutine_handle<Promise> frame) noexcept {
            suspend(frame);
            begin();
        }
        bool await_resume() noexcept;

    private:
        friend class Signal;
        void begin() noexcept;
        void unlink() noexcept;
        void on_timer() noexcept override;

        Signal& signal_;
        std::int64_t ms_;
        Wait* prev_ = nullptr;
        Wait* next_ = nullptr;
        bool linked_ = false;
        bool signalled_ = false; // woken by set() and not yet consumed
    };

    // co_await: true if signalled, false after `ms` milliseconds (below 0: no limit). The timer is a background one: a
    // graceful shutdown does not wait for it. A wake-up given to a waiter which is cancelled before it ran goes to the
    // next wait().
    [[nodiscard]] Wait wait(std::int64_t ms) noexcept { return Wait(*this, ms); }

private:
    Reactor& reactor_;
    Wait* first_ = nullptr; // in the order of waiting
    Wait* last_ = nullptr;
    bool pending_ = false;
};

} // namespace billing
