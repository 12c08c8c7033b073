#include "gate/feature_names.hpp"

namespace billing {

std::string feature_names(const Table& table, const Catalog& catalog, std::string_view account, std::uint8_t plan_no) {
    const Plan* plan = catalog.plan(plan_no);
    FeatureSet held = plan == nullptr ? FeatureSet{} : plan->features;
    AccountView view;
    if (table.find(table.key_of(account), view) && view.has_overrides) {
        held = (held | feature_set(view.on)) & ~feature_set(view.off);
    }
    std::string names;
    for (const auto& [name, number] : catalog.features()) {
        if (held.test(number)) {
            names += (names.empty() ? "" : ",") + name;
        }
    }
    return names;
}

} // namespace billing
