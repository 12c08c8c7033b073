// Tells the operator once when a store is lost and once when it is back, not for each try. Owned by the driver of that
// store.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "async/reactor.hpp"

namespace billing {

class Outage {
public:
    // `what`: "PostgreSQL", "Redis at unix:/path".
    Outage(Reactor& reactor, std::string what) : reactor_(reactor), what_(std::move(what)) {}

    // `why` never holds a password. Said again only if the reason changes.
    void down(std::string_view why, std::int64_t retry_ms) {
        if (reason_ == why)
            return;
        reason_ = why;
        reactor_.log(LogLevel::error, "billing: cannot reach " + what_ + ": " + reason_ + "; next try in " +
                                          std::to_string(retry_ms) + " ms");
    }
    void up() {
        if (!reason_.empty())
            reactor_.log(LogLevel::notice, "billing: " + what_ + " is reachable again");
        reason_.clear();
    }

private:
    Reactor& reactor_;
    std::string what_;
    std::string reason_; // of the outage, empty: none
};

} // namespace billing
