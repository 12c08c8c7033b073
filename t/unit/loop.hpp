// What the tests of async/ and drivers/ share: a loop whose log is kept, a scope for the coroutines, and at the end of
// each test the check that nothing is left: no frame, no socket, no timer.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "async/poll_reactor.hpp"
#include "async/scope.hpp"
#include "async/task.hpp"

namespace billing::test {

class LoopTest : public ::testing::Test {
protected:
    LoopTest()
        : reactor([this](LogLevel level, std::string_view text) {
              log.emplace_back(text);
              if (level == LogLevel::error)
                  ++errors;
          }),
          scope(std::make_unique<Scope>(reactor)) {}

    // Drivers are members or locals of the test: gone by now, or made to be by close().
    void TearDown() override {
        close();
        scope.reset();
        EXPECT_EQ(frames_live(), 0U) << frames_first()->where().function_name();
        EXPECT_EQ(reactor.sockets(), 0U);
        EXPECT_EQ(reactor.timers(), 0U);
    }
    // Destroys the drivers, after the scope's coroutines.
    virtual void close() {}

    template <class T>
    T await(Task<T> task) {
        return run(reactor, std::move(task));
    }
    bool until(const std::function<bool()>& fact, std::int64_t limit_ms = 10000) {
        return reactor.run_until(fact, limit_ms);
    }
    // Turn after turn, without waiting for anything.
    void settle(int turns = 5) {
        for (int i = 0; i < turns; ++i)
            reactor.turn(0);
    }
    long logged(const std::string& part) const {
        return std::count_if(log.begin(), log.end(),
                             [&](const std::string& line) { return line.find(part) != line.npos; });
    }

    std::vector<std::string> log;
    int errors = 0;
    PollReactor reactor;
    std::unique_ptr<Scope> scope;
};

} // namespace billing::test
