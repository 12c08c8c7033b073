// What is for sale, as workers use it: plans, their features and limits, under the small numbers that PostgreSQL gave
// them. Built from the runtime document (billing.catalog_document()); immutable; each worker holds its own.
#pragma once

#include "domain/json.hpp"
#include "domain/period.hpp"
#include "domain/result.hpp"

#include <bitset>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace billing {

inline constexpr std::size_t k_max_features = 128;
inline constexpr std::size_t k_max_limits = 64;
inline constexpr std::size_t k_max_plans = 256; // number 0 is no plan
inline constexpr std::size_t k_max_rates = 64;
inline constexpr std::size_t k_max_credits = 64;
inline constexpr std::size_t k_max_stocks = 64;

using FeatureSet = std::bitset<k_max_features>;

struct Limit {
    std::uint8_t no = 0;
    std::string key;
    PeriodKind period = PeriodKind::month;
    std::int64_t length = 0; // of a sliding window, seconds
    bool overage = false;    // some plan has terms for units beyond what it gives
};

// A name for each plan's rate.
struct Rate {
    std::uint8_t no = 0;
    std::string key;
};

// A type of credits.
struct Credit {
    std::uint8_t no = 0;
    std::string key;
};

// Things that an account has, as projects.
struct Stock {
    std::uint8_t no = 0;
    std::string key;
};

// So many requests in so many seconds.
struct RateAmount {
    std::int64_t count = 0;
    std::int64_t seconds = 1;
};
inline constexpr std::int64_t k_most_rate_count = 1'000'000;
inline constexpr std::int64_t k_most_rate_seconds = 366 * std::int64_t{86400};

// Units for each period, or things at a time. Unlimited is a thing of its own: 0 means none.
struct Allowance {
    bool unlimited = false;
    std::int64_t amount = 0;
};

struct Plan {
    std::uint8_t no = 0;
    std::string key;
    std::string name;
    int rank = 0;
    bool free = false;
    FeatureSet features;
    std::map<std::uint8_t, Allowance> limits;     // by limit number; absent = none
    std::map<std::uint8_t, RateAmount> rates;     // by rate number; absent = no limit
    std::map<std::uint8_t, std::int64_t> credits; // units for each period by type; absent = none
    std::map<std::uint8_t, Allowance> stock;      // by stock number; absent = none
    std::map<std::string, std::string, std::less<>> attributes;

    Allowance allowance(std::uint8_t limit_no) const;
};

// A plan's attributes: what the operator's applications and configuration want to know of it.
inline constexpr std::size_t k_max_attributes = 32;
bool valid_attribute_key(std::string_view key) noexcept;
// As variables and header fields show it: true is 1, false 0. Nothing where the value can be no attribute's.
std::optional<std::string> attribute_text(const json_t* value);

class Catalog {
public:
    static Result<Catalog> read(std::string_view document);

    std::uint64_t stamp() const noexcept { return stamp_; }
    std::uint8_t default_plan() const noexcept { return default_plan_; }
    const std::vector<Plan>& plans() const noexcept { return plans_; }

    // Null when there is none.
    const Plan* plan(std::uint8_t no) const noexcept;
    const Plan* plan(std::string_view key) const noexcept;
    const Limit* limit(std::string_view key) const noexcept;
    const Rate* rate(std::string_view key) const noexcept;
    const Credit* credit(std::string_view key) const noexcept;
    const Stock* stock(std::string_view key) const noexcept;
    std::optional<std::size_t> feature(std::string_view key) const noexcept;
    // Their numbers, by name.
    const std::map<std::string, std::size_t, std::less<>>& features() const noexcept { return features_; }

private:
    std::uint64_t stamp_ = 0;
    std::uint8_t default_plan_ = 0;
    std::vector<Plan> plans_;
    std::vector<Limit> limits_;
    std::vector<Rate> rates_;
    std::vector<Credit> credits_;
    std::vector<Stock> stock_;
    std::map<std::string, std::size_t, std::less<>> features_;
};

} // namespace billing
