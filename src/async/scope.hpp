// Who owns running coroutines from outside: a request has a Scope with one Root, a worker has a Scope with any number
// of spawned background tasks. cancel() destroys the frames where they wait; no line after the co_await runs, only
// destructors.
#pragma once

#include <coroutine>
#include <cstddef>
#include <utility>

#include "async/reactor.hpp"
#include "async/task.hpp"

namespace billing {

class Scope;

// The outermost frame's owner. Lives where the host likes (a request's record); use Root<T>.
class RootBase : public Ready {
public:
    // The coroutine is at its end: take() has the value.
    bool finished() const noexcept { return finished_; }

    // For Waiter: go on with a frame of this root, on this stack.
    void resume(std::coroutine_handle<> frame) noexcept;

protected:
    RootBase() noexcept = default;
    // Leaves its scope.
    ~RootBase() override;
    // abort() if its coroutine is on the stack: a bug in the host.
    void check_suspended() const noexcept;

private:
    friend class Scope;
    friend class PromiseBase;

    // Called from the loop's ready list, with the coroutine at its end and nothing of it on the stack; never when
    // Scope::start() said true. It may cancel the scope and destroy this object.
    virtual void done() noexcept = 0;
    virtual std::coroutine_handle<> frame() const noexcept = 0;
    virtual void enter() noexcept = 0;
    // Destroy the frame (cancellation).
    virtual void drop() noexcept = 0;

    void run() noexcept final { done(); }
    void finish() noexcept;
    void unlink() noexcept;

    Scope* scope_ = nullptr;
    RootBase* prev_ = nullptr;
    RootBase* next_ = nullptr;
    unsigned running_ = 0;
    bool starting_ = false;
    bool finished_ = false;
};

template <class T>
class Root : public RootBase {
public:
    explicit Root(Task<T> task) noexcept : task_(std::move(task)) {}
    ~Root() override {
        check_suspended();
        task_.reset();
    }

    // The value, or rethrows what the coroutine threw. Once, after finished().
    T take() { return task_.frame().promise().take(); }

private:
    std::coroutine_handle<> frame() const noexcept final { return task_.frame(); }
    void enter() noexcept final { task_.frame().promise().begin(this); }
    void drop() noexcept override { task_.reset(); }

    Task<T> task_;
};

class Scope {
public:
    explicit Scope(Reactor& reactor) noexcept : reactor_(reactor) {}
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    ~Scope() { cancel(); }

    // Runs it at once until it first waits. True: it finished already, take() the value, done() will not be called.
    // False: done() will be called from the loop, unless the scope is cancelled before (or was: then nothing runs at
    // all). The root stays in the scope until it is destroyed or the scope is cancelled.
    [[nodiscard]] bool start(RootBase& root) noexcept;

    // The same for a task nobody waits for; the scope owns it. What it throws is logged. False: the scope was
    // cancelled, or memory is out, and the task has been destroyed.
    bool spawn(Task<void> task) noexcept;

    // Destroys every frame and takes nothing more; what is spawned meanwhile (by destructors) is destroyed at once. Not
    // from inside a coroutine of this very scope: that aborts the process. Idempotent.
    void cancel() noexcept;

    bool cancelled() const noexcept { return cancelled_; }
    // Roots and spawned tasks which have not been destroyed.
    std::size_t size() const noexcept { return size_; }
    Reactor& reactor() const noexcept { return reactor_; }

private:
    friend class RootBase;

    Reactor& reactor_;
    RootBase* first_ = nullptr;
    std::size_t size_ = 0;
    bool cancelled_ = false;
};

// Base of every awaiter: lives in the waiting frame, remembers it, and resumes it from the loop once posted. Derived
// destructors detach from whatever they waited for.
class Waiter : public Ready {
protected:
    template <class Promise>
    void suspend(std::coroutine_handle<Promise> frame) noexcept {
        frame_ = frame;
        root_ = frame.promise().root();
    }

private:
    void run() noexcept final { root_->resume(frame_); }

    std::coroutine_handle<> frame_;
    RootBase* root_ = nullptr;
};

} // namespace billing
