// What a client of checkout and portal may say: a handful of named texts, in a JSON object, a form or the query. Pure.
#pragma once

#include "domain/result.hpp"
#include "endpoints/exchange.hpp"

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace billing {

class Input {
public:
    // An error: a body that is neither, is not well-formed, or names something twice. Members that are no texts
    // are as JSON has them, so that who asks finds what is none of its words; null is not there.
    static Result<Input> read(const Request& request);

    // The first of these names that is there and not empty, or "". The body goes before the query.
    std::string_view text(std::initializer_list<std::string_view> names) const noexcept;
    // Of one place alone, or "".
    std::string_view body_text(std::string_view name) const noexcept;
    std::string_view query_text(std::string_view name) const noexcept;
    // true or false, also on or off; nothing: it is not there, or none of these.
    std::optional<bool> flag(std::string_view name) const noexcept;

private:
    std::vector<std::pair<std::string, std::string>> members_;
    std::size_t of_body_ = 0; // so many of them, the first
};

} // namespace billing
