// co_await sleep_for(reactor, ms): go on later. Used by background loops and tests.
#pragma once

#include <coroutine>
#include <cstdint>

#include "async/scope.hpp"

namespace billing {

class Sleep final : public Waiter, private Timer {
public:
    Sleep(Reactor& reactor, std::int64_t ms, bool in_background) noexcept
        : Timer(in_background), reactor_(reactor), ms_(ms) {}

    bool await_ready() const noexcept { return false; }
    template <class Promise>
    void await_suspend(std::coroutine_handle<Promise> frame) noexcept {
        suspend(frame);
        reactor_.arm(*this, ms_);
    }
    void await_resume() const noexcept {}

private:
    void on_timer() noexcept override { reactor_.post(*this); }

    Reactor& reactor_;
    std::int64_t ms_;
};

// Always gives the loop a turn, even for 0 ms. `background`: a graceful shutdown does not wait for it.
[[nodiscard]] inline Sleep sleep_for(Reactor& reactor, std::int64_t ms, bool background = false) noexcept {
    return Sleep(reactor, ms, background);
}

} // namespace billing
