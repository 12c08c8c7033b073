// Promise guarded: a coroutine runs at once until it really waits, its value and its exceptions come out, and
// cancelling destroys frames where they wait: destructors run, code after the await does not, nothing is left.
#include <stdexcept>
#include <string>

#include "async/sleep.hpp"
#include "loop.hpp"

namespace billing {
namespace {

using test::LoopTest;

struct AsyncTask : LoopTest {};
using AsyncTaskDeathTest = AsyncTask;

Task<int> immediate(int value) { co_return value; }

Task<int> after_sleep(Reactor& reactor, int value) {
    co_await sleep_for(reactor, 1);
    co_return value;
}

Task<int> sum(Reactor& reactor) {
    const int a = co_await immediate(1);
    const int b = co_await after_sleep(reactor, 2);
    const int c = co_await immediate(3);
    co_return a + b + c;
}

template <class T>
struct Watched final : Root<T> {
    using Root<T>::Root;
    void done() noexcept override { ++dones; }
    int dones = 0;
};

TEST_F(AsyncTask, ValueComesThroughSynchronousAndWaitingChildren) { EXPECT_EQ(await(sum(reactor)), 6); }

TEST_F(AsyncTask, LazyTaskDoesNotRunUntilItIsAwaited) {
    bool ran = false;
    auto body = [](bool& flag) -> Task<> {
        flag = true;
        co_return;
    };
    {
        Task<> never = body(ran);
        EXPECT_EQ(frames_live(), 1U);
        EXPECT_FALSE(ran);
    }
    EXPECT_EQ(frames_live(), 0U);
    await(body(ran));
    EXPECT_TRUE(ran);
}

TEST_F(AsyncTask, MillionSynchronousAwaitsNeedNoStack) {
    auto loop = []() -> Task<long> {
        long total = 0;
        for (int i = 0; i < 1000000; ++i)
            total += co_await immediate(1);
        co_return total;
    };
    EXPECT_EQ(await(loop()), 1000000);
}

Task<int> thrower(Reactor& reactor, bool wait) {
    if (wait)
        co_await sleep_for(reactor, 1);
    throw std::runtime_error("deep");
}

Task<int> passes_on(Reactor& reactor, bool wait) {
    const int value = co_await thrower(reactor, wait);
    co_return value;
}

TEST_F(AsyncTask, ExceptionCrossesTwoCoroutinesToWhoTakesTheValue) {
    EXPECT_THROW(await(passes_on(reactor, false)), std::runtime_error);
    EXPECT_THROW(await(passes_on(reactor, true)), std::runtime_error);
}

TEST_F(AsyncTask, MoveOnlyValueIsMovedOut) {
    auto make = []() -> Task<std::unique_ptr<int>> { co_return std::make_unique<int>(7); };
    auto outer = [&make]() -> Task<int> {
        std::unique_ptr<int> value = co_await make();
        co_return *value;
    };
    EXPECT_EQ(await(outer()), 7);
}

TEST_F(AsyncTask, FramesKnowTheirFunction) {
    Task<int> task = sum(reactor);
    ASSERT_NE(frames_first(), nullptr);
    EXPECT_NE(std::string(frames_first()->where().function_name()).find("sum"), std::string::npos);
}

TEST_F(AsyncTask, StartSaysTrueIfItFinishedAtOnceAndDoneIsNotCalled) {
    Watched<int> root(immediate(4));
    EXPECT_TRUE(scope->start(root));
    settle();
    EXPECT_EQ(root.dones, 0);
    EXPECT_EQ(root.take(), 4);
}

TEST_F(AsyncTask, DoneIsCalledOnceFromTheLoop) {
    Watched<int> root(sum(reactor));
    EXPECT_FALSE(scope->start(root));
    EXPECT_TRUE(until([&] { return root.dones > 0; }));
    settle();
    EXPECT_EQ(root.dones, 1);
    EXPECT_EQ(root.take(), 6);
}

TEST_F(AsyncTask, RootMayCancelItsScopeAndDieInDone) {
    struct Suicidal final : Root<int> {
        Suicidal(Task<int> task, std::unique_ptr<Scope>& own) : Root<int>(std::move(task)), owner(own) {}
        void done() noexcept override {
            owner->cancel();
            delete this;
        }
        std::unique_ptr<Scope>& owner;
    };
    EXPECT_FALSE(scope->start(*new Suicidal(sum(reactor), scope)));
    EXPECT_TRUE(until([&] { return scope->cancelled(); }));
    EXPECT_EQ(frames_live(), 0U);
}

struct Note {
    explicit Note(int& count) : counter(count) {}
    Note(const Note&) = delete;
    Note& operator=(const Note&) = delete;
    ~Note() { ++counter; }
    int& counter;
};

Task<> inner_wait(Reactor& reactor, int& destroyed, int& after) {
    const Note note(destroyed);
    co_await sleep_for(reactor, 20);
    ++after;
}

Task<> outer_wait(Reactor& reactor, int& destroyed, int& after) {
    const Note note(destroyed);
    co_await inner_wait(reactor, destroyed, after);
    ++after;
}

TEST_F(AsyncTask, CancelRunsDestructorsAndNothingAfterTheAwait) {
    int destroyed = 0;
    int after = 0;
    ASSERT_TRUE(scope->spawn(outer_wait(reactor, destroyed, after)));
    EXPECT_EQ(scope->size(), 1U);
    EXPECT_EQ(reactor.timers(), 1U);
    scope->cancel();
    EXPECT_EQ(destroyed, 2);
    EXPECT_EQ(frames_live(), 0U);
    EXPECT_EQ(reactor.timers(), 0U);
    until([] { return false; }, 40);
    EXPECT_EQ(after, 0);
}

TEST_F(AsyncTask, CancelBetweenPostAndResumeDoesNotResume) {
    int destroyed = 0;
    int after = 0;
    // The canceller is posted first and runs in the same batch, before the two which are due.
    struct Canceller final : Ready {
        explicit Canceller(Scope& scope_of_both) : victim(scope_of_both) {}
        void run() noexcept override { victim.cancel(); }
        Scope& victim;
    } canceller(*scope);
    scope->spawn(outer_wait(reactor, destroyed, after));
    scope->spawn(outer_wait(reactor, destroyed, after));
    reactor.post(canceller);
    EXPECT_TRUE(until([&] { return scope->cancelled(); }));
    EXPECT_EQ(destroyed, 4);
    EXPECT_EQ(after, 0);
}

TEST_F(AsyncTask, SpawnedTaskLeavesTheScopeWhenItEndsAndItsExceptionIsLogged) {
    auto body = [](Reactor& loop) -> Task<> {
        const int value = co_await thrower(loop, true);
        (void)value;
    };
    scope->spawn(body(reactor));
    EXPECT_EQ(scope->size(), 1U);
    EXPECT_TRUE(until([&] { return scope->size() == 0; }));
    EXPECT_EQ(logged("ended by an exception: deep"), 1);
}

TEST_F(AsyncTask, CancelledScopeTakesNothingMore) {
    bool ran = false;
    auto body = [](bool& flag) -> Task<> {
        flag = true;
        co_return;
    };
    // A destructor which wants to start something while the scope is being cancelled.
    struct Late {
        ~Late() { accepted = scope.spawn(make()); }
        Scope& scope;
        std::function<Task<>()> make;
        bool& accepted;
    };
    bool accepted = true;
    auto holder = [](Reactor& loop, Scope& owner, std::function<Task<>()> make, bool& result) -> Task<> {
        const Late late{owner, std::move(make), result};
        co_await sleep_for(loop, 1000);
    };
    scope->spawn(holder(
        reactor, *scope, [&] { return body(ran); }, accepted));
    scope->cancel();
    EXPECT_FALSE(accepted);
    EXPECT_FALSE(ran);
}

TEST_F(AsyncTask, CoroutineMayCancelAnotherScope) {
    Scope other(reactor);
    int destroyed = 0;
    int after = 0;
    other.spawn(inner_wait(reactor, destroyed, after));
    auto canceller = [](Reactor& loop, Scope& victim) -> Task<> {
        co_await sleep_for(loop, 1);
        victim.cancel();
    };
    await(canceller(reactor, other));
    EXPECT_EQ(destroyed, 1);
}

TEST_F(AsyncTaskDeathTest, CancellingTheScopeOneRunsInAborts) {
    EXPECT_DEATH(
        {
            auto suicide = [](Scope& own) -> Task<> {
                own.cancel();
                co_return;
            };
            scope->spawn(suicide(*scope));
        },
        "");
}

} // namespace
} // namespace billing
