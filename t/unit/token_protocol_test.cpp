// Promise (Q1, U1): the way tokens travel never lets more units through than the cap under which they were issued,
// whatever is lost, repeated, late, or dies. A small model of it, each of whose states is visited: two hosts, a cap of
// three that rises and falls, two periods. Rules that the protocol does without are shown to be needed: without any one
// of them too much is let through.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <string_view>
#include <unordered_set>

namespace billing {
namespace {

enum class Broken {
    nothing,
    return_twice, // a report whose answer is lost goes into the next one, too
    no_sequence,  // PostgreSQL applies whatever report arrives
    id_survives,  // an empty zone goes on under the id of the one before, so that the count of its reports begins anew
    old_tokens_spent // tokens of the period before are spent in the new one
};

constexpr std::uint8_t k_least_cap = 2, k_cap = 3, k_most_cap = 4;
constexpr std::uint8_t k_zones = 2; // of one host, one after the other

// How far to look: everything together is more than can be visited.
struct Bounds {
    std::uint8_t periods, deaths, reports; // reports: of one zone
    bool caps_change;
};

// Units that have left a host's zone and not yet come to PostgreSQL, under the number of their report; 0: none.
struct Report {
    std::uint8_t zone, sequence, units, period;
};

struct Host {
    std::uint8_t clock; // the period that it believes in
    std::uint8_t held, held_period;
    std::uint8_t zone, last_sequence;
    Report frozen;                             // sent again until PostgreSQL has told that it has it
    Report under_way;                          // a copy of it, which may arrive at any time
    std::array<std::uint8_t, k_zones> applied; // what PostgreSQL knows: the last report of each zone
};

struct State {
    std::uint8_t clock, cap;
    std::array<std::uint8_t, 2> issued, granted,
        peak; // by period; peak: the largest cap under which any of it was issued
    std::array<Host, 2> hosts;

    bool operator==(const State& other) const { return std::memcmp(this, &other, sizeof *this) == 0; }
};
static_assert(std::has_unique_object_representations_v<State>);

struct Hash {
    std::size_t operator()(const State& state) const {
        return std::hash<std::string_view>{}({reinterpret_cast<const char*>(&state), sizeof state});
    }
};

class Explorer {
public:
    Explorer(Broken broken, Bounds bounds) : broken_(broken), bounds_(bounds) {}

    // True: in no state that can be reached is too much let through.
    bool holds() {
        State first{};
        first.cap = k_cap;
        visit(first);
        while (!waiting_.empty() && !over_granted_) {
            const State state = waiting_.front();
            waiting_.pop_front();
            clocks_and_caps(state);
            for (std::size_t number = 0; number < state.hosts.size(); number++) {
                fund(state, number);
                spend(state, number);
                report(state, number);
                die(state, number);
            }
        }
        return !over_granted_;
    }
    std::size_t states() const { return seen_.size(); }
    bool all_used() const { return all_used_; } // the promise is not kept by letting nothing through

private:
    void visit(State state) {
        for (std::size_t period = 0; period < 2; period++) {
            over_granted_ = over_granted_ || state.granted[period] > state.peak[period];
        }
        all_used_ = all_used_ || state.granted[bounds_.periods - 1u] == (bounds_.caps_change ? k_most_cap : k_cap);
        std::for_each(state.hosts.begin(), state.hosts.end(), [this](Host& host) { forget(host); });
        if (std::memcmp(&state.hosts[1], &state.hosts[0], sizeof(Host)) < 0) {
            std::swap(state.hosts[0], state.hosts[1]); // which of the two is which does not matter
        }
        if (seen_.insert(state).second) {
            waiting_.push_back(state);
        }
    }

    // What can make no difference any more makes no states.
    void forget(Host& host) const {
        const Report& copy = host.under_way;
        if (broken_ == Broken::nothing && copy.sequence != 0 && copy.sequence <= host.applied[copy.zone] &&
            (copy.zone != host.zone || copy.sequence != host.frozen.sequence)) {
            host.under_way = {};
        }
        if (host.zone != 0 && host.under_way.sequence == 0 && broken_ != Broken::id_survives) {
            host.applied[0] = 0;
        }
    }

    void clocks_and_caps(const State& state) {
        State next = state;
        next.clock = bounds_.periods == 2 ? 1 : 0;
        visit(next);
        for (const std::uint8_t cap : {k_least_cap, k_cap, k_most_cap}) {
            next = state;
            next.cap = bounds_.caps_change ? cap : state.cap;
            visit(next);
        }
    }

    // For the period asked for, if it is PostgreSQL's own or the one before, else for PostgreSQL's own; with the answer
    // lost or not.
    void fund(const State& state, std::size_t number) {
        const std::uint8_t period = std::min(state.hosts[number].clock, state.clock);
        const int left = state.cap - state.issued[period];
        for (const int units : {1, left}) {
            if (units < 1 || units > left) {
                continue;
            }
            State next = state;
            next.issued[period] = static_cast<std::uint8_t>(state.issued[period] + units);
            next.peak[period] = std::max(next.peak[period], state.cap);
            visit(next);
            Host& host = next.hosts[number];
            if (host.held != 0 && host.held_period != period) {
                continue; // it takes them out first, see report
            }
            host.held_period = period;
            host.held = static_cast<std::uint8_t>(host.held + units);
            visit(next);
        }
    }

    void spend(const State& state, std::size_t number) {
        State next = state;
        Host& host = next.hosts[number];
        if (host.held == 0 || (host.held_period != host.clock && broken_ != Broken::old_tokens_spent)) {
            return;
        }
        host.held--;
        host.held_period = host.held == 0 ? std::uint8_t{0} : host.held_period;
        next.granted[host.clock]++;
        visit(next);
    }

    // What is held leaves the zone before it is sent, and is sent until it is known to have arrived.
    void report(const State& state, std::size_t number) {
        State next = state;
        Host& host = next.hosts[number];
        if (host.held != 0 && host.frozen.sequence == 0 && host.last_sequence < bounds_.reports) {
            host.last_sequence++;
            host.frozen = {host.zone, host.last_sequence, host.held, host.held_period};
            host.held = 0;
            host.held_period = 0;
            visit(next);
        }
        if (state.hosts[number].frozen.sequence != 0 && state.hosts[number].under_way.sequence == 0) {
            next = state;
            next.hosts[number].under_way = next.hosts[number].frozen;
            visit(next);
        }
        if (state.hosts[number].under_way.sequence != 0) {
            arrive(state, number);
        }
    }

    void arrive(const State& state, std::size_t number) {
        State next = state;
        Host& host = next.hosts[number];
        const Report report = host.under_way;
        host.under_way = {};
        std::uint8_t& applied = host.applied[broken_ == Broken::id_survives ? 0 : report.zone];
        if (report.sequence == applied + 1 || broken_ == Broken::no_sequence) {
            applied = std::max(applied, report.sequence);
            std::uint8_t& issued = next.issued[report.period];
            issued = static_cast<std::uint8_t>(issued - std::min(issued, report.units));
        }
        State lost = next; // the answer is
        Host& without = lost.hosts[number];
        if (broken_ == Broken::return_twice && without.frozen.sequence != 0 &&
            without.last_sequence < bounds_.reports) {
            without.frozen.sequence = ++without.last_sequence;
        }
        visit(lost);
        if (host.frozen.zone == report.zone && host.frozen.sequence == report.sequence) {
            host.frozen = {};
            visit(next);
        }
    }

    // With all that it held, or with its clock only: the next period begins for it. What is under way arrives all the
    // same.
    void die(const State& state, std::size_t number) {
        State next = state;
        next.hosts[number].clock = bounds_.periods == 2 ? 1 : 0;
        visit(next);
        next = state;
        Host& host = next.hosts[number];
        if (host.zone + 1 == k_zones || state.hosts[0].zone + state.hosts[1].zone == bounds_.deaths) {
            return;
        }
        host.zone++;
        host.held = 0;
        host.held_period = 0;
        host.last_sequence = 0;
        host.frozen = {};
        if (broken_ == Broken::id_survives) {
            host.applied[0] = 0;
        }
        visit(next);
    }

    Broken broken_;
    Bounds bounds_;
    bool over_granted_ = false;
    bool all_used_ = false;
    std::deque<State> waiting_;
    std::unordered_set<State, Hash> seen_;
};

constexpr std::array k_bounds{Bounds{1, 1, 2, true}, Bounds{2, 0, 1, false}};

TEST(TokenProtocol, NothingIsGrantedTwiceInAnyStateThatCanBeReached) {
    for (const Bounds& bounds : {k_bounds[0], k_bounds[1], Bounds{2, 1, 1, false}}) {
        Explorer explorer(Broken::nothing, bounds);
        EXPECT_TRUE(explorer.holds());
        EXPECT_TRUE(explorer.all_used());
    }
}

TEST(TokenProtocol, EachOfItsRulesIsNeeded) {
    for (const Broken broken :
         {Broken::return_twice, Broken::no_sequence, Broken::id_survives, Broken::old_tokens_spent}) {
        EXPECT_FALSE(std::all_of(k_bounds.begin(), k_bounds.end(), [broken](const Bounds& bounds) {
            return Explorer(broken, bounds).holds();
        })) << static_cast<int>(broken);
    }
}

} // namespace
} // namespace billing
