// What is asked within one turn of the loop goes to the store as one statement; and where only so many may be under
// way, what is asked until one of them is answered. Each asker awaits its own answer; the work runs in the worker's
// scope, so it completes though askers go away. Used for snapshots, for quota tokens and for Stripe's events, where a
// batch costs little more than one.
#pragma once

#include <algorithm>
#include <coroutine>
#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "async/scope.hpp"
#include "async/task.hpp"

namespace billing {

template <class Ask, class Answer>
class Batch final : private Ready {
public:
    // One answer for each ask, in the same order; an empty vector says that the store gave none.
    using Work = std::function<Task<std::vector<Answer>>(std::vector<Ask>)>;

    // `scope`: the worker's; cancelled before this object goes. `most`: asks in one statement. `max_waiters`: beyond it
    // an ask is answered with nothing at once. `most_rounds`: statements under way at the same time.
    Batch(Scope& scope, Work work, std::size_t most, std::size_t max_waiters,
          std::size_t most_rounds = std::numeric_limits<std::size_t>::max())
        : scope_(scope), work_(std::move(work)), most_(most), max_waiters_(max_waiters), most_rounds_(most_rounds) {}

    class Join final : public Waiter {
    public:
        Join(Batch& batch, Ask ask) : batch_(batch), ask_(std::move(ask)) {}
        ~Join() override { leave(); }

        bool await_ready() const noexcept { return batch_.full(); }
        template <class Promise>
        void await_suspend(std::coroutine_handle<Promise> frame) {
            suspend(frame);
            batch_.enter(*this);
        }
        // Nothing: the store did not answer, or too many wait.
        std::optional<Answer> await_resume() noexcept { return std::move(answer_); }

    private:
        friend class Batch;

        void leave() noexcept {
            if (seat_ != nullptr) {
                *std::find(seat_->begin(), seat_->end(), this) = nullptr;
                seat_ = nullptr;
                --batch_.waiters_;
            }
        }

        Batch& batch_;
        Ask ask_;
        std::optional<Answer> answer_;
        std::vector<Join*>* seat_ = nullptr; // where it waits: the next round's list or that of a round under way
    };

    [[nodiscard]] Join join(Ask ask) { return Join{*this, std::move(ask)}; }

private:
    // What one statement answers. Lives in the runner's frame; however the runner ends, who still waits is answered.
    class Round {
    public:
        Round(Batch& batch, std::unique_ptr<std::vector<Join*>> joins) : batch_(batch), joins_(std::move(joins)) {
            ++batch_.rounds_;
        }
        Round(const Round&) = delete;
        Round& operator=(const Round&) = delete;
        ~Round() { finish({}); }

        // Of those who are still there. Who leaves later has a null in its place, so that answers keep theirs.
        std::vector<Ask> asks() {
            std::erase(*joins_, nullptr);
            std::vector<Ask> asks;
            for (Join* join : *joins_) {
                asks.push_back(std::move(join->ask_));
            }
            return asks;
        }

        // The next round is first: the store works on it while these are told.
        void finish(std::vector<Answer> answers) noexcept {
            if (!std::exchange(landed_, true)) {
                batch_.landed();
            }
            for (std::size_t index = 0; index < joins_->size(); ++index) {
                Join* join = (*joins_)[index];
                if (join == nullptr) {
                    continue;
                }
                if (index < answers.size()) {
                    join->answer_ = std::move(answers[index]);
                }
                join->leave();
                batch_.scope_.reactor().post(*join);
            }
        }

    private:
        Batch& batch_;
        std::unique_ptr<std::vector<Join*>> joins_;
        bool landed_ = false;
    };

    static Task<void> fly(Batch& batch, std::unique_ptr<Round> round) {
        std::vector<Ask> asks = round->asks();
        if (asks.empty()) {
            co_return;
        }
        std::vector<Answer> answers = co_await batch.work_(std::move(asks));
        round->finish(std::move(answers));
    }

    bool full() const noexcept { return waiters_ >= max_waiters_; }

    void enter(Join& join) {
        if (!next_) {
            next_ = std::make_unique<std::vector<Join*>>();
        }
        next_->push_back(&join);
        join.seat_ = next_.get();
        ++waiters_;
        scope_.reactor().post(*this);
    }

    void landed() noexcept {
        --rounds_;
        if (next_ && !next_->empty()) {
            scope_.reactor().post(*this);
        }
    }

    void run() noexcept override {
        while (next_ && !next_->empty() && rounds_ < most_rounds_) {
            auto joins = std::move(next_);
            if (joins->size() > most_) {
                next_ = std::make_unique<std::vector<Join*>>(joins->begin() + static_cast<std::ptrdiff_t>(most_),
                                                             joins->end());
                joins->resize(most_);
                for (Join* join : *next_) {
                    if (join != nullptr) {
                        join->seat_ = next_.get();
                    }
                }
            }
            scope_.spawn(fly(*this, std::make_unique<Round>(*this, std::move(joins))));
        }
    }

    Scope& scope_;
    Work work_;
    std::size_t most_;
    std::size_t max_waiters_;
    std::size_t most_rounds_;
    std::size_t waiters_ = 0;
    std::size_t rounds_ = 0;
    std::unique_ptr<std::vector<Join*>> next_;
};

} // namespace billing
