// The list of live frames and the end of a coroutine. Called by the one thread which runs coroutines.
#include "async/task.hpp"

#include "async/scope.hpp"

namespace billing {

namespace {
constinit Frame* g_newest = nullptr;
constinit std::size_t g_live = 0;
} // namespace

Frame::Frame() noexcept : next_(g_newest) {
    if (g_newest)
        g_newest->prev_ = this;
    g_newest = this;
    ++g_live;
}

Frame::~Frame() {
    (prev_ ? prev_->next_ : g_newest) = next_;
    if (next_)
        next_->prev_ = prev_;
    --g_live;
}

std::size_t frames_live() noexcept { return g_live; }

const Frame* frames_first() noexcept { return g_newest; }

std::coroutine_handle<> PromiseBase::finish() noexcept {
    if (awaiter_)
        return awaiter_;
    // Nobody is suspended on it: it is a root's own frame, or it finished inside its awaiter's await_suspend().
    if (outermost_)
        root_->finish();
    return std::noop_coroutine();
}

} // namespace billing
