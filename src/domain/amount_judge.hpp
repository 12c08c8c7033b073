// Judges what a plan gives of something, and on which terms more of it may be taken. Pure; the judge of the catalog's
// file is one.
#pragma once

#include "domain/amounts.hpp"
#include "domain/file_judge.hpp"

#include <algorithm>
#include <string>

namespace billing {

class AmountJudge : protected FileJudge {
protected:
    void amount(const json_t* value, const std::string& path, bool may_be_unlimited) {
        const bool number = json_is_integer(value) && json_integer_value(value) >= 0;
        if (!number && !(may_be_unlimited && json_is_null(value))) {
            problem(path, may_be_unlimited ? "must be a whole number from 0, or null for unlimited"
                                           : "must be a whole number from 0");
        }
    }

    // What units beyond the plan's cost, and how many there may be.
    void overage(const json_t* value, const std::string& path) {
        if (!json_is_object(value)) {
            problem(path, "must be an object with an amount");
            return;
        }
        known_members(value, path, {"amount", "cap", "always", "meter"});
        if (!valid_unit_price(text_member(value, "amount").value_or(""))) {
            problem(path + ".amount",
                    "must be what one unit costs in the currency's smallest unit, as \"40\" for 0.40 or "
                    "\"0.5\", in quotes, with up to 12 digits and 6 decimals");
        }
        if (json_object_get(value, "cap") != nullptr && integer_member(value, "cap").value_or(0) < 1) {
            problem(path + ".cap", "must be a whole number from 1; leave it out for no cap");
        }
        yes_or_no(json_object_get(value, "always"), path + ".always");
        const auto meter = text_member(value, "meter").value_or("");
        if (json_object_get(value, "meter") != nullptr &&
            (meter.empty() || meter.size() > 100 ||
             !std::all_of(meter.begin(), meter.end(), [](char c) { return c > ' ' && c <= '~'; }))) {
            problem(path + ".meter", "must be the event name of a meter at Stripe, of 1-100 printable characters");
        }
    }
};

} // namespace billing
