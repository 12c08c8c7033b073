// Promise: whatever several workers do at once, every token granted is afterwards either reported as spent, reported as
// returned, or counted as forfeited; and what is reported as spent is what was spent (Q1, R1).
#include "table_zone.hpp"

#include <gtest/gtest.h>
#include <random>

namespace billing {
namespace {

constexpr std::uint64_t k_accounts = 1500; // more than the zone's 1024 units
constexpr std::uint8_t k_limits = 5;       // more than a record and one extension hold
constexpr std::int64_t k_first_period = 29896000;
constexpr std::int64_t k_periods = 3;

// What each side says of one quota in one period.
struct Line {
    std::int64_t granted, spent, reported, returned;
};

struct Books {
    Line lines[k_accounts][k_limits][k_periods];
    std::uint64_t applied; // PostgreSQL's last sequence
    std::int64_t period;   // the current one, less the first
    std::uint64_t operations;

    Line& line(std::uint64_t account, std::uint64_t limit, std::int64_t period_no) {
        return lines[account][limit][period_no - k_first_period];
    }
    // As PostgreSQL does it: once for each sequence.
    void apply(const std::vector<UsageRow>& rows, std::uint64_t sequence) {
        std::uint64_t expected = sequence - 1;
        if (!shared::swap(applied, expected, sequence)) {
            return;
        }
        for (const UsageRow& row : rows) {
            Line& to = line(row.account_id, row.limit_no, row.period);
            shared::add(to.reported, row.spent);
            shared::add(to.returned, row.returned);
        }
    }
};

struct Worker {
    TestZone& zone;
    Books& books;
    std::mt19937_64 random;

    void fund(std::uint64_t account, std::uint8_t limit, std::int64_t period) {
        const auto granted = static_cast<std::uint32_t>(1 + random() % 20);
        const auto now = static_cast<std::uint32_t>(random() % (granted + 1));
        Line& line = books.line(account, limit, period);
        shared::add(line.granted, granted);
        shared::add(line.spent, now);
        if (!zone.table.fund(zone.key(account), limit, period, granted, 5, now)) {
            zone.table.add_usage(account, limit, period, now, granted - now);
        }
    }
    void spend(std::uint64_t account, std::uint8_t limit, std::int64_t period) {
        AccountView view;
        SpendOutcome outcome;
        if (!zone.table.find(zone.key(account), view)) {
            zone.put(account, 1 + random() % 3);
            return;
        }
        const auto cost = static_cast<std::uint32_t>(1 + random() % 3);
        switch (zone.table.spend(view.ref, limit, period, cost, 0, outcome)) {
        case Spend::taken: {
            Line& line = books.line(account, limit, period);
            shared::add(line.spent, cost);
            if (random() % 4 == 0) {
                something(); // the reference gets old
                shared::add(line.spent, -std::int64_t{cost});
                if (!zone.table.refund(view.ref, limit, period, cost)) {
                    zone.table.add_usage(account, limit, period, -std::int64_t{cost}, cost);
                }
            }
            break;
        }
        case Spend::short_of_tokens:
            fund(account, limit, period);
            break;
        case Spend::exhausted:
        case Spend::gone:
            break;
        }
    }
    void flush() {
        std::vector<UsageRow> rows;
        std::uint64_t sequence = 0;
        if (zone.table.freeze() && zone.table.frozen(rows, sequence)) {
            books.apply(rows, sequence);
            zone.table.acknowledge(sequence);
        }
    }
    void something() {
        // Some accounts are asked for often, most seldom.
        const std::uint64_t account = random() % 2 == 0 ? random() % 50 : random() % k_accounts;
        const auto limit = static_cast<std::uint8_t>(random() % 3 == 0 ? random() % k_limits : 0);
        const std::int64_t skewed = shared::load(books.period) - static_cast<std::int64_t>(random() % 20 == 0);
        const std::int64_t period = k_first_period + std::max<std::int64_t>(0, skewed);
        const std::uint64_t dice = random() % 1000;
        if (dice < 900) {
            spend(account, limit, period);
        } else if (dice < 960) {
            zone.put(account, 1 + random() % 1000);
        } else if (dice < 980) {
            zone.table.exhausted(zone.key(account), limit, period, 0);
        } else if (dice < 990) {
            zone.table.sweep(100);
        } else {
            flush();
        }
    }
};

TEST(TableConservation, HoldsWhileWorkersFundSpendRefundEvictAndFlush) {
    constexpr std::uint64_t k_operations = 120000;
    TestZone zone;
    Shared<Books> books;
    pid_t workers[3];
    for (unsigned w = 0; w < 3; w++) {
        workers[w] = in_child([&] {
            Worker worker{zone, *books, std::mt19937_64(w + 1)};
            std::uint64_t done = 0;
            while ((done = std::atomic_ref(books->operations).fetch_add(1)) < k_operations) {
                worker.something();
                if (done % (k_operations / k_periods + 1) == k_operations / k_periods) {
                    std::atomic_ref(books->period).fetch_add(1);
                }
            }
        });
    }
    for (const pid_t worker : workers) {
        ASSERT_TRUE(ended_well(await(worker)));
    }
    EXPECT_EQ(zone.table.check(), "");
    Worker last{zone, *books, std::mt19937_64(9)};
    while (!zone.table.return_all()) {
        last.flush();
    }
    last.flush();
    last.flush();
    EXPECT_FALSE(zone.table.freeze());
    EXPECT_EQ(zone.table.use().held, 0u);

    std::int64_t granted = 0;
    std::int64_t spent = 0;
    for (std::uint64_t account = 0; account < k_accounts; account++) {
        for (std::uint8_t limit = 0; limit < k_limits; limit++) {
            for (std::int64_t period = 0; period < k_periods; period++) {
                const Line& line = books->lines[account][limit][period];
                ASSERT_EQ(line.reported, line.spent) << account << ' ' << int{limit} << ' ' << period;
                ASSERT_EQ(line.granted, line.reported + line.returned) << account << ' ' << int{limit} << ' ' << period;
                granted += line.granted;
                spent += line.spent;
            }
        }
    }
    EXPECT_EQ(zone.table.counted(Counter::forfeited), 0u) << "the batch was never full";
    EXPECT_GT(spent, 50000);
    EXPECT_GT(granted, spent);
    EXPECT_GT(zone.table.counted(Counter::evictions), 1000u);
    EXPECT_EQ(books->period, k_periods - 1);
}

} // namespace
} // namespace billing
