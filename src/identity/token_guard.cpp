#include "identity/token_guard.hpp"

#include "identity/base64url.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <strings.h>

namespace billing {

namespace {

constexpr std::size_t k_max_kid_bytes = 256;
constexpr double k_greatest_time = 9007199254740992.0; // from here on a double is no whole number of seconds

// Keys by address or in the token itself, and extensions that change what is signed: there is no use for them here.
constexpr std::array<const char*, 5> k_refused_members = {"crit", "b64", "jku", "x5u", "jwk"};

// A token for another purpose, signed with the same key, is none of ours (RFC 8725, 3.11).
constexpr std::array<const char*, 3> k_types = {"JWT", "at+jwt", "application/at+jwt"};

Result<Json> read_part(std::string_view part, const char* what) {
    const auto bytes = decode_base64url(part);
    if (!bytes) {
        return Error{std::string{what} + " is not base64url"};
    }
    auto parsed = parse_json(*bytes);
    if (!parsed || !json_is_object(parsed.value().get())) {
        return Error{std::string{what} + " is no JSON object"};
    }
    return parsed;
}

bool is_known_type(const json_t* header) {
    if (json_object_get(header, "typ") == nullptr) {
        return true;
    }
    const std::string type{text_member(header, "typ").value_or("")};
    return std::any_of(k_types.begin(), k_types.end(),
                       [&](const char* known) { return strcasecmp(type.c_str(), known) == 0; });
}

Result<Done> check_header(const json_t* header, const TokenPolicy& policy) {
    if (text_member(header, "alg") != to_text(policy.alg)) {
        return Error{"its alg is not " + std::string{to_text(policy.alg)}};
    }
    for (const char* member : k_refused_members) {
        if (json_object_get(header, member) != nullptr) {
            return Error{std::string{"its header has "} + member};
        }
    }
    if (!is_known_type(header)) {
        return Error{"its typ is not JWT or at+jwt"};
    }
    const json_t* kid = json_object_get(header, "kid");
    if (kid != nullptr && (!json_is_string(kid) || json_string_length(kid) > k_max_kid_bytes)) {
        return Error{"its kid is no short text"};
    }
    return Done{};
}

// Seconds since 1970; a fraction is allowed.
std::optional<std::int64_t> time_claim(const json_t* claims, const char* name) noexcept {
    const json_t* value = json_object_get(claims, name);
    if (!json_is_number(value)) {
        return std::nullopt;
    }
    const double seconds = json_number_value(value);
    if (!(seconds >= 0 && seconds < k_greatest_time)) {
        return std::nullopt;
    }
    return static_cast<std::int64_t>(seconds);
}

bool is_audience(const json_t* claims, std::string_view audience) noexcept {
    const json_t* named = json_object_get(claims, "aud");
    if (!json_is_array(named)) {
        return text_member(claims, "aud") == audience;
    }
    bool found = false;
    for (std::size_t index = 0; index < json_array_size(named); ++index) {
        const json_t* one = json_array_get(named, index);
        found = found ||
                (json_is_string(one) && std::string_view{json_string_value(one), json_string_length(one)} == audience);
    }
    return found;
}

Result<std::int64_t> check_claims(const json_t* claims, const TokenPolicy& policy, std::int64_t now) {
    const auto expires = time_claim(claims, "exp");
    if (!expires) {
        return Error{"its exp is no time"};
    }
    if (now >= *expires + policy.leeway_seconds) {
        return Error{"it has expired"};
    }
    if (json_object_get(claims, "nbf") != nullptr) {
        const auto begins = time_claim(claims, "nbf");
        if (!begins || now + policy.leeway_seconds < *begins) {
            return Error{begins ? "it is not in force yet" : "its nbf is no time"};
        }
    }
    if (!policy.issuer.empty() && text_member(claims, "iss") != policy.issuer) {
        return Error{"it is of another issuer"};
    }
    if (!policy.audience.empty() && !is_audience(claims, policy.audience)) {
        return Error{"it is for another audience"};
    }
    return *expires + policy.leeway_seconds;
}

// nginx knows variables by their names in lower case: a claim in another case is found if only one can be meant.
const json_t* claim(const json_t* claims, const char* name) noexcept {
    if (const json_t* exact = json_object_get(claims, name); exact != nullptr) {
        return exact;
    }
    const json_t* found = nullptr;
    const char* key = nullptr;
    json_t* value = nullptr;
    json_object_foreach(const_cast<json_t*>(claims), key, value) {
        if (strcasecmp(key, name) == 0) {
            if (found != nullptr) {
                return nullptr;
            }
            found = value;
        }
    }
    return found;
}

} // namespace

Result<TokenDraft> inspect_token(std::string_view token, const TokenPolicy& policy, std::int64_t now) {
    if (token.size() > k_max_token_bytes) {
        return Error{"it is longer than " + std::to_string(k_max_token_bytes) + " bytes"};
    }
    const auto first = token.find('.');
    const auto second = first == token.npos ? token.npos : token.find('.', first + 1);
    if (second == token.npos || token.find('.', second + 1) != token.npos) {
        return Error{"it has not three parts"};
    }
    const auto header = read_part(token.substr(0, first), "its header");
    if (!header) {
        return Error{header.error()};
    }
    if (const auto checked = check_header(header.value().get(), policy); !checked) {
        return Error{checked.error()};
    }
    auto signature = decode_base64url(token.substr(second + 1));
    if (!signature || signature->empty()) {
        return Error{"its signature is not base64url"};
    }
    auto claims = read_part(token.substr(first + 1, second - first - 1), "its payload");
    if (!claims) {
        return Error{claims.error()};
    }
    const auto good_until = check_claims(claims.value().get(), policy, now);
    if (!good_until) {
        return Error{good_until.error()};
    }
    TokenDraft draft;
    draft.signed_bytes = token.substr(0, second);
    draft.signature = std::move(*signature);
    if (const auto kid = text_member(header.value().get(), "kid")) {
        draft.kid = *kid;
    }
    draft.claims = std::move(claims).value();
    draft.good_until = good_until.value();
    return draft;
}

std::string claim_text(const json_t* claims, const std::string& name) {
    const json_t* value = claim(claims, name.c_str());
    if (value == nullptr || json_is_null(value)) {
        return {};
    }
    if (json_is_string(value)) {
        return {json_string_value(value), json_string_length(value)};
    }
    const std::unique_ptr<char, decltype(&std::free)> text{json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY),
                                                           &std::free};
    return text ? text.get() : "";
}

} // namespace billing
