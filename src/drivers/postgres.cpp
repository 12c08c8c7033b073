// The pool: picks a connection, keeps what waits for the first one, counts and reports. Called by coroutines and by the
// loop.
#include "drivers/postgres.hpp"

#include <algorithm>
#include <limits>

#include "drivers/pg_pipe.hpp"

namespace billing {

PgQuery::~PgQuery() {
    if (place_ == Place::waiting)
        pool_.unqueue(*this);
    else if (place_ == Place::sent)
        pipe_->abandon(seq_);
}

bool PgQuery::submit() noexcept {
    const bool waits = pool_.submit(*this);
    suspended_ = true;
    return waits;
}

void PgQuery::answer(PgResult result) noexcept {
    place_ = Place::nowhere;
    result_ = std::move(result);
    PgCounters& counters = pool_.counters_;
    if (result_.outcome() == PgOutcome::refused)
        ++counters.refused;
    else if (result_.outcome() == PgOutcome::unavailable)
        ++counters.unavailable;
    else if (result_.outcome() == PgOutcome::lost)
        ++counters.lost;
    if (suspended_)
        pool_.reactor_.post(*this);
}

Postgres::Postgres(Reactor& reactor, PgConfig config)
    : reactor_(reactor), config_(std::move(config)), queue_timer_(*this), outage_(reactor, "PostgreSQL") {
    config_.connections = std::clamp<std::size_t>(config_.connections, 1, 64);
    config_.max_pending = std::max<std::size_t>(config_.max_pending, 1);
    for (std::size_t i = 0; i < config_.connections; ++i)
        pipes_.push_back(std::make_unique<PgPipe>(*this, reactor_, config_));
}

Postgres::~Postgres() { stop(); }

void Postgres::start() noexcept {
    for (auto& pipe : pipes_)
        pipe->start();
}

void Postgres::stop() noexcept {
    stopped_ = true;
    for (auto& pipe : pipes_)
        pipe->close_down("the connection to PostgreSQL is being closed");
    while (queue_first_) {
        PgQuery& query = *queue_first_;
        unqueue(query);
        query.answer(PgResult(PgOutcome::unavailable, "the connection to PostgreSQL is being closed"));
    }
}

bool Postgres::available() const noexcept {
    return std::any_of(pipes_.begin(), pipes_.end(), [](const auto& pipe) { return pipe->up(); });
}

bool Postgres::connecting_first() const noexcept {
    return std::any_of(pipes_.begin(), pipes_.end(), [](const auto& pipe) { return pipe->first_try(); });
}

PgPipe* Postgres::best_pipe() const noexcept {
    PgPipe* best = nullptr;
    for (const auto& pipe : pipes_)
        if (pipe->up() && (!best || pipe->size() < best->size()))
            best = pipe.get();
    return best;
}

// True: it waits. False: it has been answered.
bool Postgres::submit(PgQuery& query) noexcept {
    ++counters_.queries;
    if (query.timeout_ms_ <= 0)
        query.timeout_ms_ = config_.timeout_ms;
    query.deadline_ms_ = reactor_.now_ms() + query.timeout_ms_;
    if (query.params_.has_zero_byte()) {
        query.answer(PgResult::refused("22021", "a text parameter holds a zero byte"));
        return false;
    }
    if (pending_ >= config_.max_pending) {
        query.answer(PgResult(PgOutcome::unavailable, "too many queries wait for PostgreSQL"));
        return false;
    }
    if (PgPipe* pipe = best_pipe()) {
        pipe->send(query);
        return query.place_ == PgQuery::Place::sent;
    }
    if (!stopped_ && connecting_first()) {
        enqueue(query);
        return true;
    }
    query.answer(PgResult(PgOutcome::unavailable, "there is no connection to PostgreSQL"));
    return false;
}

// While the first connect is under way
// -----------------------------------------------------------------------------------------

void Postgres::enqueue(PgQuery& query) noexcept {
    query.place_ = PgQuery::Place::waiting;
    query.prev_ = queue_last_;
    (queue_last_ ? queue_last_->next_ : queue_first_) = &query;
    queue_last_ = &query;
    ++pending_;
    expire_queue();
}

void Postgres::unqueue(PgQuery& query) noexcept {
    (query.prev_ ? query.prev_->next_ : queue_first_) = query.next_;
    (query.next_ ? query.next_->prev_ : queue_last_) = query.prev_;
    query.prev_ = query.next_ = nullptr;
    query.place_ = PgQuery::Place::nowhere;
    --pending_;
    if (!queue_first_)
        reactor_.disarm(queue_timer_);
}

void Postgres::expire_queue() noexcept {
    const std::int64_t now = reactor_.now_ms();
    std::int64_t due = std::numeric_limits<std::int64_t>::max();
    for (PgQuery* query = queue_first_; query;) {
        PgQuery* const next = query->next_;
        if (query->deadline_ms_ > now) {
            due = std::min(due, query->deadline_ms_);
        } else {
            unqueue(*query);
            ++counters_.timeouts;
            query->answer(PgResult(PgOutcome::unavailable, "no connection to PostgreSQL in time"));
        }
        query = next;
    }
    if (queue_first_)
        reactor_.arm(queue_timer_, due - now);
}

void Postgres::flush_queue() noexcept {
    while (queue_first_) {
        PgPipe* const pipe = best_pipe();
        if (!pipe && connecting_first())
            return;
        PgQuery& query = *queue_first_;
        unqueue(query);
        if (pipe)
            pipe->send(query);
        else
            query.answer(PgResult(PgOutcome::unavailable, "there is no connection to PostgreSQL"));
    }
}

// What becomes of the connections
// --------------------------------------------------------------------------------------------

void Postgres::pipe_up() noexcept {
    ++counters_.connects;
    outage_.up();
    flush_queue();
}

void Postgres::pipe_down(std::string_view why, bool was_up, std::int64_t retry_ms) noexcept {
    ++counters_.failures;
    if (retry_ms < 0)
        stop();
    flush_queue();
    if (stopped_)
        return;
    if (!config_.tells_outages)
        return;
    if (!available())
        outage_.down(why, retry_ms);
    else if (was_up)
        reactor_.log(LogLevel::info, "billing: lost one connection to PostgreSQL: " + std::string(why));
}

} // namespace billing
