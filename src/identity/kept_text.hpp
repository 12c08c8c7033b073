// A text in shared memory that outlives the processes which wrote it: what a worker fetched is there for those who come
// after a reload. No lock: the text stands beside its digest, and a reader who meets a half-written one finds nothing.
#pragma once

#include <openssl/sha.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>

namespace billing {

class KeptText {
public:
    KeptText() noexcept = default; // remembers nothing
    // `block` was zero at first; the same one for all processes.
    KeptText(void* block, std::size_t bytes) noexcept : block_(static_cast<unsigned char*>(block)), bytes_(bytes) {}

    void write(std::string_view text) noexcept {
        if (block_ == nullptr || text.size() + sizeof(Head) > bytes_) {
            return;
        }
        Head head{};
        head.size = text.size();
        head.digest = digest_of(text);
        std::memcpy(block_, &head, sizeof head);
        std::memcpy(block_ + sizeof head, text.data(), text.size());
    }

    // "" when there is none.
    std::string read() const {
        Head head{};
        if (block_ == nullptr) {
            return {};
        }
        std::memcpy(&head, block_, sizeof head);
        if (head.size == 0 || head.size > bytes_ - sizeof head) {
            return {};
        }
        std::string text(reinterpret_cast<const char*>(block_) + sizeof head, head.size);
        return digest_of(text) == head.digest ? text : std::string{};
    }

private:
    using Digest = std::array<unsigned char, SHA256_DIGEST_LENGTH>;
    struct Head {
        std::size_t size;
        Digest digest;
    };

    static Digest digest_of(std::string_view text) noexcept {
        Digest digest{};
        SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
        return digest;
    }

    unsigned char* block_ = nullptr;
    std::size_t bytes_ = 0;
};

} // namespace billing
