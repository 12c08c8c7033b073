// Promise guarded: for one key there is one piece of work under way and all who ask share its value; no waiter hangs,
// whoever is cancelled, fails, comes too late or comes too many.
#include <stdexcept>
#include <string>

#include "async/signal.hpp"
#include "async/single_flight.hpp"
#include "async/sleep.hpp"
#include "loop.hpp"

namespace billing {
namespace {

using test::LoopTest;
using Flights = SingleFlight<std::string, int>;

struct AsyncSingleFlight : LoopTest {
    AsyncSingleFlight()
        : gate(reactor), worker(reactor), flights(
                                              worker, [this](std::string key) { return work(std::move(key)); }, 8) {}
    void close() override { worker.cancel(); }

    Task<int> work(std::string key) {
        ++started;
        if (key == "throws")
            throw std::runtime_error("no");
        if (key != "now") {
            const bool opened = co_await gate.wait(5000);
            EXPECT_TRUE(opened);
        }
        co_return static_cast<int>(key.size());
    }
    Task<> ask(std::string key, std::int64_t timeout_ms) {
        Joined<int> joined = co_await flights.join(key, timeout_ms);
        got.push_back(joined);
    }
    int count(FlightOutcome outcome) const {
        return static_cast<int>(
            std::count_if(got.begin(), got.end(), [&](const auto& one) { return one.outcome == outcome; }));
    }

    Signal gate;
    Scope worker;
    Flights flights;
    int started = 0;
    std::vector<Joined<int>> got;
};

TEST_F(AsyncSingleFlight, ManyAskersShareOneRunAndOneValue) {
    for (int i = 0; i < 5; ++i)
        scope->spawn(ask("abc", 1000));
    scope->spawn(ask("other", 1000));
    EXPECT_EQ(started, 2);
    EXPECT_EQ(flights.waiters(), 6U);
    gate.set();
    EXPECT_TRUE(until([&] { return got.size() == 6; }));
    EXPECT_EQ(count(FlightOutcome::value), 6);
    EXPECT_EQ(*got[0].value, 3);
    EXPECT_EQ(got[0].value, got[4].value);
    EXPECT_EQ(flights.under_way(), 0U);
    scope->spawn(ask("abc", 1000)); // nothing is kept: asked again, done again
    EXPECT_EQ(started, 3);
}

TEST_F(AsyncSingleFlight, WorkWhichDoesNotWaitAnswersAtOnce) {
    scope->spawn(ask("now", 1000));
    ASSERT_EQ(got.size(), 1U);
    EXPECT_EQ(*got[0].value, 3);
    EXPECT_EQ(reactor.timers(), 0U);
}

TEST_F(AsyncSingleFlight, WorkLivesOnWhenTheFirstAskerIsCancelled) {
    Scope first(reactor);
    first.spawn(ask("abc", 1000));
    scope->spawn(ask("abc", 1000));
    first.cancel();
    EXPECT_EQ(flights.waiters(), 1U);
    gate.set();
    EXPECT_TRUE(until([&] { return got.size() == 1; }));
    EXPECT_EQ(*got[0].value, 3);
    EXPECT_EQ(started, 1);
}

TEST_F(AsyncSingleFlight, WorkLandsThoughNobodyWaitsAnyMore) {
    scope->spawn(ask("abc", 1000));
    scope->cancel();
    EXPECT_EQ(flights.under_way(), 1U);
    gate.set();
    EXPECT_TRUE(until([&] { return flights.under_way() == 0; }));
    EXPECT_TRUE(got.empty());
}

TEST_F(AsyncSingleFlight, WhoWaitsTooLongIsToldAndTheWorkGoesOn) {
    scope->spawn(ask("abc", 5));
    EXPECT_EQ(reactor.foreground_timers(), 1U); // a request holds a graceful shutdown
    scope->spawn(ask("abc", 1000));
    EXPECT_TRUE(until([&] { return got.size() == 1; }));
    EXPECT_EQ(got[0].outcome, FlightOutcome::timed_out);
    gate.set();
    EXPECT_TRUE(until([&] { return got.size() == 2; }));
    EXPECT_EQ(got[1].outcome, FlightOutcome::value);
}

TEST_F(AsyncSingleFlight, WorkWhichThrowsFailsItsWaitersAndIsForgotten) {
    scope->spawn(ask("throws", 1000));
    ASSERT_EQ(got.size(), 1U);
    EXPECT_EQ(got[0].outcome, FlightOutcome::failed);
    EXPECT_EQ(flights.under_way(), 0U);
}

TEST_F(AsyncSingleFlight, TooManyWaitersAreAnsweredAtOnce) {
    for (int i = 0; i < 10; ++i)
        scope->spawn(ask("abc", 1000));
    EXPECT_EQ(count(FlightOutcome::too_many), 2);
    EXPECT_EQ(flights.waiters(), 8U);
    gate.set();
    EXPECT_TRUE(until([&] { return got.size() == 10; }));
    EXPECT_EQ(count(FlightOutcome::value), 8);
}

TEST_F(AsyncSingleFlight, WorkUnderWayIsBoundedThoughItsAskersHaveGone) {
    for (int i = 0; i < 10; ++i) {
        Scope request(reactor);
        request.spawn(ask("key" + std::to_string(i), 1000));
    }
    EXPECT_EQ(started, 8);
    EXPECT_EQ(flights.waiters(), 0U);
    EXPECT_EQ(count(FlightOutcome::too_many), 2);
}

TEST_F(AsyncSingleFlight, CancelledWorkerFailsWhoWaitsAndWhoComesLater) {
    scope->spawn(ask("abc", 1000));
    worker.cancel();
    EXPECT_TRUE(until([&] { return got.size() == 1; }));
    EXPECT_EQ(got[0].outcome, FlightOutcome::failed);
    scope->spawn(ask("abc", 1000));
    EXPECT_TRUE(until([&] { return got.size() == 2; }));
    EXPECT_EQ(got[1].outcome, FlightOutcome::failed);
    EXPECT_EQ(flights.under_way(), 0U);
}

TEST_F(AsyncSingleFlight, WaitersMayBeCancelledAfterTheAnswerWasPosted) {
    scope->spawn(ask("abc", 1000));
    gate.set();
    // Resume the work only: its answer is posted, the waiter has not run yet.
    EXPECT_TRUE(until([&] { return flights.under_way() == 0; }));
    scope->cancel();
    settle();
    EXPECT_TRUE(got.empty());
}

} // namespace
} // namespace billing
