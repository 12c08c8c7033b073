// One line in the log for one trouble, however often it is met: said again only when it changes, or after it had been
// settled. Owned by who meets the trouble; any process.
#pragma once

#include "async/reactor.hpp"

#include <string>
#include <utility>

namespace billing {

class Complaint {
public:
    explicit Complaint(Reactor& reactor) noexcept : reactor_(reactor) {}

    // `text`: what, and what to do. Never a secret.
    void say(std::string text) {
        if (text != said_) {
            reactor_.log(LogLevel::error, "billing: " + text);
            said_ = std::move(text);
        }
    }
    void settled() noexcept { said_.clear(); }

private:
    Reactor& reactor_;
    std::string said_;
};

} // namespace billing
