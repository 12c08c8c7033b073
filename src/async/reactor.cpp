// The list of posted work and the timer's bookkeeping, the same for every Reactor. Called by the loop's one thread.
#include "async/reactor.hpp"

namespace billing {

void Ready::unpost() noexcept {
    if (!next_)
        return;
    prev_->next_ = next_;
    next_->prev_ = prev_;
    prev_ = next_ = nullptr;
}

ReadyList::ReadyList() noexcept { init(head_); }

ReadyList::~ReadyList() { close(head_); }

void ReadyList::init(Head& head) noexcept { head.prev_ = head.next_ = &head; }

// Nothing stays linked to a list which is gone.
void ReadyList::close(Head& head) noexcept {
    while (head.next_ != &head)
        head.next_->unpost();
    head.prev_ = head.next_ = nullptr;
}

bool ReadyList::push(Ready& ready) noexcept {
    if (ready.posted())
        return false;
    ready.prev_ = head_.prev_;
    ready.next_ = &head_;
    head_.prev_->next_ = &ready;
    head_.prev_ = &ready;
    return true;
}

void ReadyList::run_batch() noexcept {
    if (empty())
        return;
    // The batch hangs on a list of its own: members destroyed while it runs unlink themselves from there.
    Head batch;
    batch.next_ = head_.next_;
    batch.prev_ = head_.prev_;
    batch.next_->prev_ = &batch;
    batch.prev_->next_ = &batch;
    init(head_);
    while (batch.next_ != &batch) {
        Ready& ready = *batch.next_;
        ready.unpost();
        ready.run();
    }
    close(batch);
}

Timer::~Timer() {
    if (reactor_)
        reactor_->disarm(*this);
}

void Reactor::arm(Timer& timer, std::int64_t ms) noexcept {
    timer.reactor_ = this;
    start_timer(timer, ms > 0 ? ms : 0);
}

void Reactor::disarm(Timer& timer) noexcept {
    if (!timer.reactor_)
        return;
    timer.reactor_ = nullptr;
    stop_timer(timer);
}

void Reactor::fire(Timer& timer) noexcept {
    timer.reactor_ = nullptr;
    timer.on_timer();
}

void Reactor::post(Ready& ready) noexcept {
    const bool first = ready_.empty();
    if (ready_.push(ready) && first)
        wake();
}

} // namespace billing
