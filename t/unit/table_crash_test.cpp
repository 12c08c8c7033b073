// Promise: a worker may be killed at any instruction of a writer's critical section; the zone is consistent afterwards,
// no token exists twice, and only the record that was being written is lost (fault 2).
#include "table_zone.hpp"

#include <functional>
#include <gtest/gtest.h>
#include <map>
#include <random>

namespace billing {
namespace {

constexpr std::int64_t k_period = 100;
constexpr std::uint8_t k_limits = 5;
constexpr std::uint32_t k_granted = 100;
constexpr std::uint32_t k_spent = 10;

AccountFacts with_overrides(std::uint64_t account, std::uint64_t stamp) {
    AccountFacts facts{};
    facts.id = account;
    facts.stamp = stamp;
    facts.has_overrides = true;
    facts.on = {{1, 2}};
    return facts;
}

constexpr LimitAmount k_amounts[] = {{0, 1}, {1, 2}, {2, 3}};

struct Sums {
    std::int64_t spent = 0;
    std::int64_t returned = 0;
};

// A full zone: accounts 1..8 in use with five quotas each, the rest idle without any; account 1 is what operations
// change.
struct FullZone : TestZone {
    static constexpr std::uint64_t k_last = k_min_units - 8 * 2;

    FullZone() {
        for (std::uint64_t account = 1; account <= k_last; account++) {
            put(account);
        }
        for (std::uint64_t account = 1; account <= 8; account++) {
            for (std::uint8_t limit = 0; limit < k_limits; limit++) {
                table.fund(key(account), limit, k_period, k_granted, 0, 0);
                spend(account, limit, k_period, k_spent);
            }
        }
    }
};

struct Operation {
    const char* name;
    std::function<void(FullZone&)> run;
};

const Operation k_operations[] = {
    {"a new snapshot", [](FullZone& zone) { zone.put(1, 2); }},
    {"a snapshot with overrides",
     [](FullZone& zone) { zone.table.put(zone.key(1), with_overrides(1, 2), 0, k_amounts); }},
    {"a new account", [](FullZone& zone) { zone.put(5000); }},
    {"a new account with overrides",
     [](FullZone& zone) { zone.table.put(zone.key(5000), with_overrides(5000, 2), 0, k_amounts); }},
    {"funding", [](FullZone& zone) { zone.table.fund(zone.key(1), 0, k_period, 7, 0, 2); }},
    {"funding a slot in an extension", [](FullZone& zone) { zone.table.fund(zone.key(1), 4, k_period, 7, 0, 2); }},
    {"funding the next period", [](FullZone& zone) { zone.table.fund(zone.key(1), 4, k_period + 1, 7, 0, 2); }},
    {"funding a new slot", [](FullZone& zone) { zone.table.fund(zone.key(1), 9, k_period, 7, 0, 2); }},
    {"funding a slot in a new extension",
     [](FullZone& zone) {
         zone.table.fund(zone.key(1), 9, k_period, 7, 0, 2);
         zone.table.fund(zone.key(1), 10, k_period, 7, 0, 2);
         zone.table.fund(zone.key(1), 11, k_period, 7, 0, 2);
     }},
    {"building a batch", [](FullZone& zone) { zone.table.freeze(); }},
    {"sweeping",
     [](FullZone& zone) {
         zone.table.sweep(k_min_units);
         zone.table.sweep(k_min_units);
     }},
    {"evicting those in use",
     [](FullZone& zone) {
         zone.table.sweep(k_min_units); // now as idle as the rest
         for (std::uint64_t account = 5000; account < 5000 + k_min_units; account++) {
             zone.put(account);
         }
     }},
};

std::map<std::uint64_t, Sums> sums_of(const std::vector<UsageRow>& rows) {
    std::map<std::uint64_t, Sums> sums;
    for (const UsageRow& row : rows) {
        sums[row.account_id].spent += row.spent;
        sums[row.account_id].returned += row.returned;
    }
    return sums;
}

// Nothing of account 1 is there twice; the others' is all there, but for one that the writer was evicting.
void expect_nothing_doubled(FullZone& zone, std::int64_t granted_more, std::int64_t spent_more) {
    std::map<std::uint64_t, Sums> sums = sums_of(zone.drain());
    int hurt = 0;
    for (std::uint64_t account = 1; account <= 8; account++) {
        const std::int64_t spent = k_limits * k_spent + (account == 1 ? spent_more : 0);
        const std::int64_t granted = k_limits * k_granted + (account == 1 ? granted_more : 0);
        EXPECT_LE(sums[account].spent, spent) << "account " << account;
        EXPECT_LE(sums[account].returned, granted - k_limits * k_spent) << "account " << account;
        EXPECT_LE(sums[account].spent + sums[account].returned, granted) << "account " << account;
        EXPECT_GE(sums[account].spent, 0) << "account " << account;
        EXPECT_GE(sums[account].returned, 0) << "account " << account;
        hurt += sums[account].spent + sums[account].returned < k_limits * k_granted;
    }
    EXPECT_LE(hurt, 1);
}

// Zone and operation, killed by each store in turn.
TEST(TableCrash, AtEachStoreOfEachOperationLeavesAConsistentZone) {
    int killed = 0;
    for (const Operation& operation : k_operations) {
        FullZone whole;
        const std::uint64_t before = whole.lock.stores;
        operation.run(whole);
        const std::uint64_t stores = whole.lock.stores - before;
        ASSERT_GT(stores, 5u) << operation.name;
        const std::uint64_t step = std::max<std::uint64_t>(1, stores / 120);
        for (std::uint64_t at = 1; at <= stores; at += step) {
            FullZone zone;
            const pid_t pid = in_child([&] {
                zone.lock.die_after = at;
                operation.run(zone);
            });
            ASSERT_TRUE(WIFSIGNALED(await(pid))) << operation.name << " store " << at << " of " << stores;
            killed++;
            zone.lock.force_unlock(pid);
            ASSERT_EQ(zone.table.check(), "") << operation.name << " store " << at << " of " << stores;
            ASSERT_LE(zone.table.counted(Counter::wipes), 1u);
            // All works on: the account comes back, is funded and spends.
            ASSERT_NE(zone.put(1, 3), Put::no_room);
            ASSERT_TRUE(zone.table.fund(zone.key(1), 0, k_period + 2, 3, 0, 0)) << operation.name << " store " << at;
            ASSERT_EQ(zone.spend(1, 0, k_period + 2, 3), Spend::taken) << operation.name << " store " << at;
            ASSERT_EQ(zone.table.check(), "") << operation.name << " store " << at << " of " << stores;
            expect_nothing_doubled(zone, 21 + 3, 6 + 3);
            ASSERT_FALSE(testing::Test::HasFailure()) << operation.name << " store " << at << " of " << stores;
        }
    }
    EXPECT_GT(killed, 500);
}

TEST(TableCrash, InTheMiddleOfRecoveryIsRecoveredToo) {
    for (const Operation& operation : k_operations) {
        for (std::uint64_t at : {20, 35, 50}) {
            for (std::uint64_t again = 1; again < 30; again += 3) {
                FullZone zone;
                for (const std::uint64_t die_after : {at, again}) {
                    const pid_t pid = in_child([&] {
                        zone.lock.die_after = die_after;
                        operation.run(zone);
                    });
                    await(pid);
                    zone.lock.force_unlock(pid);
                }
                ASSERT_EQ(zone.table.check(), "") << operation.name << ", stores " << at << " and " << again;
                expect_nothing_doubled(zone, 2 * 21, 2 * 6);
                ASSERT_FALSE(testing::Test::HasFailure()) << operation.name << ", stores " << at << " and " << again;
            }
        }
    }
}

// Workers that fund, spend, change and evict are killed wherever they are; what they spent is counted after the fact,
// what was granted before it, so the sums may only err towards safety.
struct Ledger {
    std::int64_t granted[2000];
    std::int64_t spent[2000];
    std::uint64_t steps;
};

void work(TestZone& zone, Ledger& ledger, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    SpendOutcome outcome;
    for (;;) {
        shared::add(ledger.steps, 1);
        const std::uint64_t account = random() % 4 != 0 ? random() % 20 : random() % 2000;
        const auto limit = static_cast<std::uint8_t>(random() % k_limits);
        AccountView view;
        if (!zone.table.find(zone.key(account), view)) {
            zone.put(account, 1 + random() % 10);
        } else if (zone.table.spend(view.ref, limit, k_period, 2, 0, outcome) == Spend::taken) {
            shared::add(ledger.spent[account], 2);
        } else {
            shared::add(ledger.granted[account], 10);
            zone.table.fund(zone.key(account), limit, k_period, 10, 0, 0);
        }
        if (random() % 50 == 0) {
            zone.put(account, 1 + random() % 1000000);
        }
        if (random() % 200 == 0) {
            zone.table.freeze();
        }
    }
}

TEST(TableCrash, AnywhereUnderLoadDoublesNothing) {
    constexpr int k_rounds = 250;
    TestZone zone;
    Shared<Ledger> ledger;
    std::map<std::uint64_t, Sums> sums;
    std::mt19937_64 random(4);
    pid_t workers[2] = {};
    for (int round = 0; round < k_rounds; round++) {
        for (int w : {0, 1}) {
            if (workers[w] == 0) {
                // The first kills itself inside a critical section, the second is killed anywhere.
                zone.lock.die_after = w == 0 ? 1 + random() % 5000 : 0;
                workers[w] = in_child([&] { work(zone, *ledger, static_cast<std::uint64_t>(round) * 2 + 1); });
                zone.lock.die_after = 0;
            }
        }
        pid_t& victim = workers[round % 2];
        if (round % 2 == 1) {
            const std::uint64_t until = shared::load(ledger->steps) + random() % 400;
            while (shared::load(ledger->steps) < until && !has_ended(workers[0])) {
                sched_yield();
            }
            kill(victim, SIGKILL);
        }
        ASSERT_TRUE(WIFSIGNALED(await(victim)));
        zone.lock.force_unlock(victim);
        victim = 0;
        ASSERT_EQ(zone.table.check(), "") << "round " << round;
        for (const auto& [account, sum] : sums_of(zone.flush())) {
            sums[account].spent += sum.spent;
            sums[account].returned += sum.returned;
        }
    }
    for (const pid_t worker : workers) {
        if (worker != 0) {
            kill(worker, SIGKILL);
            await(worker);
            zone.lock.force_unlock(worker);
        }
    }
    EXPECT_EQ(zone.table.check(), "");
    EXPECT_GT(zone.table.counted(Counter::wipes), 20u);
    for (const auto& [account, sum] : sums_of(zone.drain())) {
        sums[account].spent += sum.spent;
        sums[account].returned += sum.returned;
    }
    std::int64_t spent = 0;
    for (std::uint64_t account = 0; account < 2000; account++) {
        EXPECT_LE(ledger->spent[account] + sums[account].returned, ledger->granted[account]) << account;
        EXPECT_LE(sums[account].spent + sums[account].returned, ledger->granted[account]) << account;
        spent += ledger->spent[account];
    }
    EXPECT_GT(spent, 1000);
}

} // namespace
} // namespace billing
