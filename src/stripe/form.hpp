// Bodies and queries as Stripe's v1 API wants them: application/x-www-form-urlencoded, nested by brackets. Pure.
//
//   Form form;
//   form.add("line_items[0][price]", price).add("line_items[0][quantity]", 1);
//   form.add("metadata", name, account);     // metadata[<name>]=<account>
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace billing {

// Everything but letters, digits and "-_.~" as %XX: for one part of a path or a query.
std::string escape(std::string_view text);

class Form {
public:
    Form() = default;

    // `key` is a name of ours: its brackets are structure and stay. A value is escaped once, so that
    // "{CHECKOUT_SESSION_ID}" arrives as it is written here. An empty value unsets the parameter at Stripe.
    Form& add(std::string_view key, std::string_view value);
    Form& add(std::string_view key, const char* value) { return add(key, std::string_view(value)); }
    Form& add(std::string_view key, const std::string& value) { return add(key, std::string_view(value)); }
    // Numbers in decimal, bool as true or false.
    template <std::integral Number>
    requires(!std::same_as<Number, char>) Form& add(std::string_view key, Number value) {
        if constexpr (std::same_as<Number, bool>)
            return add(key, std::string_view(value ? "true" : "false"));
        else
            return add(key, std::string_view(std::to_string(value)));
    }
    // parent[name]=value with a name from settings: what is in it is no structure.
    Form& add(std::string_view parent, std::string_view name, std::string_view value);

    bool empty() const noexcept { return text_.empty(); }
    // "a[b][0][c]=v&d=e".
    const std::string& text() const noexcept { return text_; }

private:
    Form& append(std::string_view escaped_key, std::string_view value);

    std::string text_;
};

} // namespace billing
