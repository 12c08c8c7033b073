// Credits, and places of a stock, out of PostgreSQL, which alone can give them: taken for a request before it goes on,
// durably, and decided when it is over. All that asks while a statement is under way is the next one. One of each kind
// for each worker; called by gate/.
#pragma once

#include "async/batch.hpp"
#include "async/complaint.hpp"
#include "async/task.hpp"
#include "drivers/postgres.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace billing {

// What a taking is called, in PostgreSQL too: whoever repeats it gets what was done the first time. 1-48 printable
// characters without colon.
class TakingName {
public:
    static constexpr std::size_t k_most = 48;

    TakingName() noexcept = default;
    explicit TakingName(std::string_view text) noexcept
        : size_(static_cast<std::uint8_t>(text.copy(text_.data(), k_most))) {}
    std::string_view view() const noexcept { return {text_.data(), size_}; }
    bool operator==(const TakingName& other) const noexcept { return view() == other.view(); }

private:
    std::array<char, k_most> text_{};
    std::uint8_t size_ = 0;
};

// Units of credits, places of a stock for what is being made, and what is removed from one: that is told when it is
// done, nothing has to be taken for it. And the key of a request (state/idempotency_keys.hpp).
enum class TakingKind : std::uint8_t { credits, stock, removal, key };

// Asked for, and told of, by one statement.
constexpr bool go_together(TakingKind a, TakingKind b) noexcept {
    const auto statement = [](TakingKind kind) { return kind == TakingKind::removal ? TakingKind::stock : kind; };
    return statement(a) == statement(b);
}

class CreditTakings {
public:
    static constexpr std::size_t k_max_wants = 4;

    struct Want {
        std::uint8_t no = 0; // of the type of credits, or the stock
        std::uint32_t units = 0;
        std::uint32_t hold_seconds = 0;
    };
    // What one request wants, all or nothing.
    struct Ask {
        TakingName name;
        std::uint64_t account_id = 0;
        std::uint32_t count = 0;
        std::array<Want, k_max_wants> wants{};
    };
    struct Answer {
        bool told = true; // false: PostgreSQL could not say, as when somebody holds the row
        bool taken = false;
        struct Line {
            bool enough = false; // this line alone would have been taken
            std::uint64_t remaining = 0;
            std::uint64_t allocated = 0; // of a stock: its limit
            std::int64_t ends = 0;       // of the balance's period, unix seconds; 0 = never
            std::uint64_t used = 0;      // of a stock: what there is and is being made
        };
        std::array<Line, k_max_wants> lines{};

        // Of an ask of so many wants that was refused: the first line that is why.
        std::uint32_t lacking(std::uint32_t count) const noexcept {
            std::uint32_t line = 0;
            while (line + 1 < count && lines[line].enough) {
                ++line;
            }
            return line;
        }
    };

    // References outlive the object; the scope is cancelled before.
    CreditTakings(Scope& scope, Postgres& postgres, TakingKind kind);

    // A name that nobody has used.
    TakingName new_name();

    // Taken once the answer says so. Nothing: nobody knows whether it was; give it back.
    Task<std::optional<Answer>> take(Ask ask);

private:
    Task<std::vector<Answer>> run(std::vector<Ask> asks);
    Task<std::vector<Answer>> run_each(std::vector<Ask> asks);

    Scope& scope_;
    Postgres& postgres_;
    TakingKind kind_;
    Complaint trouble_;
    Batch<Ask, Answer> batch_;
    std::uint64_t worker_; // at random
    std::uint64_t names_ = 0;
};

} // namespace billing
