// Many ask for the same key, one does the work: the first join() starts it in the worker's scope, so it lives on when
// that caller goes away; all who join meanwhile share the value. Used for loading snapshots in a worker.
#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include "async/scope.hpp"
#include "async/task.hpp"

namespace billing {

enum class FlightOutcome {
    value,     // the work's result
    too_many,  // the bound on waiters (or on keys under way) is reached; answered at once
    timed_out, // not ready in time; the work goes on
    failed,    // the work threw, or its scope was cancelled
};

template <class Value>
struct Joined {
    FlightOutcome outcome = FlightOutcome::failed;
    std::shared_ptr<const Value> value; // set exactly if outcome is value; shared by all who waited

    explicit operator bool() const noexcept { return outcome == FlightOutcome::value; }
};

template <class Key, class Value, class Hash = std::hash<Key>>
class SingleFlight {
public:
    using Work = std::function<Task<Value>(Key)>;

    // `scope`: the worker's, where the work runs. It is cancelled before this object goes; this object outlives all
    // waiters. `max_waiters`: bound on those who wait (all keys together) and on keys under way.
    SingleFlight(Scope& scope, Work work, std::size_t max_waiters)
        : scope_(scope), work_(std::move(work)), max_waiters_(max_waiters) {}
    SingleFlight(const SingleFlight&) = delete;
    SingleFlight& operator=(const SingleFlight&) = delete;

    class Join;
    // co_await -> Joined<Value>. `timeout_ms` below 0: no limit. A caller which is cancelled just leaves.
    [[nodiscard]] Join join(Key key, std::int64_t timeout_ms) { return Join(*this, std::move(key), timeout_ms); }

    std::size_t waiters() const noexcept { return waiters_; }
    std::size_t under_way() const noexcept { return flights_.size(); }

private:
    struct Flight {
        Join* first = nullptr;
        Join* last = nullptr;
    };
    using Flights = std::unordered_map<Key, Flight, Hash>;

    // Lives in the runner's frame: whatever way the runner ends, those who wait get an answer.
    class Landing {
    public:
        Landing(SingleFlight& owner, const Key& key) noexcept : owner_(owner), key_(key) {}
        Landing(const Landing&) = delete;
        Landing& operator=(const Landing&) = delete;
        ~Landing() { owner_.land(key_, value); }

        std::shared_ptr<const Value> value;

    private:
        SingleFlight& owner_;
        const Key& key_;
    };

    static Task<void> fly(SingleFlight& self, Key key) {
        Landing landing(self, key);
        try {
            Value value = co_await self.work_(key);
            landing.value = std::make_shared<const Value>(std::move(value));
        } catch (...) {
            // The waiters learn it as `failed`; why is for the work itself to log.
        }
    }

    void land(const Key& key, const std::shared_ptr<const Value>& value) noexcept;
    // True if the answer is there already.
    bool board(Join& join);

    Scope& scope_;
    Work work_;
    std::size_t max_waiters_;
    std::size_t waiters_ = 0;
    Flights flights_;
};

template <class Key, class Value, class Hash>
class SingleFlight<Key, Value, Hash>::Join final : public Waiter, private Timer {
public:
    Join(SingleFlight& owner, Key key, std::int64_t timeout_ms)
        : owner_(owner), key_(std::move(key)), timeout_ms_(timeout_ms) {}
    ~Join() override { leave(); }

    bool await_ready() { return owner_.board(*this); }
    template <class Promise>
    void await_suspend(std::coroutine_handle<Promise> frame) noexcept {
        suspend(frame);
        suspended_ = true;
        if (timeout_ms_ >= 0)
            reactor().arm(*this, timeout_ms_);
    }
    Joined<Value> await_resume() noexcept { return std::move(joined_); }

private:
    friend class SingleFlight;

    Reactor& reactor() const noexcept { return owner_.scope_.reactor(); }

    void enter(Flight& flight) noexcept {
        flight_ = &flight;
        prev_ = flight.last;
        (prev_ ? prev_->next_ : flight.first) = this;
        flight.last = this;
        ++owner_.waiters_;
    }
    void leave() noexcept {
        if (!flight_)
            return;
        (prev_ ? prev_->next_ : flight_->first) = next_;
        (next_ ? next_->prev_ : flight_->last) = prev_;
        flight_ = nullptr;
        prev_ = next_ = nullptr;
        --owner_.waiters_;
    }
    void answer(FlightOutcome outcome, const std::shared_ptr<const Value>& value) noexcept {
        leave();
        reactor().disarm(*this);
        joined_.outcome = outcome;
        joined_.value = value;
        if (suspended_)
            reactor().post(*this);
    }
    void on_timer() noexcept override { answer(FlightOutcome::timed_out, nullptr); }

    SingleFlight& owner_;
    Key key_;
    std::int64_t timeout_ms_;
    Flight* flight_ = nullptr; // set while waiting; nodes of an unordered_map do not move
    Join* prev_ = nullptr;
    Join* next_ = nullptr;
    bool suspended_ = false;
    Joined<Value> joined_;
};

template <class Key, class Value, class Hash>
void SingleFlight<Key, Value, Hash>::land(const Key& key, const std::shared_ptr<const Value>& value) noexcept {
    auto found = flights_.find(key);
    if (found == flights_.end())
        return;
    const FlightOutcome outcome = value ? FlightOutcome::value : FlightOutcome::failed;
    while (Join* join = found->second.first)
        join->answer(outcome, value);
    flights_.erase(found);
}

template <class Key, class Value, class Hash>
bool SingleFlight<Key, Value, Hash>::board(Join& join) {
    auto found = flights_.find(join.key_);
    const bool first = found == flights_.end();
    if (waiters_ >= max_waiters_ || (first && flights_.size() >= max_waiters_)) {
        join.joined_.outcome = FlightOutcome::too_many;
        return true;
    }
    if (first)
        found = flights_.try_emplace(join.key_).first;
    join.enter(found->second);
    if (!first)
        return false;
    // The frame may not come to be (memory): then nobody would land the flight. A frame which was made but never
    // started (the scope is cancelled) lands nothing either.
    bool spawned = false;
    try {
        Task<void> runner = fly(*this, join.key_);
        spawned = scope_.spawn(std::move(runner));
    } catch (...) {
        spawned = false;
    }
    if (!spawned)
        land(join.key_, nullptr);
    return join.flight_ == nullptr;
}

} // namespace billing
