// A pull scanner over JSON text: walks over an object, hands out the members that are asked for, checks the grammar of
// the rest and builds nothing. Used by event.cpp, where the signed body of a webhook is looked at.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace billing {

class JsonScanner {
public:
    // `text` outlives it.
    explicit JsonScanner(std::string_view text) noexcept
        : begin_(text.data()), at_(begin_), end_(begin_ + text.size()) {}

    // A string token, without its quotes.
    struct Text {
        std::string_view raw;
        bool escaped = false; // it has backslashes
        // What it means; "" if nothing valid.
        std::string decoded() const;
        bool is(std::string_view name) const { return escaped ? decoded() == name : raw == name; }
    };

    // Each of these takes one value. After a failure all of them do nothing.

    // The next byte which is no white space; '\0' at the end or after a failure.
    char peek() noexcept;
    Text string() noexcept;
    // Any value; its text if it is a number or a literal, else "".
    std::string_view skip() noexcept;
    // An object: `on_member(i)` for the member names[i], where it has to take the value. Other members are skipped. One
    // of the names given twice is a failure.
    template <class OnMember>
    void object(std::span<const std::string_view> names, OnMember on_member) {
        unsigned seen = 0;
        for (bool more = enter('{', '}'); more; more = next('}')) {
            const Text key = member();
            std::size_t which = 0;
            while (which < names.size() && !key.is(names[which]))
                ++which;
            if (which == names.size())
                skip();
            else if ((seen >> which & 1U) != 0)
                fail("a key given twice");
            else {
                seen |= 1U << which;
                on_member(which);
            }
        }
    }

    // Nothing but white space may be left.
    void finish() noexcept;
    void fail(const char* problem) noexcept;
    bool ok() const noexcept { return problem_ == nullptr; }
    const char* problem() const noexcept { return problem_; }
    std::size_t position() const noexcept { return static_cast<std::size_t>(failed_at_ - begin_); }

private:
    // Into an object or array; false if it is empty (and has been left).
    bool enter(char open, char close) noexcept;
    // After a member or element: true if another one follows, else it has been left.
    bool next(char close) noexcept;
    Text member() noexcept; // key and colon
    void number() noexcept;
    void digits() noexcept;
    bool escape() noexcept;
    void literal(std::string_view text) noexcept;
    void skip_container() noexcept;

    const char* begin_;
    const char* at_;
    const char* end_;
    const char* problem_ = nullptr;
    const char* failed_at_ = nullptr;
    unsigned depth_ = 0;
};

} // namespace billing
