#include "stripe/form.hpp"

namespace billing {

namespace {

void append_escaped(std::string& to, std::string_view text, std::string_view also_plain) {
    constexpr std::string_view digits = "0123456789ABCDEF";
    for (const char byte : text) {
        const bool plain = (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') ||
                           (byte >= 'a' && byte <= 'z') || byte == '-' || byte == '_' || byte == '.' || byte == '~' ||
                           also_plain.find(byte) != also_plain.npos;
        if (plain) {
            to += byte;
            continue;
        }
        const auto code = static_cast<unsigned char>(byte);
        to += '%';
        to += digits[code >> 4];
        to += digits[code & 15];
    }
}

} // namespace

std::string escape(std::string_view text) {
    std::string out;
    append_escaped(out, text, {});
    return out;
}

Form& Form::add(std::string_view key, std::string_view value) {
    std::string name;
    append_escaped(name, key, "[]");
    return append(name, value);
}

Form& Form::add(std::string_view parent, std::string_view name, std::string_view value) {
    std::string key;
    append_escaped(key, parent, "[]");
    key += '[';
    append_escaped(key, name, {});
    key += ']';
    return append(key, value);
}

Form& Form::append(std::string_view escaped_key, std::string_view value) {
    if (!text_.empty())
        text_ += '&';
    text_ += escaped_key;
    text_ += '=';
    append_escaped(text_, value, {});
    return *this;
}

} // namespace billing
