#include "identity/token_verifier.hpp"

namespace billing {

namespace {

TokenAnswer bad(std::string why) { return {TokenVerdict::bad, nullptr, std::move(why)}; }

} // namespace

TokenAnswer TokenVerifier::check(std::string_view token) {
    if (token.size() > k_max_token_bytes) {
        return bad("it is longer than " + std::to_string(k_max_token_bytes) + " bytes");
    }
    const std::int64_t now = reactor_.unix_ms() / 1000;
    const Hash128 hash = good_.hash(token);
    if (const Good* known = good_.find(hash);
        known != nullptr && known->until > now && known->generation == keys_.generation()) {
        return {TokenVerdict::good, known->claims, {}};
    }
    auto draft = inspect_token(token, policy_, now);
    if (!draft) {
        return bad(draft.error());
    }
    if (!keys_.known()) {
        return {TokenVerdict::unknown, nullptr, {}};
    }
    TokenDraft& drafted = draft.value();
    // A secret has no name: whatever the token calls it.
    const bool named = drafted.kid && policy_.alg != TokenAlg::hs256;
    const TokenKey* key = keys_.find(named ? &*drafted.kid : nullptr);
    if (key == nullptr) {
        keys_.want_newer();
        return bad(named ? "its kid is none of the keys'" : "it has no kid, and there are several keys");
    }
    ++verified_;
    if (!key->verifies(drafted.signed_bytes, drafted.signature)) {
        return bad("its signature is wrong");
    }
    Claims claims = std::make_shared<const Json>(std::move(drafted.claims));
    good_.put(hash, {claims, drafted.good_until, keys_.generation()});
    return {TokenVerdict::good, std::move(claims), {}};
}

} // namespace billing
