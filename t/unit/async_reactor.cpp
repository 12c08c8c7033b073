// Promise guarded: the loop calls only what is attached, armed and posted at that moment, whatever callbacks destroy
// meanwhile; and sleeping, signals and their cancellation keep no one waiting for ever and lose no wake-up.
#include <sys/socket.h>
#include <unistd.h>

#include "async/signal.hpp"
#include "async/sleep.hpp"
#include "loop.hpp"

namespace billing {
namespace {

using test::LoopTest;

struct AsyncReactor : LoopTest {};

struct Calls final : Timer {
    Calls(Reactor& reactor, std::vector<int>& calls, int number) : loop(reactor), order(calls), id(number) {}
    void on_timer() noexcept override {
        order.push_back(id);
        if (victim)
            victim->reset();
        if (again_ms >= 0)
            loop.arm(*this, std::exchange(again_ms, -1));
    }
    Reactor& loop;
    std::vector<int>& order;
    int id;
    std::int64_t again_ms = -1;
    std::unique_ptr<Calls>* victim = nullptr;
};

TEST_F(AsyncReactor, TimersFireInTheOrderOfTheirDueTimesAndOnce) {
    std::vector<int> order;
    Calls a(reactor, order, 1), b(reactor, order, 2), c(reactor, order, 3);
    reactor.arm(a, 20);
    reactor.arm(b, 5);
    reactor.arm(c, 10);
    reactor.arm(a, 15); // moved
    EXPECT_TRUE(until([&] { return order.size() == 3; }));
    EXPECT_EQ(order, (std::vector<int>{2, 3, 1}));
    EXPECT_FALSE(a.armed());
}

TEST_F(AsyncReactor, TimerMayRearmItselfAndDestroyAnotherWhichIsDue) {
    std::vector<int> order;
    auto victim = std::make_unique<Calls>(reactor, order, 2);
    Calls killer(reactor, order, 1);
    killer.victim = &victim;
    killer.again_ms = 1;
    reactor.arm(killer, 1);
    reactor.arm(*victim, 1);
    EXPECT_TRUE(until([&] { return order.size() == 2; }));
    EXPECT_EQ(order, (std::vector<int>{1, 1}));
}

struct Echo final : SocketHandler {
    explicit Echo(Reactor& reactor) : loop(reactor) {}
    void on_ready(bool readable, bool writable) noexcept override {
        reads += readable;
        writes += writable;
        if (release && *release)
            loop.release(**release), *release = nullptr;
    }
    void on_shutdown() noexcept override { ++shutdowns; }
    Reactor& loop;
    Socket** release = nullptr;
    int reads = 0, writes = 0, shutdowns = 0;
};

struct Pair {
    Pair() { EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0); }
    ~Pair() {
        ::close(fd[0]);
        ::close(fd[1]);
    }
    int fd[2] = {};
};

TEST_F(AsyncReactor, ReadinessIsReportedAsLongAsItLastsAndOnlyIfWanted) {
    Pair pair;
    Echo echo(reactor);
    Socket* socket = reactor.attach(pair.fd[0], echo);
    ASSERT_NE(socket, nullptr);
    ASSERT_EQ(::write(pair.fd[1], "x", 1), 1);
    settle(2);
    EXPECT_EQ(echo.reads + echo.writes, 0);
    reactor.want(*socket, true, false);
    settle(2);
    EXPECT_EQ(echo.reads, 2);
    EXPECT_EQ(echo.writes, 0);
    reactor.want(*socket, true, true);
    settle(1);
    EXPECT_EQ(echo.writes, 1);
    reactor.release(*socket);
    settle(2);
    EXPECT_EQ(echo.reads, 3);
}

TEST_F(AsyncReactor, LibraryMayCloseItsDescriptorBeforeTheRelease) {
    Pair pair;
    Echo echo(reactor);
    Socket* socket = reactor.attach(pair.fd[0], echo);
    reactor.want(*socket, true, false);
    ::close(pair.fd[0]);
    pair.fd[0] = ::dup(pair.fd[1]); // the number is taken again at once
    settle(2);
    EXPECT_EQ(echo.reads, 0);
    reactor.release(*socket);
}

TEST_F(AsyncReactor, HandlerMayReleaseAnotherSocketWhichIsReadyInTheSameTurn) {
    Pair one, two;
    Echo first(reactor), second(reactor);
    Socket* a = reactor.attach(one.fd[0], first);
    Socket* b = reactor.attach(two.fd[0], second);
    reactor.want(*a, true, false);
    reactor.want(*b, true, false);
    first.release = &b;
    ASSERT_EQ(::write(one.fd[1], "x", 1), 1);
    ASSERT_EQ(::write(two.fd[1], "x", 1), 1);
    settle(1);
    EXPECT_EQ(first.reads, 1);
    EXPECT_EQ(second.reads, 0);
    EXPECT_EQ(b, nullptr);
    reactor.release(*a);
}

TEST_F(AsyncReactor, ShutdownTellsEveryHandler) {
    Pair pair;
    Echo echo(reactor);
    Socket* socket = reactor.attach(pair.fd[0], echo);
    reactor.shutdown();
    EXPECT_EQ(echo.shutdowns, 1);
    reactor.release(*socket);
}

struct Post final : Ready {
    Post(std::vector<int>& calls, int number) : order(calls), id(number) {}
    void run() noexcept override {
        order.push_back(id);
        if (victim)
            victim->reset();
        if (loop)
            loop->post(*this);
    }
    std::vector<int>& order;
    int id;
    std::unique_ptr<Post>* victim = nullptr;
    Reactor* loop = nullptr;
};

TEST_F(AsyncReactor, PostedWorkRunsInOrderOnceAndNotIfDestroyed) {
    std::vector<int> order;
    auto victim = std::make_unique<Post>(order, 3);
    Post a(order, 1), b(order, 2);
    a.victim = &victim;
    reactor.post(a);
    reactor.post(b);
    reactor.post(a);
    reactor.post(*victim);
    EXPECT_TRUE(order.empty()) << "post() must not run anything itself";
    settle(2);
    EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

TEST_F(AsyncReactor, WorkWhichPostsItselfDoesNotStarveTheLoop) {
    std::vector<int> order;
    Post a(order, 1);
    a.loop = &reactor;
    reactor.post(a);
    settle(3);
    EXPECT_EQ(order.size(), 3U);
}

TEST_F(AsyncReactor, SleepsWakeInOrderOfTheirTimes) {
    std::vector<int> order;
    auto sleeper = [](Reactor& loop, int ms, std::vector<int>& out) -> Task<> {
        co_await sleep_for(loop, ms);
        out.push_back(ms);
    };
    for (const int ms : {20, 1, 10})
        scope->spawn(sleeper(reactor, ms, order));
    EXPECT_EQ(reactor.foreground_timers(), 3U);
    EXPECT_TRUE(until([&] { return order.size() == 3; }));
    EXPECT_EQ(order, (std::vector<int>{1, 10, 20}));
}

Task<> listens(Signal& signal, std::int64_t ms, std::vector<bool>& woken, int times) {
    for (int i = 0; i < times; ++i) {
        const bool signalled = co_await signal.wait(ms);
        woken.push_back(signalled);
    }
}

TEST_F(AsyncReactor, SignalBeforeTheWaitIsNotLostAndSeveralAreOne) {
    Signal signal(reactor);
    std::vector<bool> woken;
    signal.set();
    signal.set();
    scope->spawn(listens(signal, 1, woken, 2));
    EXPECT_TRUE(until([&] { return woken.size() == 2; }));
    EXPECT_EQ(woken, (std::vector<bool>{true, false}));
}

TEST_F(AsyncReactor, SignalWakesAllWaitersOnceAndItsTimersAreBackground) {
    Signal signal(reactor);
    std::vector<bool> woken;
    for (int i = 0; i < 3; ++i)
        scope->spawn(listens(signal, 60000, woken, 1));
    EXPECT_EQ(reactor.timers(), 3U);
    EXPECT_EQ(reactor.foreground_timers(), 0U);
    signal.set();
    signal.set();
    EXPECT_TRUE(woken.empty()) << "set() must not resume anybody itself";
    EXPECT_TRUE(until([&] { return woken.size() == 3; }));
    EXPECT_EQ(woken, (std::vector<bool>(3, true)));
    EXPECT_TRUE(until([&] { return scope->size() == 0; }));
}

TEST_F(AsyncReactor, SignalOfACancelledWaiterGoesToTheNext) {
    Signal signal(reactor);
    std::vector<bool> first, second;
    scope->spawn(listens(signal, -1, first, 1));
    signal.set();
    scope->cancel(); // woken, but it never ran
    Scope other(reactor);
    other.spawn(listens(signal, 1, second, 1));
    EXPECT_TRUE(until([&] { return !second.empty(); }));
    EXPECT_TRUE(first.empty());
    EXPECT_EQ(second, (std::vector<bool>{true}));
}

TEST_F(AsyncReactor, SignalOutlivesCancelledWaiters) {
    Signal signal(reactor);
    std::vector<bool> woken;
    scope->spawn(listens(signal, 60000, woken, 1));
    scope->cancel();
    signal.set();
    settle();
    EXPECT_TRUE(woken.empty());
}

} // namespace
} // namespace billing
