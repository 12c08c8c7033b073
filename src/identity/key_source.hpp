// Where a worker's verification keys come from, and how they stay current: a secret, a JWKS file that is looked at each
// second, or a JWKS address that is asked in the background. Never touched for a request; what was read last stays
// until something newer has been read whole. One for each `billing_jwt`, in each worker.
#pragma once

#include "async/complaint.hpp"
#include "async/scope.hpp"
#include "async/signal.hpp"
#include "async/task.hpp"
#include "drivers/http_client.hpp"
#include "identity/kept_text.hpp"
#include "identity/token_key.hpp"

#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <sys/stat.h>

namespace billing {

// One of secret, file and url.
struct KeySourceConfig {
    TokenAlg alg = TokenAlg::hs256;
    std::string secret;
    std::string file;
    std::string url;     // https, or http to this very host
    std::string ca_file; // for url; "" = the system's
    std::string text;    // of the file, as the master read it
};

// The text of a file, or why not. Regular files only: nothing here may wait.
Result<std::string> read_key_file(const std::string& path);

class KeySource {
public:
    // `memory` holds what was fetched from url before this process began.
    KeySource(Reactor& reactor, KeySourceConfig config, KeptText memory);

    // Follows file or url in the scope, which is cancelled before stop().
    void start(Scope& scope);
    void stop() noexcept;

    // False: no key has ever been read, so nothing can be said about any token.
    bool known() const noexcept { return generation_ != 0; }
    // Goes up whenever the keys have changed.
    std::uint64_t generation() const noexcept { return generation_; }
    const TokenKey* find(const std::string* kid) const noexcept { return keys_.find(kid); }

    // A token names a key that is not here: the address is asked soon, however often this is said.
    void want_newer() noexcept { wanted_.set(); }

private:
    Task<void> follow_file();
    Task<void> follow_url();
    Task<bool> fetch();
    void look_at_file();
    bool take(const std::string& text);
    std::int64_t jittered(std::int64_t ms) noexcept;
    std::string where() const;

    Reactor& reactor_;
    KeySourceConfig config_;
    KeptText memory_;
    std::optional<HttpClient> http_;
    Signal wanted_;
    Complaint trouble_;
    std::minstd_rand random_;
    KeySet keys_;
    std::string text_; // what keys_ were read from
    std::uint64_t generation_ = 0;
    struct stat seen_ {};
};

} // namespace billing
