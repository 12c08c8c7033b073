// Waiting for a wake-up. Called by background loops (wait) and drivers (set).
#include "async/signal.hpp"

namespace billing {

void Signal::set() noexcept {
    if (!first_) {
        pending_ = true;
        return;
    }
    while (Wait* wait = first_) {
        wait->unlink();
        wait->signalled_ = true;
        reactor_.disarm(*wait);
        reactor_.post(*wait);
    }
}

Signal::Wait::~Wait() {
    unlink();
    if (signalled_)
        signal_.set(); // nobody acted on it
}

bool Signal::Wait::await_ready() noexcept {
    if (!signal_.pending_)
        return false;
    signal_.pending_ = false;
    signalled_ = true;
    return true;
}

void Signal::Wait::begin() noexcept {
    prev_ = signal_.last_;
    (prev_ ? prev_->next_ : signal_.first_) = this;
    signal_.last_ = this;
    linked_ = true;
    if (ms_ >= 0)
        signal_.reactor_.arm(*this, ms_);
}

void Signal::Wait::unlink() noexcept {
    if (!linked_)
        return;
    (prev_ ? prev_->next_ : signal_.first_) = next_;
    (next_ ? next_->prev_ : signal_.last_) = prev_;
    prev_ = next_ = nullptr;
    linked_ = false;
}

bool Signal::Wait::await_resume() noexcept {
    const bool woken = signalled_;
    signalled_ = false;
    return woken;
}

void Signal::Wait::on_timer() noexcept {
    unlink();
    signal_.reactor_.post(*this);
}

} // namespace billing
