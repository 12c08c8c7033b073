// One at a time for each key, in the order of asking: what has begun for a key ends before the next begins. Owner: the
// worker; it outlives who waits and who has a turn.
//
//   Turn turn = co_await turns.take(account);
//   if (!turn) { ... } // too many wait already
#pragma once

#include "async/scope.hpp"

#include <coroutine>
#include <cstddef>
#include <deque>
#include <string>
#include <unordered_map>
#include <utility>

namespace billing {

class Turns;

// Holding it is having the turn; destroying it gives the turn to the next.
class Turn {
public:
    Turn() noexcept = default;
    Turn(Turns& turns, std::string key) noexcept : turns_(&turns), key_(std::move(key)) {}
    Turn(Turn&& other) noexcept : turns_(std::exchange(other.turns_, nullptr)), key_(std::move(other.key_)) {}
    Turn& operator=(Turn&&) = delete;
    ~Turn();

    explicit operator bool() const noexcept { return turns_ != nullptr; }

private:
    Turns* turns_ = nullptr;
    std::string key_;
};

class Turns {
public:
    // `most`: how many may wait for one key; who comes beyond that gets no turn.
    Turns(Reactor& reactor, std::size_t most) noexcept : reactor_(reactor), most_(most) {}
    Turns(const Turns&) = delete;
    Turns& operator=(const Turns&) = delete;

    class Take final : public Waiter {
    public:
        Take(Turns& turns, std::string key) : turns_(turns), key_(std::move(key)) {}
        ~Take() override { turns_.leave(*this); }

        bool await_ready() { return turns_.enter(*this); }
        template <class Promise>
        void await_suspend(std::coroutine_handle<Promise> frame) noexcept {
            suspend(frame);
        }
        Turn await_resume() { return std::exchange(mine_, false) ? Turn{turns_, key_} : Turn{}; }

    private:
        friend class Turns;

        Turns& turns_;
        std::string key_;
        bool mine_ = false; // the turn is this one's, and nobody has been given it yet
    };

    [[nodiscard]] Take take(std::string key) { return Take{*this, std::move(key)}; }

private:
    friend class Turn;

    // True: no need to wait, with a turn or without.
    bool enter(Take& take) {
        const auto [place, first] = queues_.try_emplace(take.key_);
        if (first) {
            take.mine_ = true;
            return true;
        }
        if (place->second.size() >= most_) {
            return true;
        }
        place->second.push_back(&take);
        return false;
    }

    // Of a frame that is destroyed: it waits no more, or was given the turn and will not use it.
    void leave(Take& take) noexcept {
        if (std::exchange(take.mine_, false)) {
            pass_on(take.key_);
            return;
        }
        const auto place = queues_.find(take.key_);
        if (place != queues_.end()) {
            std::erase(place->second, &take);
        }
    }

    void pass_on(const std::string& key) noexcept {
        const auto place = queues_.find(key);
        if (place->second.empty()) {
            queues_.erase(place);
            return;
        }
        Take* next = place->second.front();
        place->second.pop_front();
        next->mine_ = true;
        reactor_.post(*next);
    }

    Reactor& reactor_;
    std::size_t most_;
    std::unordered_map<std::string, std::deque<Take*>> queues_; // of keys whose turn is taken: who waits
};

inline Turn::~Turn() {
    if (turns_ != nullptr) {
        turns_->pass_on(key_);
    }
}

} // namespace billing
