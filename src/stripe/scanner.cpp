#include "stripe/scanner.hpp"

#include <array>

#include "domain/json.hpp"

namespace billing {

namespace {

constexpr unsigned k_max_depth = 200; // Stripe's events have fewer than 20

// Bytes which stand for themselves within a string.
constexpr std::array<bool, 256> k_plain = [] {
    std::array<bool, 256> plain{};
    for (std::size_t byte = 0x20; byte < plain.size(); ++byte)
        plain[byte] = byte != '"' && byte != '\\';
    return plain;
}();

bool is_digit(char byte) noexcept { return byte >= '0' && byte <= '9'; }

bool is_hex(char byte) noexcept {
    return is_digit(byte) || (byte >= 'a' && byte <= 'f') || (byte >= 'A' && byte <= 'F');
}

} // namespace

std::string JsonScanner::Text::decoded() const {
    if (!escaped)
        return std::string(raw);
    const std::string token = '"' + std::string(raw) + '"';
    const Json value{json_loadb(token.data(), token.size(), JSON_DECODE_ANY | JSON_ALLOW_NUL, nullptr)};
    return value ? std::string(json_string_value(value.get()), json_string_length(value.get())) : std::string();
}

void JsonScanner::fail(const char* problem) noexcept {
    if (problem_)
        return;
    problem_ = problem;
    failed_at_ = at_;
    at_ = end_;
}

char JsonScanner::peek() noexcept {
    const char* at = at_; // the member would be written at each byte
    while (at != end_ && (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r'))
        ++at;
    at_ = at;
    return at == end_ ? '\0' : *at;
}

void JsonScanner::finish() noexcept {
    peek();
    if (at_ != end_)
        fail("something follows");
}

bool JsonScanner::enter(char open, char close) noexcept {
    if (peek() != open || ++depth_ > k_max_depth) {
        fail(depth_ > k_max_depth ? "nested too deeply" : "not the JSON that was expected");
        return false;
    }
    ++at_;
    if (peek() != close)
        return ok();
    ++at_;
    --depth_;
    return false;
}

bool JsonScanner::next(char close) noexcept {
    const char byte = peek();
    if (at_ == end_ || (byte != ',' && byte != close)) {
        fail("a comma or the end is missing");
        return false;
    }
    ++at_;
    if (byte == ',')
        return true;
    --depth_;
    return false;
}

JsonScanner::Text JsonScanner::member() noexcept {
    const Text key = string();
    if (peek() != ':')
        fail("a colon is missing");
    else
        ++at_;
    return key;
}

JsonScanner::Text JsonScanner::string() noexcept {
    if (peek() != '"') {
        fail("a string is missing");
        return {};
    }
    const char* const first = ++at_;
    bool escaped = false;
    for (;;) {
        const char* at = at_;
        while (at != end_ && k_plain[static_cast<unsigned char>(*at)])
            ++at;
        at_ = at;
        if (at_ == end_ || (*at_ != '"' && *at_ != '\\')) {
            fail("a string is not ended");
            return {};
        }
        if (*at_ == '"')
            break;
        escaped = true;
        if (!escape())
            return {};
    }
    const std::string_view raw(first, static_cast<std::size_t>(at_ - first));
    ++at_;
    return {raw, escaped};
}

bool JsonScanner::escape() noexcept {
    const std::size_t left = static_cast<std::size_t>(end_ - at_);
    const bool known = left >= 2 && std::string_view("\"\\/bfnrtu").find(at_[1]) != std::string_view::npos;
    if (known && at_[1] != 'u') {
        at_ += 2;
        return true;
    }
    if (known && left >= 6 && is_hex(at_[2]) && is_hex(at_[3]) && is_hex(at_[4]) && is_hex(at_[5])) {
        at_ += 6;
        return true;
    }
    fail("an escape which does not exist");
    return false;
}

void JsonScanner::digits() noexcept {
    if (at_ == end_ || !is_digit(*at_))
        fail("not a number");
    while (at_ != end_ && is_digit(*at_))
        ++at_;
}

void JsonScanner::number() noexcept {
    if (*at_ == '-')
        ++at_;
    if (at_ != end_ && *at_ == '0')
        ++at_; // nothing but a fraction or exponent may follow
    else
        digits();
    if (at_ != end_ && *at_ == '.') {
        ++at_;
        digits();
    }
    if (at_ != end_ && (*at_ == 'e' || *at_ == 'E')) {
        ++at_;
        if (at_ != end_ && (*at_ == '+' || *at_ == '-'))
            ++at_;
        digits();
    }
}

void JsonScanner::literal(std::string_view text) noexcept {
    if (std::string_view(at_, static_cast<std::size_t>(end_ - at_)).starts_with(text))
        at_ += text.size();
    else
        fail("not a value");
}

void JsonScanner::skip_container() noexcept {
    const bool object = *at_ == '{';
    const char close = object ? '}' : ']';
    for (bool more = enter(*at_, close); more; more = next(close)) {
        if (object)
            member();
        skip();
    }
}

std::string_view JsonScanner::skip() noexcept {
    const char byte = peek();
    const char* const first = at_;
    switch (byte) {
    case '{':
    case '[':
        skip_container();
        return {};
    case '"':
        string();
        return {};
    case 't':
        literal("true");
        break;
    case 'f':
        literal("false");
        break;
    case 'n':
        literal("null");
        break;
    default:
        if (at_ != end_ && (byte == '-' || is_digit(byte)))
            number();
        else
            fail("not a value");
    }
    return ok() ? std::string_view(first, static_cast<std::size_t>(at_ - first)) : std::string_view();
}

} // namespace billing
