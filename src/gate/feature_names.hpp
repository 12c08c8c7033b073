// Which features an account has, by name, for those who are told: its plan's, and its own exceptions. Called in the
// worker.
#pragma once

#include "domain/catalog.hpp"
#include "state/table.hpp"

#include <string>
#include <string_view>

namespace billing {

inline FeatureSet feature_set(const FeatureMask& mask) noexcept {
    return FeatureSet{mask.word[1]} << 64 | FeatureSet{mask.word[0]};
}

// "chatbot,svg_export", in alphabetical order. Of an account that shared memory does not know, what the plan has.
std::string feature_names(const Table& table, const Catalog& catalog, std::string_view account, std::uint8_t plan_no);

} // namespace billing
