// Promise: host and PostgreSQL mean the same period, whatever its kind: an account's months from its anchor on, with
// the day clamped to the month's end and never drifting; days of a time zone with 23 and 25 hours; buckets of a sliding
// window. G10, "Time" of the semantics.
#include "domain/amounts.hpp"
#include "domain/period.hpp"
#include "domain/snapshot.hpp"
#include "inbox_world.hpp"
#include "state/facts.hpp"

#include <gtest/gtest.h>

#include <random>
#include <sstream>

namespace billing {
namespace {

constexpr std::int64_t k_day = 86400;
constexpr std::int64_t k_2024_02_29 = 1709164800; // 00:00 UTC

TEST(Period, OfTheCalendarHoldsItsInstantsAndMeetsTheNextWithoutGap) { // G10
    for (const auto kind : {PeriodKind::minute, PeriodKind::hour, PeriodKind::day, PeriodKind::month}) {
        for (std::int64_t now = k_2024_02_29 - 40 * k_day; now < k_2024_02_29 + 400 * k_day; now += 7919) {
            const Period period = calendar_period(kind, now);
            EXPECT_LE(period.start, now);
            EXPECT_GT(period.end, now);
            EXPECT_EQ(calendar_period(kind, period.end).number, period.number + 1) << "half open";
            EXPECT_EQ(calendar_period(kind, period.end).start, period.end);
            EXPECT_EQ(calendar_period(kind, period.end - 1), period);
        }
    }
    const Period february = calendar_period(PeriodKind::month, k_2024_02_29);
    EXPECT_EQ(february.number, 2024 * 12 + 1);
    EXPECT_EQ(february.length(), 29 * k_day);
    EXPECT_EQ(calendar_period(PeriodKind::month, -1).number, 1969 * 12 + 11);
    EXPECT_EQ(calendar_period(PeriodKind::lifetime, k_2024_02_29), Period{});
}

// Another calendar, as simple as can be: counted day by day from 1970.
struct Calendar {
    static constexpr int k_years = 100;
    std::vector<std::int64_t> firsts; // of each month, days since 1970

    Calendar() {
        std::int64_t day = 0;
        for (int year = 1970; year <= 1970 + k_years; ++year) {
            const bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            const int days[] = {31, leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
            for (const int month : days) {
                firsts.push_back(day);
                day += month;
            }
        }
        firsts.push_back(day);
    }
    // The starts of all months of an anchor.
    std::vector<std::int64_t> starts(std::int64_t anchor) const {
        const std::int64_t day = anchor / k_day;
        const auto month = std::upper_bound(firsts.begin(), firsts.end(), day) - 1;
        const std::int64_t of_month = day - *month;
        std::vector<std::int64_t> found;
        for (std::size_t at = 0; at + 1 < firsts.size(); ++at) {
            const std::int64_t days = firsts[at + 1] - firsts[at];
            found.push_back((firsts[at] + std::min(of_month, days - 1)) * k_day + anchor % k_day);
        }
        return found;
    }
};

TEST(Period, OfACycleIsCountedFromTheAnchorForAHundredYears) { // G10, a naive model decides
    const Calendar calendar;
    std::mt19937_64 random{7};
    for (int round = 0; round < 400; ++round) {
        std::int64_t anchor = static_cast<std::int64_t>(random() % (40 * 365 * k_day));
        if (round % 2 == 0) { // the days that not every month has
            anchor = (calendar.firsts[random() % 480 + 1] - 1 - static_cast<std::int64_t>(random() % 4)) * k_day +
                     static_cast<std::int64_t>(random() % k_day);
        }
        const auto starts = calendar.starts(anchor);
        const CycleAnchor cycle = CycleAnchor::of(anchor);
        EXPECT_TRUE(std::find(starts.begin(), starts.end(), anchor) != starts.end());
        for (int moment = 0; moment < 200; ++moment) {
            const std::size_t at = random() % (starts.size() - 1);
            const std::int64_t length = starts[at + 1] - starts[at];
            for (const std::int64_t now :
                 {starts[at], starts[at] + static_cast<std::int64_t>(random()) % length, starts[at + 1] - 1}) {
                if (now < starts[at]) {
                    continue;
                }
                const Period period = cycle_period(cycle, now);
                ASSERT_EQ(period.start, starts[at]) << anchor << " at " << now;
                ASSERT_EQ(period.end, starts[at + 1]) << anchor << " at " << now;
                ASSERT_EQ(period.number, (std::int64_t{1} << 60) + starts[at] / 16);
            }
        }
    }
}

TEST(Period, OfACycleNeverDrifts) {                       // 31 Jan -> 28 Feb -> 31 Mar, never 28 Mar
    constexpr std::int64_t k_31_jan = 1769817600 + 45296; // 2026-01-31 12:34:56
    const CycleAnchor anchor = CycleAnchor::of(k_31_jan);
    const Period first = cycle_period(anchor, k_31_jan);
    EXPECT_EQ(first.start, k_31_jan);
    EXPECT_EQ(first.end, k_31_jan + 28 * k_day) << "28 February";
    const Period second = cycle_period(anchor, first.end);
    EXPECT_EQ(second.end, k_31_jan + 59 * k_day) << "31 March";
    EXPECT_EQ(cycle_period(anchor, first.end - 1), first) << "half open";
    EXPECT_NE(cycle_period(CycleAnchor::of(k_31_jan + 60), k_31_jan + 60).number, first.number)
        << "an anchor a minute later has months of its own";
}

TEST(Period, OfAZoneIsItsDay) {                   // G10: days of 23 and 25 hours
    constexpr std::int64_t k_spring = 1774746000; // 2026-03-29 01:00 UTC, Europe/Berlin
    const ZoneOffsets winter{0, k_spring, k_spring + 200 * k_day, 3600, 3600, 7200};
    const Period day = zoned_period(PeriodKind::day, k_spring - 60, winter);
    EXPECT_EQ(day.start, 1774738800);
    EXPECT_EQ(day.length(), 23 * 3600U);
    EXPECT_EQ(zoned_period(PeriodKind::day, k_spring + 60, winter), day) << "after the change as before it";
    const ZoneOffsets summer{k_spring, 1792890000, k_spring + 400 * k_day, 3600, 7200, 3600};
    EXPECT_EQ(zoned_period(PeriodKind::day, k_spring + 60, summer), day) << "also where the zone is told anew";
    EXPECT_EQ(zoned_period(PeriodKind::day, 1792890000 - 60, summer).length(), 25 * 3600U) << "25 October";
    EXPECT_EQ(zoned_period(PeriodKind::month, k_spring, winter).length(), 31 * k_day - 3600);
    EXPECT_EQ(zoned_period(PeriodKind::hour, k_spring, winter), calendar_period(PeriodKind::hour, k_spring));
}

TEST(Period, OfASlidingWindowIsABucket) { // G10
    std::mt19937_64 random{11};
    for (int round = 0; round < 2000; ++round) {
        const std::int64_t length = k_least_sliding + static_cast<std::int64_t>(random()) %
                                                          (k_most_sliding - k_least_sliding + 1) / (1 + round % 7);
        if (length < k_least_sliding) {
            continue;
        }
        const std::int64_t now = static_cast<std::int64_t>(random() % (60 * 365 * k_day));
        const Period bucket = sliding_period(length, now);
        EXPECT_LE(bucket.start, now);
        EXPECT_GT(bucket.end, now);
        EXPECT_LE(bucket.length(), length / 20 + 1) << "a refusal lasts a twentieth longer than need be, at most";
        EXPECT_EQ(sliding_period(length, bucket.end).number, bucket.number + 1);
        const std::int64_t counted = (length + bucket.length() - 1) / bucket.length(); // buckets before this one
        EXPECT_LE(bucket.start - counted * bucket.length(), now - length) << "all of the length is counted";
    }
}

TEST(Period, TimesAndRatesAreReadAsWritten) { // G25
    EXPECT_EQ(parse_duration("90s"), 90);
    EXPECT_EQ(parse_duration("24h"), 86400);
    EXPECT_EQ(parse_duration("min"), 60);
    EXPECT_EQ(parse_duration("2w"), 14 * 86400);
    for (const auto* text : {"", "1", "0s", "-1s", "+1s", "1.5h", "1y", "1 h", "99999999999999999999s", "1000001s"}) {
        EXPECT_FALSE(parse_duration(text)) << text;
    }
    EXPECT_EQ(parse_rate("10/min")->count, 10);
    EXPECT_EQ(parse_rate("10/min")->seconds, 60);
    EXPECT_EQ(parse_rate("100/10s")->seconds, 10);
    EXPECT_EQ(parse_rate("0/s")->count, 0);
    for (const auto* text : {"", "10", "/min", "10/", "1.5/s", "-1/s", "10/min/min", "1000001/s", "1/367d"}) {
        EXPECT_FALSE(parse_rate(text)) << text;
    }
}

// --- C++ and SQL, asked the same

struct Question {
    std::string kind;
    std::int64_t length = 0;
    std::int64_t anchor = 0;
    std::string zone; // "" = UTC
    std::int64_t at = 0;
};

// "number start end" of each, as PostgreSQL says.
std::vector<std::string> ask(test::Sql& sql, const std::vector<Question>& questions) {
    std::string values;
    for (const auto& q : questions) {
        values += (values.empty() ? "('" : ",('") + q.kind + "'," +
                  (q.length == 0 ? "NULL" : std::to_string(q.length)) + ",to_timestamp(" + std::to_string(q.anchor) +
                  ")," + (q.zone.empty() ? "NULL" : "'" + q.zone + "'") + ",to_timestamp(" + std::to_string(q.at) +
                  "))";
    }
    std::istringstream lines{sql.ask(
        "SELECT string_agg(p.no || ' ' || billing.unix(b.starts) || ' ' || billing.unix(b.ends), E'\\n' ORDER BY "
        "q.n) FROM (SELECT row_number() OVER () AS n, v.* FROM (VALUES " +
        values +
        ") v(kind, length, anchor, zone, at)) q "
        "CROSS JOIN LATERAL (SELECT billing.period_no(kind, length::integer, anchor, zone::text, at) AS no) p "
        "CROSS JOIN LATERAL billing.period_bounds(kind, anchor, zone::text, p.no) b")};
    std::vector<std::string> answers;
    for (std::string line; std::getline(lines, line);) {
        answers.push_back(line);
    }
    return answers;
}

std::string text_of(const Period& period) {
    return std::to_string(period.number) + " " + std::to_string(period.start) + " " + std::to_string(period.end);
}

struct PeriodInSql : testing::Test {
    test::Sql sql{test::PostgresServer::shared().conninfo() +
                  " dbname=" + test::fresh_database(test::PostgresServer::shared())};
    std::mt19937_64 random{17};
    std::int64_t below(std::int64_t most) {
        return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(most));
    }
};

TEST_F(PeriodInSql, OfAnAccountIsTheHosts) { // G10
    std::vector<Question> questions;
    std::vector<std::string> expected;
    for (int round = 0; round < 3000; ++round) {
        const std::int64_t at = below(100 * 365 * k_day);
        const std::int64_t anchor = below(100 * 365 * k_day);
        const std::int64_t length = k_least_sliding + below(k_most_sliding - k_least_sliding + 1);
        questions.push_back({"cycle", 0, anchor, "", at});
        expected.push_back(text_of(cycle_period(CycleAnchor::of(anchor), at)));
        questions.push_back({"sliding", length, 0, "", at});
        expected.push_back(text_of(sliding_period(length, at)));
        for (const auto kind : {PeriodKind::minute, PeriodKind::hour, PeriodKind::day, PeriodKind::month}) {
            questions.push_back({std::string{to_text(kind)}, 0, 0, "", at});
            expected.push_back(text_of(calendar_period(kind, at)));
        }
    }
    const auto answers = ask(sql, questions);
    ASSERT_EQ(answers.size(), expected.size());
    for (std::size_t index = 0; index < answers.size(); ++index) {
        ASSERT_EQ(answers[index], expected[index])
            << questions[index].kind << " at " << questions[index].at << " anchor " << questions[index].anchor;
    }
}

// The snapshot's own way: what PostgreSQL tells of the zone at one moment decides on hosts until it has to be told
// anew.
TEST_F(PeriodInSql, OfAZoneIsTheHosts) { // G10
    const std::vector<std::string> zones = {
        "Europe/Berlin",       "America/New_York", "America/Havana",    "Atlantic/Azores", "Asia/Kolkata",
        "Australia/Lord_Howe", "Asia/Beirut",      "America/Santiago",  "Pacific/Chatham", "Africa/Cairo",
        "Pacific/Apia",        "Etc/GMT+12",       "Pacific/Kiritimati"};
    std::vector<Question> questions;
    std::vector<std::string> expected;
    std::set<std::uint32_t> lengths;
    for (int round = 0; round < 400; ++round) {
        const std::string& zone = zones[static_cast<std::size_t>(round) % zones.size()];
        const std::int64_t told_at = 1514764800 + below(12 * 365 * k_day); // from 2018 on
        const std::string body =
            R"({"id":7,"account":"demo","stamp":"0000010000000003","plan":2,"status":"active","write_enabled":true,)"
            R"("maintenance":"none","anchor":0,"zone":)" +
            sql.ask("SELECT billing.zone_spans('" + zone + "', to_timestamp(" + std::to_string(told_at) + "))") + "}";
        const auto snapshot = read_snapshot(body);
        ASSERT_TRUE(snapshot.ok()) << body;
        for (int moment = 0; moment < 5; ++moment) {
            const std::int64_t read_at = told_at + below(300 * k_day);
            const auto facts = facts_of(snapshot.value(), read_at);
            ASSERT_TRUE(facts.facts.calendar.zoned());
            ASSERT_GT(facts.facts.overrides_until, read_at);
            std::vector<std::int64_t> moments = {read_at, read_at + below(facts.facts.overrides_until - read_at)};
            if (facts.zone.change_at != 0) { // around the change, where it matters
                moments.push_back(std::max(read_at, facts.zone.change_at - k_day + below(2 * k_day)));
            }
            for (const std::int64_t at : moments) {
                for (const auto kind : {PeriodKind::day, PeriodKind::month}) {
                    const Period period = zoned_period(kind, at, facts.zone);
                    lengths.insert(kind == PeriodKind::day ? period.length() : 0);
                    questions.push_back({std::string{to_text(kind)}, 0, 0, zone, at});
                    expected.push_back(text_of(period));
                }
            }
        }
    }
    const auto answers = ask(sql, questions);
    ASSERT_EQ(answers.size(), expected.size());
    for (std::size_t index = 0; index < answers.size(); ++index) {
        ASSERT_EQ(answers[index], expected[index])
            << questions[index].kind << " of " << questions[index].zone << " at " << questions[index].at;
    }
    EXPECT_TRUE(lengths.contains(23 * 3600) && lengths.contains(25 * 3600)) << "both were among them";
}

} // namespace
} // namespace billing
