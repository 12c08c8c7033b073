// The operator's catalog file: what is for sale, in JSON, written by hand. Read and judged at `nginx -t` and by
// `ngx-billing catalog validate`; `catalog apply` brings it to PostgreSQL, which decides from then on.
#pragma once

#include "domain/catalog.hpp"
#include "domain/json.hpp"
#include "domain/result.hpp"

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace billing {

class CatalogFile {
public:
    // Wrong syntax is told with line and column, wrong meaning with the path of the value (plans.pro.price.month.id).
    // The error holds one problem a line, all that were found. `folder`: of the file, with a slash at its end.
    static Result<CatalogFile> parse(std::string_view text, std::string folder = {});

    // Reads the file first; errors begin with its path.
    static Result<CatalogFile> load(const std::string& path);

    const json_t* document() const noexcept { return document_.get(); }

    struct PlanName {
        std::string key;
        std::int64_t rank;
    };
    const std::vector<PlanName>& plans() const noexcept { return plans_; } // by rank, lowest first
    const std::set<std::string, std::less<>>& features() const noexcept { return features_; }
    // Each quota's windows, and the name that a window's limit has everywhere else. A quota with one period has that
    // as its only window, and its own name as the limit's; of several, the limit's is "QUOTA:WINDOW".
    using Windows = std::map<std::string, std::string, std::less<>>;
    const std::map<std::string, Windows, std::less<>>& quotas() const noexcept { return quotas_; }
    const std::set<std::string, std::less<>>& rates() const noexcept { return rates_; }
    const std::set<std::string, std::less<>>& credits() const noexcept { return credits_; }
    const std::set<std::string, std::less<>>& stock() const noexcept { return stock_; }

    // Of any plan.
    const std::set<std::string, std::less<>>& attributes() const noexcept { return attributes_; }

    // Variables of the environment that it was read with.
    const std::set<std::string, std::less<>>& environment() const noexcept { return environment_; }

    bool has_plan(std::string_view key) const noexcept;

private:
    friend class CatalogJudge;

    Json document_;
    std::vector<PlanName> plans_;
    std::set<std::string, std::less<>> features_;
    std::map<std::string, Windows, std::less<>> quotas_;
    std::set<std::string, std::less<>> rates_;
    std::set<std::string, std::less<>> credits_;
    std::set<std::string, std::less<>> stock_;
    std::set<std::string, std::less<>> attributes_;
    std::set<std::string, std::less<>> environment_;
};

} // namespace billing
