#include "gate/strict_path.hpp"

#include <cstddef>
#include <cstdint>

namespace billing {

namespace {

int hex_digit(char c) noexcept {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    const char lower = static_cast<char>(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// One byte of the path after another, decoded once.
class Bytes {
public:
    explicit Bytes(std::string_view path) noexcept : path_(path) {}

    bool at_end() const noexcept { return at_ == path_.size(); }
    // -1: a `%` that is followed by no two digits. `encoded`: it was written with one.
    int next(bool& encoded) noexcept {
        const char c = path_[at_++];
        encoded = c == '%';
        if (!encoded) {
            return static_cast<unsigned char>(c);
        }
        if (path_.size() - at_ < 2) {
            return -1;
        }
        const int high = hex_digit(path_[at_]);
        const int low = hex_digit(path_[at_ + 1]);
        at_ += 2;
        return high < 0 || low < 0 ? -1 : high * 16 + low;
    }

private:
    std::string_view path_;
    std::size_t at_ = 0;
};

// The rest of a character that begins with `first` (>= 0x80). The second byte's range excludes longer forms of what is
// shorter, surrogates, and what lies beyond Unicode.
bool skip_character(int first, Bytes& bytes) noexcept {
    const int more = first >= 0xc2 && first <= 0xdf   ? 1
                     : (first & 0xf0) == 0xe0         ? 2
                     : first >= 0xf0 && first <= 0xf4 ? 3
                                                      : 0;
    int least = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    int most = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    for (int index = 0; index < more; ++index) {
        bool encoded = false;
        const int byte = bytes.at_end() ? -1 : bytes.next(encoded);
        if (byte < least || byte > most) {
            return false;
        }
        least = 0x80;
        most = 0xbf;
    }
    return more != 0;
}

bool has_plain_parts(std::string_view path) noexcept {
    std::size_t begin = 1;
    for (;;) {
        const std::size_t end = path.find('/', begin);
        const std::string_view part = path.substr(begin, end == std::string_view::npos ? end : end - begin);
        if (part == "." || part == ".." || (part.empty() && end != std::string_view::npos)) {
            return false;
        }
        if (end == std::string_view::npos) {
            return true;
        }
        begin = end + 1;
    }
}

} // namespace

bool is_plain_path(std::string_view target) noexcept {
    const std::string_view path = target.substr(0, target.find_first_of("?#"));
    if (path.empty() || path.front() != '/' || !has_plain_parts(path)) {
        return false;
    }
    Bytes bytes{path};
    while (!bytes.at_end()) {
        bool encoded = false;
        const int byte = bytes.next(encoded);
        if (byte < 0x20 || byte == 0x7f || byte == ';' || byte == '\\' ||
            (encoded && (byte == '/' || byte == '.' || byte == '%')) ||
            (byte >= 0x80 && !skip_character(byte, bytes))) {
            return false;
        }
    }
    return true;
}

} // namespace billing
