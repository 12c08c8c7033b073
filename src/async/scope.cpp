// Starting and destroying coroutines from outside. Called by the hosts (nginx, the command) and by single flights.
#include "async/scope.hpp"

#include <cstdlib>
#include <exception>
#include <new>
#include <string>

namespace billing {

void RootBase::resume(std::coroutine_handle<> frame) noexcept {
    ++running_;
    frame.resume();
    --running_; // this is alive: whoever destroys a root while it runs aborts
}

void RootBase::finish() noexcept {
    finished_ = true;
    if (!starting_ && scope_)
        scope_->reactor().post(*this);
}

void RootBase::check_suspended() const noexcept {
    if (running_ != 0)
        std::abort();
}

void RootBase::unlink() noexcept {
    if (!scope_)
        return;
    (prev_ ? prev_->next_ : scope_->first_) = next_;
    if (next_)
        next_->prev_ = prev_;
    --scope_->size_;
    scope_ = nullptr;
    prev_ = next_ = nullptr;
}

RootBase::~RootBase() {
    check_suspended();
    unlink();
}

bool Scope::start(RootBase& root) noexcept {
    if (cancelled_) {
        root.drop();
        return false;
    }
    root.scope_ = this;
    root.next_ = first_;
    if (first_)
        first_->prev_ = &root;
    first_ = &root;
    ++size_;

    root.enter();
    root.starting_ = true;
    root.resume(root.frame());
    root.starting_ = false;
    return root.finished_;
}

namespace {

// A task nobody waits for: owns itself.
class Spawned final : public Root<void> {
public:
    Spawned(Task<void> task, Reactor& reactor) noexcept : Root<void>(std::move(task)), reactor_(reactor) {}

    void done() noexcept override {
        try {
            take();
        } catch (const std::exception& error) {
            complain(error.what());
        } catch (...) {
            complain("unknown exception");
        }
        delete this;
    }

private:
    void drop() noexcept override {
        check_suspended();
        delete this;
    }

    void complain(const char* what) noexcept {
        try {
            reactor_.log(LogLevel::error, std::string("billing: a background task ended by an exception: ") + what);
        } catch (...) {
            reactor_.log(LogLevel::error, "billing: a background task ended by an exception");
        }
    }

    Reactor& reactor_;
};

} // namespace

bool Scope::spawn(Task<void> task) noexcept {
    if (cancelled_)
        return false;
    auto* spawned = new (std::nothrow) Spawned(std::move(task), reactor_);
    if (!spawned)
        return false;
    if (start(*spawned))
        spawned->done();
    return true;
}

void Scope::cancel() noexcept {
    cancelled_ = true;
    while (RootBase* root = first_) {
        root->check_suspended();
        root->unlink();
        root->unpost();
        root->drop();
    }
}

} // namespace billing
