#include "domain/catalog_file.hpp"

#include "domain/amount_judge.hpp"
#include "domain/amounts.hpp"
#include "domain/catalog_settings.hpp"
#include "domain/file_judge.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>

namespace billing {

namespace {

const std::string& name_of(const std::string& name) noexcept { return name; }
template <class T>
const std::string& name_of(const std::pair<const std::string, T>& entry) noexcept {
    return entry.first;
}

template <class Names>
std::string join(const Names& names) {
    std::string text;
    for (const auto& name : names) {
        text += (text.empty() ? "" : ", ") + name_of(name);
    }
    return text.empty() ? "none" : text;
}

} // namespace

// Walks the document once and collects every problem, so that an operator mends a file in one go.
class CatalogJudge : private AmountJudge {
public:
    explicit CatalogJudge(CatalogFile& file) : file_(file) {}

    std::string judge(const json_t* root) {
        if (!json_is_object(root)) {
            return "the file must hold one JSON object with \"plans\"";
        }
        known_members(
            root, "",
            {"default_plan", "policies", "features", "quotas", "rates", "credits", "stock", "plans", "packs"});
        declared_features(json_object_get(root, "features"));
        quotas(json_object_get(root, "quotas"));
        names(json_object_get(root, "rates"), "rates", file_.rates_);
        names(json_object_get(root, "credits"), "credits", file_.credits_);
        names(json_object_get(root, "stock"), "stock", file_.stock_);
        plans(json_object_get(root, "plans"));
        packs(json_object_get(root, "packs"));
        policies(json_object_get(root, "policies"));
        default_plan(root);
        if (file_.features_.size() > k_max_features) {
            problem("features", "more than 128 features; merge some");
        }
        if (file_.rates_.size() > k_max_rates) {
            problem("rates", "more than 64 rates");
        }
        if (file_.stock_.size() > k_max_stocks) {
            problem("stock", "more than 64 stocks");
        }
        return problems();
    }

private:
    void feature_list(const json_t* list, const std::string& path) {
        if (list == nullptr) {
            return;
        }
        if (!json_is_array(list)) {
            problem(path, "must be a list of feature names");
            return;
        }
        for (std::size_t index = 0; index < json_array_size(list); ++index) {
            const json_t* item = json_array_get(list, index);
            if (!json_is_string(item) || !valid_key(json_string_value(item))) {
                problem(path + "[" + std::to_string(index) + "]", "must be a feature's name");
                continue;
            }
            file_.features_.insert(json_string_value(item));
        }
    }

    void declared_features(const json_t* list) { feature_list(list, "features"); }

    void quotas(const json_t* object) {
        each(object, "quotas", [this](const std::string& key, const json_t* value, const std::string& path) {
            auto& windows = file_.quotas_[key];
            const json_t* several = json_object_get(value, "windows");
            if (several == nullptr) {
                known_members(value, path, {"period", "length", "windows"});
                windows.emplace(window(value, path, key), key);
                limits_ += 1;
                return;
            }
            known_members(value, path, {"windows"});
            each(several, path + ".windows", [&](const std::string& name, const json_t* one, const std::string& where) {
                known_members(one, where, {"period", "length"});
                window(one, where, key + ":" + name);
                if (name == "quantity") {
                    problem(where, "\"quantity\" is an amount's own member; give the window another name");
                }
                windows.emplace(name, key + ":" + name);
                limits_ += 1;
                if (key.size() + 1 + name.size() > 64) {
                    problem(where, "the quota's name and the window's have more than 63 bytes together");
                }
            });
            if (windows.empty()) {
                problem(path + ".windows", "must name at least one window");
            }
        });
        if (limits_ > k_max_limits) {
            problem("quotas", "more than 64 quotas, each window counted");
        }
    }

    // Judges {"period": ..., "length": ...} of a limit; answers the period's word.
    std::string window(const json_t* value, const std::string& path, const std::string& limit) {
        const auto text = text_member(value, "period").value_or("");
        const auto period = parse_period(text);
        if (period == PeriodKind::sliding || period == PeriodKind::lifetime) {
            endless_.insert(limit);
        }
        const json_t* length = json_object_get(value, "length");
        if (!period) {
            problem(path + ".period", "must be one of minute, hour, day, month, cycle, sliding, lifetime");
        } else if (*period != PeriodKind::sliding && length != nullptr) {
            problem(path + ".length", "only a sliding window has a length; remove it");
        } else if (*period == PeriodKind::sliding) {
            const auto seconds = parse_duration(text_member(value, "length").value_or(""));
            if (!seconds || *seconds < k_least_sliding || *seconds > k_most_sliding) {
                problem(path + ".length", "must be a time from 1m to 366d, as \"24h\"");
            }
        }
        return std::string{text};
    }

    // Names that have nothing to say of themselves.
    void names(const json_t* object, const std::string& where, std::set<std::string, std::less<>>& into) {
        each(object, where, [&](const std::string& key, const json_t* value, const std::string& path) {
            into.insert(key);
            if (!json_is_object(value) || json_object_size(value) != 0) {
                problem(path, "must be {}");
            }
        });
    }

    void plan_credits(const json_t* object, const std::string& path) {
        each(object, path, [&](const std::string& key, const json_t* value, const std::string& where) {
            if (!file_.credits_.contains(key)) {
                problem(where, "is not declared; declared: " + join(file_.credits_));
            }
            if (!json_is_object(value)) {
                amount(value, where, false);
                return;
            }
            known_members(value, where, {"quantity", "warn", "overage"});
            amount(json_object_get(value, "quantity"), where + ".quantity", false);
            if (const json_t* warn = json_object_get(value, "warn");
                warn != nullptr && !parse_percent(text_member(value, "warn").value_or(""))) {
                problem(where + ".warn",
                        "must be how much of it is gone when the account is told, from \"1%\" to \"100%\"");
            }
            if (const json_t* beyond = json_object_get(value, "overage"); beyond != nullptr) {
                overage(beyond, where + ".overage");
            }
        });
    }

    void plan_stock(const json_t* object, const std::string& path) {
        each(object, path, [&](const std::string& key, const json_t* value, const std::string& where) {
            if (!file_.stock_.contains(key)) {
                problem(where, "is not declared; declared: " + join(file_.stock_));
            }
            amount(value, where, true);
        });
    }

    // 50, null, or {"quantity": 50, "overage": {...}}.
    void quota_amount(const json_t* value, const std::string& path, const std::string& limit) {
        if (json_object_get(value, "quantity") == nullptr) {
            amount(value, path, true);
            return;
        }
        known_members(value, path, {"quantity", "overage"});
        const json_t* beyond = json_object_get(value, "overage");
        amount(json_object_get(value, "quantity"), path + ".quantity", beyond == nullptr);
        if (beyond != nullptr && endless_.contains(limit)) {
            problem(path + ".overage",
                    "is charged for when a period closes; a sliding or lifetime quota has none that does");
        } else if (beyond != nullptr) {
            overage(beyond, path + ".overage");
        }
    }

    void plan_quotas(const json_t* object, const std::string& path) {
        each(object, path, [&](const std::string& key, const json_t* value, const std::string& where) {
            const auto quota = file_.quotas_.find(key);
            if (quota == file_.quotas_.end()) {
                problem(where, "is not declared; declared: " + join(file_.quotas_));
            } else if (quota->second.size() == 1 && quota->second.begin()->second == key) {
                quota_amount(value, where, key);
            } else {
                window_amounts(value, where, quota->second);
            }
        });
    }

    // {"day": 100, "month": null}: each window has its amount, so that none is forgotten.
    void window_amounts(const json_t* value, const std::string& path, const CatalogFile::Windows& windows) {
        if (!json_is_object(value)) {
            problem(path, "must be an object with an amount for each of its windows: " + join(windows));
            return;
        }
        each(value, path, [&](const std::string& name, const json_t* units, const std::string& where) {
            const auto window = windows.find(name);
            if (window == windows.end()) {
                problem(where, "is no window of this quota; there are: " + join(windows));
            }
            quota_amount(units, where, window == windows.end() ? name : window->second);
        });
        for (const auto& [name, limit] : windows) {
            if (json_object_get(value, name.c_str()) == nullptr) {
                missing(path, name, "write an amount, or null for unlimited");
            }
        }
    }

    // Each plan says each rate, so that no plan is without one by an oversight.
    void plan_rates(const json_t* object, const std::string& path) {
        each(object, path, [&](const std::string& key, const json_t* value, const std::string& where) {
            if (!file_.rates_.contains(key)) {
                problem(where, "is not declared; declared: " + join(file_.rates_));
            }
            if (!json_is_null(value) && !parse_rate(json_is_string(value) ? json_string_value(value) : "")) {
                problem(where, "must be COUNT/TIME, as \"10/min\" or \"100/10s\", or null for no limit");
            }
        });
        for (const auto& rate : file_.rates_) {
            if (json_object_get(object, rate.c_str()) == nullptr) {
                missing(path, rate, "write COUNT/TIME, as \"10/min\", or null for no limit");
            }
        }
    }

    void price(const json_t* value, const std::string& path) {
        if (!json_is_object(value)) {
            problem(path, "must be an object with id, amount and currency");
            return;
        }
        known_members(value, path, {"id", "amount", "currency"});
        const auto id = text_member(value, "id").value_or("");
        if (id.starts_with("prod_")) {
            problem(path + ".id", "\"" + std::string{id} +
                                      "\" is a Stripe product; write the id of one of its prices "
                                      "(price_...), shown in the product's list of prices");
        } else if (json_object_get(value, "id") == nullptr) {
            // to be made at Stripe by "catalog push", until when it is not for sale
        } else if (!id.starts_with("price_")) {
            problem(path + ".id", "must be a Stripe price id (price_...)");
        } else if (const auto [known, fresh] = prices_.emplace(id, path); !fresh) {
            problem(path + ".id", "is used already at " + known->second + "; one price maps to one plan or pack");
        }
        const json_t* amount = json_object_get(value, "amount");
        if (!json_is_integer(amount) || json_integer_value(amount) < 0) {
            problem(path + ".amount", "must be a whole number of the currency's smallest unit, as 2900 for 29.00");
        }
        const auto currency = text_member(value, "currency").value_or("");
        if (currency.size() != 3 ||
            !std::all_of(currency.begin(), currency.end(), [](char c) { return c >= 'a' && c <= 'z'; })) {
            problem(path + ".currency", "must be three lower-case letters, as \"usd\"");
        }
    }

    // For the page at which one pays.
    void description(const json_t* object, const std::string& path) {
        const json_t* value = json_object_get(object, "description");
        if (value != nullptr && (!json_is_string(value) || json_string_length(value) > 500)) {
            problem(path + ".description", "must be a text of at most 500 bytes");
        }
    }

    void plan(const std::string& key, const json_t* value, const std::string& path) {
        if (!json_is_object(value)) {
            problem(path, "must be an object");
            return;
        }
        known_members(value, path,
                      {"name", "description", "rank", "free", "price", "features", "quotas", "rates", "credits",
                       "stock", "rollover", "attributes"});
        description(value, path);
        const auto rank = integer_member(value, "rank");
        if (!rank || *rank < 0 || *rank > 1000) {
            problem(path + ".rank", "must be a whole number from 0 to 1000; a higher plan has a higher rank");
        }
        file_.plans_.push_back({key, rank.value_or(0)});
        const json_t* free = json_object_get(value, "free");
        yes_or_no(free, path + ".free");
        feature_list(json_object_get(value, "features"), path + ".features");
        plan_quotas(json_object_get(value, "quotas"), path + ".quotas");
        plan_rates(json_object_get(value, "rates"), path + ".rates");
        plan_credits(json_object_get(value, "credits"), path + ".credits");
        plan_stock(json_object_get(value, "stock"), path + ".stock");
        yes_or_no(json_object_get(value, "rollover"), path + ".rollover");
        each(json_object_get(value, "price"), path + ".price",
             [this](const std::string& interval, const json_t* price_value, const std::string& where) {
                 if (interval != "month" && interval != "year") {
                     problem(where, "unknown interval; write month or year");
                 }
                 price(price_value, where);
             });
        if (json_is_true(free) && json_object_get(value, "price") != nullptr) {
            problem(path + ".price", "a free plan has no price; remove one of free and price");
        }
        plan_attributes(json_object_get(value, "attributes"), path + ".attributes");
    }

    void plan_attributes(const json_t* object, const std::string& path) {
        if (object != nullptr && !json_is_object(object)) {
            problem(path, "must be an object");
            return;
        }
        const char* key = nullptr;
        json_t* value = nullptr;
        json_object_foreach(const_cast<json_t*>(object), key, value) {
            const std::string where = path + "." + key;
            if (!valid_attribute_key(key)) {
                problem(where, "an attribute's name has 1-48 of a-z 0-9 _");
            } else if (!attribute_text(value)) {
                problem(where, "must be a text of 1-255 printable ASCII characters, a whole number, true or false");
            } else {
                file_.attributes_.insert(key);
            }
        }
        if (json_object_size(object) > k_max_attributes) {
            problem(path, "more than 32 attributes");
        }
    }

    void plans(const json_t* object) {
        if (!json_is_object(object) || json_object_size(object) == 0) {
            problem("plans", "must be an object with at least one plan");
            return;
        }
        each(object, "plans",
             [this](const std::string& key, const json_t* value, const std::string& path) { plan(key, value, path); });
        if (file_.plans_.size() >= k_max_plans) {
            problem("plans", "more than 255 plans");
        }
        std::stable_sort(file_.plans_.begin(), file_.plans_.end(),
                         [](const auto& a, const auto& b) { return a.rank < b.rank; });
    }

    void packs(const json_t* object) {
        each(object, "packs", [this](const std::string&, const json_t* value, const std::string& path) {
            known_members(value, path, {"name", "description", "price", "credit", "quantity"});
            description(value, path);
            price(json_object_get(value, "price"), path + ".price");
            const auto credit = text_member(value, "credit").value_or("");
            if (!file_.credits_.contains(credit)) {
                problem(path + ".credit", "is not declared; declared: " + join(file_.credits_));
            }
            if (integer_member(value, "quantity").value_or(0) < 1) {
                problem(path + ".quantity", "must be a whole number from 1");
            }
        });
    }

    // What changes of plan do to credits; PostgreSQL applies them.
    void policies(const json_t* object) {
        if (object == nullptr) {
            return;
        }
        if (!json_is_object(object)) {
            problem("policies", "must be an object");
            return;
        }
        known_members(object, "policies", {"credits", "free_realloc"});
        const auto credits = text_member(object, "credits").value_or("");
        if (json_object_get(object, "credits") != nullptr && credits != "keep_used" && credits != "reset" &&
            credits != "prorate") {
            problem("policies.credits", "must be one of keep_used, reset, prorate");
        }
        yes_or_no(json_object_get(object, "free_realloc"), "policies.free_realloc");
    }

    void default_plan(const json_t* root) {
        const auto key = text_member(root, "default_plan");
        if (!key) {
            problem("default_plan", "must name the plan of a new account");
        } else if (!file_.has_plan(*key)) {
            problem("default_plan", "\"" + std::string{*key} + "\" is no plan");
        } else if (const json_t* plan = json_object_get(json_object_get(root, "plans"), key->data());
                   !json_is_true(json_object_get(plan, "free")) && json_object_get(plan, "price") != nullptr) {
            problem("default_plan",
                    "must be a plan with \"free\": true, or one without a price: a new account has paid nothing yet");
        }
    }

    CatalogFile& file_;
    std::map<std::string, std::string, std::less<>> prices_; // id -> path
    std::size_t limits_ = 0;
    std::set<std::string> endless_; // limits whose periods never close
};

Result<CatalogFile> CatalogFile::parse(std::string_view text, std::string folder) {
    auto parsed = parse_json(text);
    if (!parsed) {
        return Error{parsed.error()};
    }
    CatalogFile file;
    file.document_ = std::move(parsed).value();
    CatalogSettings settings{std::move(folder), {}};
    if (auto missing = settings.fill_in(file.document_.get()); !missing.empty()) {
        return Error{std::move(missing)};
    }
    file.environment_ = std::move(settings.environment);
    auto problems = CatalogJudge{file}.judge(file.document_.get());
    if (!problems.empty()) {
        return Error{std::move(problems)};
    }
    return file;
}

Result<CatalogFile> CatalogFile::load(const std::string& path) {
    std::ifstream stream{path, std::ios::binary};
    if (!stream) {
        return Error{path + ": cannot be opened for reading"};
    }
    const std::string text{std::istreambuf_iterator<char>{stream}, {}};
    auto file = parse(text, path.substr(0, path.find_last_of('/') + 1));
    return file ? std::move(file) : Error{problems_of(path, file.error())};
}

bool CatalogFile::has_plan(std::string_view key) const noexcept {
    return std::any_of(plans_.begin(), plans_.end(), [key](const PlanName& plan) { return plan.key == key; });
}

} // namespace billing
