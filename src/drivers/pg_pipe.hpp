// One pipelined connection of the pool: queries out in order, results back in the same order. Owner: Postgres.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "drivers/fifo.hpp"
#include "drivers/pg_link.hpp"
#include "drivers/postgres.hpp"

namespace billing {

class PgPipe final : public PgLink {
public:
    PgPipe(Postgres& pool, Reactor& reactor, const PgConfig& config);
    ~PgPipe() override { close_down("stopped"); }

    // Nothing more will come; who waits gets `lost`.
    void close_down(std::string_view why) noexcept;
    // Only while up(). The query is answered or in the fifo afterwards.
    void send(PgQuery& query) noexcept;
    // Its waiter is gone; the answer will be dropped.
    void abandon(std::uint64_t seq) noexcept { fifo_.at(seq).query = nullptr; }
    std::size_t size() const noexcept { return fifo_.size(); }

private:
    struct Entry {
        PgQuery* query = nullptr; // nullptr: abandoned
        std::int64_t sent_ms = 0;
        std::int64_t deadline_ms = 0;
        std::int64_t timeout_ms = 0;
    };
    class PipeTimer final : public Timer {
    public:
        explicit PipeTimer(PgPipe& pipe) noexcept : pipe_(pipe) {}

    private:
        void on_timer() noexcept override { pipe_.expire(); }
        PgPipe& pipe_;
    };

    void on_link_up() noexcept override;
    void on_link_input() noexcept override;
    void on_link_down(std::string_view why, bool was_up, std::int64_t retry_ms) noexcept override;

    void take(pg_result* result) noexcept;
    void answer_head() noexcept;
    void lose_all(std::string_view why) noexcept;
    void expire() noexcept;
    void rearm() noexcept;

    Postgres& pool_;
    Fifo<Entry> fifo_;
    PipeTimer timer_;
    std::int64_t armed_for_ = 0;
    std::int64_t progress_ms_ = 0; // when the last answer came
    bool has_result_ = false;      // for the head of the fifo, complete at its sync
    PgResult result_;
    std::string last_words_; // the server's own reason for closing
};

} // namespace billing
