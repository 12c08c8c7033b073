// Making commands and reading replies. Called by whoever has one.
#include "drivers/redis_value.hpp"

#include <hiredis/hiredis.h>
#include <openssl/evp.h>

#include <stdexcept>

namespace billing {

RedisArgs& RedisArgs::add(std::string_view text) {
    bytes_.append(text);
    ends_.push_back(bytes_.size());
    return *this;
}

RedisArgs& RedisArgs::add(const std::vector<std::string>& texts) {
    for (const std::string& text : texts)
        add(text);
    return *this;
}

std::string_view RedisArgs::operator[](std::size_t i) const noexcept {
    const std::size_t start = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(bytes_).substr(start, ends_[i] - start);
}

RedisReply RedisReply::copy(const redisReply& reply) {
    RedisReply out;
    const auto text = [&reply] { return reply.str ? std::string(reply.str, reply.len) : std::string(); };
    switch (reply.type) {
    case REDIS_REPLY_NIL:
        out.kind_ = RedisKind::nil;
        break;
    case REDIS_REPLY_STATUS:
        out.kind_ = RedisKind::status;
        out.text_ = text();
        break;
    case REDIS_REPLY_STRING:
        out.kind_ = RedisKind::string;
        out.text_ = text();
        break;
    case REDIS_REPLY_INTEGER:
        out.kind_ = RedisKind::integer;
        out.integer_ = reply.integer;
        break;
    case REDIS_REPLY_ARRAY:
        out.kind_ = RedisKind::array;
        out.elements_.reserve(reply.elements);
        for (std::size_t i = 0; i < reply.elements; ++i)
            out.elements_.push_back(copy(*reply.element[i]));
        break;
    case REDIS_REPLY_ERROR:
        out.kind_ = RedisKind::error;
        out.text_ = text();
        break;
    default:
        out.kind_ = RedisKind::error;
        out.text_ = "a reply of an unknown type";
        break;
    }
    return out;
}

const RedisReply& RedisReply::operator[](std::size_t i) const noexcept {
    static const RedisReply nil(RedisKind::nil, {});
    return i < elements_.size() ? elements_[i] : nil;
}

RedisScript::RedisScript(std::string_view source) : source_(source) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    if (EVP_Digest(source.data(), source.size(), digest, &size, EVP_sha1(), nullptr) != 1)
        throw std::runtime_error("SHA-1 is not to be had from OpenSSL");
    for (unsigned int i = 0; i < size; ++i) {
        sha1_ += "0123456789abcdef"[digest[i] >> 4];
        sha1_ += "0123456789abcdef"[digest[i] & 15];
    }
}

} // namespace billing
