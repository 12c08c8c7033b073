// Sending and matching. Called by Postgres and by the loop. One Sync for each statement: each is its own transaction,
// and an error touches no neighbour.
#include "drivers/pg_pipe.hpp"

#include <libpq-fe.h>

#include <algorithm>
#include <cstring>

namespace billing {

namespace {

// Bytes may wait inside the TLS layer, invisible to the loop: look after them this often while an answer is due.
constexpr std::int64_t k_tls_tick_ms = 1000;

// The connection goes down with it; whether a commit went before is not known.
bool is_fatal(const PGresult* result) noexcept {
    const char* severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    if (!severity || !PQresultErrorField(result, PG_DIAG_SQLSTATE))
        return true; // libpq's own: the connection broke
    return std::strcmp(severity, "FATAL") == 0 || std::strcmp(severity, "PANIC") == 0;
}

} // namespace

PgPipe::PgPipe(Postgres& pool, Reactor& reactor, const PgConfig& config)
    : PgLink(reactor, config.conninfo), pool_(pool), fifo_(config.max_pending), timer_(*this) {}

void PgPipe::close_down(std::string_view why) noexcept {
    stop();
    lose_all(why);
}

void PgPipe::on_link_up() noexcept {
    last_words_.clear();
    if (PQenterPipelineMode(conn()) != 1) {
        fail("it does not take pipelined queries");
        return;
    }
    pool_.pipe_up();
}

void PgPipe::on_link_down(std::string_view why, bool was_up, std::int64_t retry_ms) noexcept {
    const std::string reason = last_words_.empty() ? std::string(why) : last_words_;
    lose_all("the connection to PostgreSQL was lost");
    pool_.pipe_down(reason, was_up, retry_ms);
}

void PgPipe::send(PgQuery& query) noexcept {
    PGconn* const connection = conn();
    const auto values = query.params_.pointers();
    const auto lengths = query.params_.lengths();
    const auto formats = query.params_.formats();
    const int sent =
        PQsendQueryParams(connection, query.sql_.c_str(), static_cast<int>(values.size()), nullptr, values.data(),
                          lengths.empty() ? nullptr : lengths.data(), formats.empty() ? nullptr : formats.data(), 0);
    if (sent != 1) {
        const std::string why = trouble();
        query.answer(PgResult(PgOutcome::unavailable, why));
        // Either the connection is dead, or the query can not be put into a message (too many parameters).
        if (PQstatus(connection) != CONNECTION_OK)
            fail(why);
        return;
    }
    const std::int64_t now = reactor().now_ms();
    Entry entry;
    entry.query = &query;
    entry.sent_ms = now;
    entry.timeout_ms = query.timeout_ms_;
    entry.deadline_ms = query.deadline_ms_;
    query.place_ = PgQuery::Place::sent;
    query.pipe_ = this;
    query.seq_ = fifo_.push(entry);
    ++pool_.pending_;
    if (!timer_.armed() || entry.deadline_ms < armed_for_)
        rearm();
    if (PQpipelineSync(connection) != 1) {
        fail(trouble());
        return;
    }
    flush();
}

void PgPipe::on_link_input() noexcept {
    // Each query gives its results, then nullptr; each sync one result and no nullptr. Two in a row: nothing is left.
    for (int nulls = 0; nulls < 2 && conn() && PQisBusy(conn()) == 0;) {
        PGresult* const result = PQgetResult(conn());
        nulls = result ? 0 : nulls + 1;
        if (result)
            take(result);
    }
}

// Owns `result`.
void PgPipe::take(pg_result* result) noexcept {
    progress_ms_ = reactor().now_ms();
    const ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_PIPELINE_SYNC) {
        PQclear(result);
        if (fifo_.empty()) {
            fail("PostgreSQL answered something which was not asked");
            return;
        }
        answer_head();
        return;
    }
    const bool error = status == PGRES_FATAL_ERROR;
    if (error && is_fatal(result)) {
        if (const char* words = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY))
            last_words_ = one_line(words);
        const std::string why = last_words_.empty() ? trouble() : last_words_;
        PQclear(result);
        fail(why);
        return;
    }
    // An error overrides: a statement which went well may still fail at its commit (deferred constraints). After it,
    // "aborted" says nothing new.
    if (fifo_.empty() || (has_result_ && !error) || status == PGRES_PIPELINE_ABORTED) {
        PQclear(result);
        return;
    }
    result_ = PgResult(result);
    has_result_ = true;
    // A COPY can not be carried on from here.
    if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH)
        fail("COPY is not supported");
}

void PgPipe::answer_head() noexcept {
    PgQuery* const query = fifo_.front().query;
    fifo_.pop();
    --pool_.pending_;
    PgResult result = has_result_ ? std::move(result_) : PgResult(PgOutcome::refused, "no result");
    has_result_ = false;
    result_ = PgResult();
    if (!query)
        ++pool_.counters_.late;
    else
        query->answer(std::move(result));
    if (fifo_.empty())
        reactor().disarm(timer_);
}

void PgPipe::lose_all(std::string_view why) noexcept {
    has_result_ = false;
    result_ = PgResult();
    reactor().disarm(timer_);
    while (!fifo_.empty()) {
        PgQuery* const query = fifo_.front().query;
        fifo_.pop();
        --pool_.pending_;
        if (query)
            query->answer(PgResult(PgOutcome::lost, std::string(why)));
    }
}

void PgPipe::expire() noexcept {
    poll_input(); // the answer may be here already
    if (fifo_.empty())
        return;
    const std::int64_t now = reactor().now_ms();
    for (std::uint64_t seq = fifo_.first(); seq != fifo_.last(); ++seq) {
        Entry& entry = fifo_.at(seq);
        if (!entry.query || entry.deadline_ms > now)
            continue;
        PgQuery* const query = std::exchange(entry.query, nullptr);
        ++pool_.counters_.timeouts;
        query->answer(PgResult(PgOutcome::lost, "PostgreSQL did not answer in time"));
    }
    const Entry& head = fifo_.front();
    if (now >= std::max(head.sent_ms, progress_ms_) + 2 * head.timeout_ms)
        fail("PostgreSQL does not answer");
    else
        rearm();
}

// For the earliest thing to happen: a deadline, or the head being stuck for too long.
void PgPipe::rearm() noexcept {
    const std::int64_t now = reactor().now_ms();
    const Entry& head = fifo_.front();
    std::int64_t due = std::max(head.sent_ms, progress_ms_) + 2 * head.timeout_ms;
    for (std::uint64_t seq = fifo_.first(); seq != fifo_.last(); ++seq) {
        const Entry& entry = fifo_.at(seq);
        if (entry.query)
            due = std::min(due, entry.deadline_ms);
    }
    if (uses_tls())
        due = std::min(due, now + k_tls_tick_ms);
    armed_for_ = due;
    reactor().arm(timer_, due - now);
}

} // namespace billing
