#include "domain/catalog.hpp"

#include "domain/json.hpp"

#include <algorithm>
#include <charconv>

namespace billing {

namespace {

std::optional<std::uint8_t> number_of(std::string_view text, std::size_t below) noexcept {
    unsigned no = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), no);
    if (parsed.ec != std::errc{} || parsed.ptr != text.data() + text.size() || no >= below) {
        return std::nullopt;
    }
    return static_cast<std::uint8_t>(no);
}

// {"0": 20, "1": null}
bool read_allowances(const json_t* source, std::size_t most, std::map<std::uint8_t, Allowance>& all) {
    const char* key = nullptr;
    json_t* value = nullptr;
    json_object_foreach(const_cast<json_t*>(source), key, value) {
        const auto no = number_of(key, most);
        if (!no || (!json_is_null(value) && !json_is_integer(value))) {
            return false;
        }
        const bool unlimited = json_is_null(value);
        all[*no] = {unlimited, unlimited ? 0 : json_integer_value(value)};
    }
    return true;
}

// {"0": [10, 60]}: ten in sixty seconds.
bool read_plan_rates(const json_t* source, Plan& plan) {
    const char* key = nullptr;
    json_t* value = nullptr;
    json_object_foreach(const_cast<json_t*>(source), key, value) {
        const auto no = number_of(key, k_max_rates);
        const RateAmount rate{json_integer_value(json_array_get(value, 0)),
                              json_integer_value(json_array_get(value, 1))};
        if (!no || rate.count < 0 || rate.count > k_most_rate_count || rate.seconds < 1 ||
            rate.seconds > k_most_rate_seconds) {
            return false;
        }
        plan.rates[*no] = rate;
    }
    return true;
}

// {"0": 20}
bool read_plan_credits(const json_t* source, Plan& plan) {
    const char* key = nullptr;
    json_t* value = nullptr;
    json_object_foreach(const_cast<json_t*>(source), key, value) {
        const auto no = number_of(key, k_max_credits);
        if (!no || !json_is_integer(value) || json_integer_value(value) < 0) {
            return false;
        }
        plan.credits[*no] = json_integer_value(value);
    }
    return true;
}

// What can be none is passed over: somebody's SQL must not take the catalog from the hosts.
void read_plan_attributes(const json_t* source, Plan& plan) {
    const char* key = nullptr;
    json_t* value = nullptr;
    json_object_foreach(const_cast<json_t*>(source), key, value) {
        auto text = attribute_text(value);
        if (text && valid_attribute_key(key)) {
            plan.attributes[key] = std::move(*text);
        }
    }
}

std::optional<Plan> read_plan(const json_t* source) {
    const auto no = integer_member(source, "no");
    const auto key = text_member(source, "key");
    if (!no || *no < 1 || *no >= static_cast<std::int64_t>(k_max_plans) || !key) {
        return std::nullopt;
    }
    Plan plan;
    plan.no = static_cast<std::uint8_t>(*no);
    plan.key = *key;
    plan.name = text_member(source, "name").value_or(*key);
    plan.rank = static_cast<int>(integer_member(source, "rank").value_or(0));
    plan.free = true_member(source, "free");
    std::size_t index = 0;
    json_t* feature = nullptr;
    json_array_foreach(json_object_get(source, "features"), index, feature) {
        const auto number = json_is_integer(feature) ? json_integer_value(feature) : -1;
        if (number < 0 || number >= static_cast<json_int_t>(k_max_features)) {
            return std::nullopt;
        }
        plan.features.set(static_cast<std::size_t>(number));
    }
    if (!read_allowances(json_object_get(source, "limits"), k_max_limits, plan.limits) ||
        !read_allowances(json_object_get(source, "stock"), k_max_stocks, plan.stock) ||
        !read_plan_rates(json_object_get(source, "rates"), plan) ||
        !read_plan_credits(json_object_get(source, "credits"), plan)) {
        return std::nullopt;
    }
    read_plan_attributes(json_object_get(source, "attributes"), plan);
    return plan;
}

std::optional<Limit> read_limit(const char* key, const json_t* source) {
    const auto no = integer_member(source, "no");
    const auto period = parse_period(text_member(source, "period").value_or(""));
    const std::int64_t length = integer_member(source, "length").value_or(0);
    if (!no || *no < 0 || *no >= static_cast<std::int64_t>(k_max_limits) || !period ||
        (*period == PeriodKind::sliding && (length < k_least_sliding || length > k_most_sliding))) {
        return std::nullopt;
    }
    return Limit{static_cast<std::uint8_t>(*no), key, *period, length, true_member(source, "overage")};
}

// {"logo": 0}: what has nothing but a name and a number. The name of one without a number, or "".
template <class Named>
std::string read_named(const json_t* source, std::size_t most, std::vector<Named>& all) {
    const char* key = nullptr;
    json_t* value = nullptr;
    json_object_foreach(const_cast<json_t*>(source), key, value) {
        const auto number = json_is_integer(value) ? json_integer_value(value) : -1;
        if (number < 0 || number >= static_cast<json_int_t>(most)) {
            return key;
        }
        all.push_back({static_cast<std::uint8_t>(number), key});
    }
    return "";
}

} // namespace

bool valid_attribute_key(std::string_view key) noexcept {
    return !key.empty() && key.size() <= 48 && std::all_of(key.begin(), key.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
    });
}

std::optional<std::string> attribute_text(const json_t* value) {
    if (json_is_boolean(value)) {
        return json_is_true(value) ? "1" : "0";
    }
    if (json_is_integer(value)) {
        return std::to_string(json_integer_value(value));
    }
    if (!json_is_string(value)) {
        return std::nullopt;
    }
    std::string text{json_string_value(value), json_string_length(value)};
    const bool printable = std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
    return text.empty() || text.size() > 255 || !printable ? std::nullopt : std::optional{std::move(text)};
}

Allowance Plan::allowance(std::uint8_t limit_no) const {
    const auto found = limits.find(limit_no);
    return found == limits.end() ? Allowance{} : found->second;
}

Result<Catalog> Catalog::read(std::string_view document) {
    auto parsed = parse_json(document);
    if (!parsed) {
        return Error{"catalog document is not JSON: " + parsed.error()};
    }
    const json_t* root = parsed.value().get();
    Catalog catalog;
    const auto stamp = from_hex16(text_member(root, "stamp").value_or(""));
    const auto default_plan = integer_member(root, "default_plan");
    if (!stamp || !default_plan) {
        return Error{"catalog document lacks stamp or default_plan; run ngx-billing catalog apply"};
    }
    catalog.stamp_ = *stamp;
    catalog.default_plan_ = static_cast<std::uint8_t>(*default_plan);
    const char* key = nullptr;
    json_t* value = nullptr;
    json_object_foreach(json_object_get(root, "features"), key, value) {
        const auto number = json_is_integer(value) ? json_integer_value(value) : -1;
        if (number < 0 || number >= static_cast<json_int_t>(k_max_features)) {
            return Error{std::string{"catalog document: feature "} + key + " has no number"};
        }
        catalog.features_[key] = static_cast<std::size_t>(number);
    }
    json_object_foreach(json_object_get(root, "limits"), key, value) {
        auto limit = read_limit(key, value);
        if (!limit) {
            return Error{std::string{"catalog document: limit "} + key + " has no number, period or length"};
        }
        catalog.limits_.push_back(std::move(*limit));
    }
    if (auto nameless = read_named(json_object_get(root, "rates"), k_max_rates, catalog.rates_); !nameless.empty()) {
        return Error{"catalog document: rate " + nameless + " has no number"};
    }
    if (auto nameless = read_named(json_object_get(root, "credits"), k_max_credits, catalog.credits_);
        !nameless.empty()) {
        return Error{"catalog document: credit " + nameless + " has no number"};
    }
    if (auto nameless = read_named(json_object_get(root, "stock"), k_max_stocks, catalog.stock_); !nameless.empty()) {
        return Error{"catalog document: stock " + nameless + " has no number"};
    }
    std::size_t index = 0;
    json_array_foreach(json_object_get(root, "plans"), index, value) {
        auto plan = read_plan(value);
        if (!plan) {
            return Error{"catalog document: plan " + std::to_string(index) + " is malformed"};
        }
        catalog.plans_.push_back(std::move(*plan));
    }
    if (catalog.plan(catalog.default_plan_) == nullptr) {
        return Error{"catalog document: the default plan is not among the plans"};
    }
    return catalog;
}

const Plan* Catalog::plan(std::uint8_t no) const noexcept {
    const auto found = std::find_if(plans_.begin(), plans_.end(), [no](const Plan& plan) { return plan.no == no; });
    return found == plans_.end() ? nullptr : &*found;
}

const Plan* Catalog::plan(std::string_view key) const noexcept {
    const auto found = std::find_if(plans_.begin(), plans_.end(), [key](const Plan& plan) { return plan.key == key; });
    return found == plans_.end() ? nullptr : &*found;
}

const Limit* Catalog::limit(std::string_view key) const noexcept {
    const auto found =
        std::find_if(limits_.begin(), limits_.end(), [key](const Limit& limit) { return limit.key == key; });
    return found == limits_.end() ? nullptr : &*found;
}

const Rate* Catalog::rate(std::string_view key) const noexcept {
    const auto found = std::find_if(rates_.begin(), rates_.end(), [key](const Rate& rate) { return rate.key == key; });
    return found == rates_.end() ? nullptr : &*found;
}

const Credit* Catalog::credit(std::string_view key) const noexcept {
    const auto found =
        std::find_if(credits_.begin(), credits_.end(), [key](const Credit& credit) { return credit.key == key; });
    return found == credits_.end() ? nullptr : &*found;
}

const Stock* Catalog::stock(std::string_view key) const noexcept {
    const auto found =
        std::find_if(stock_.begin(), stock_.end(), [key](const Stock& stock) { return stock.key == key; });
    return found == stock_.end() ? nullptr : &*found;
}

std::optional<std::size_t> Catalog::feature(std::string_view key) const noexcept {
    const auto found = features_.find(key);
    return found == features_.end() ? std::nullopt : std::optional{found->second};
}

} // namespace billing
