// Commands: sending, matching replies, deadlines. Called by coroutines, by hiredis (replies) and by the loop
// (deadlines).
#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <strings.h>

#include <algorithm>
#include <limits>

#include "drivers/redis.hpp"

namespace billing {

RedisCommand::~RedisCommand() {
    if (place_ == Place::waiting)
        redis_.unqueue(*this);
    else if (place_ == Place::sent)
        redis_.fifo_.at(seq_).command = nullptr; // the reply will be dropped
}

bool RedisCommand::submit() noexcept {
    const bool waits = redis_.submit(*this);
    suspended_ = true;
    return waits;
}

void RedisCommand::answer(RedisReply reply) noexcept {
    place_ = Place::nowhere;
    reply_ = std::move(reply);
    if (reply_.kind() == RedisKind::unavailable)
        ++redis_.counters_.unavailable;
    else if (reply_.kind() == RedisKind::lost)
        ++redis_.counters_.lost;
    if (suspended_)
        redis_.reactor_.post(*this);
}

namespace {

// hiredis would change into a mode where replies do not match commands.
bool changes_mode(std::string_view name) noexcept {
    for (const char* other : {"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "MONITOR", "UNSUBSCRIBE", "PUNSUBSCRIBE"})
        if (name.size() == std::char_traits<char>::length(other) && ::strncasecmp(name.data(), other, name.size()) == 0)
            return true;
    return false;
}

} // namespace

// True: it waits. False: it has been answered.
bool Redis::submit(RedisCommand& command) noexcept {
    ++counters_.commands;
    if (command.timeout_ms_ <= 0)
        command.timeout_ms_ = config_.timeout_ms;
    command.deadline_ms_ = reactor_.now_ms() + command.timeout_ms_;
    if (command.args_.size() == 0 || changes_mode(command.args_[0])) {
        command.answer(RedisReply(RedisKind::error, "ERR this command can not be sent here"));
        return false;
    }
    if (pending_ >= config_.max_pending) {
        command.answer(RedisReply(RedisKind::unavailable, "too many commands wait for Redis"));
        return false;
    }
    if (state_ == State::up)
        return send(command);
    if (state_ == State::connecting && first_) {
        enqueue(command);
        return true;
    }
    command.answer(RedisReply(RedisKind::unavailable, "there is no connection to Redis"));
    return false;
}

bool Redis::send(RedisCommand& command) noexcept {
    const std::size_t count = command.args_.size();
    std::vector<const char*> words(count);
    std::vector<std::size_t> sizes(count);
    for (std::size_t i = 0; i < count; ++i) {
        words[i] = command.args_[i].data();
        sizes[i] = command.args_[i].size();
    }
    if (redisAsyncCommandArgv(context_, &Redis::on_reply, this, static_cast<int>(count), words.data(), sizes.data()) !=
        REDIS_OK) {
        command.answer(RedisReply(RedisKind::unavailable, "hiredis does not take the command"));
        return false;
    }
    Entry entry;
    entry.command = &command;
    entry.sent_ms = reactor_.now_ms();
    entry.deadline_ms = command.deadline_ms_;
    entry.timeout_ms = command.timeout_ms_;
    command.place_ = RedisCommand::Place::sent;
    command.seq_ = fifo_.push(entry);
    ++pending_;
    if (!command_timer_.armed() || entry.deadline_ms < armed_for_)
        rearm();
    return true;
}

void Redis::on_reply(redisAsyncContext*, void* reply, void* self) noexcept {
    static_cast<Redis*>(self)->command_reply(static_cast<const redisReply*>(reply));
}

// nullptr: the connection is ending. hiredis frees the reply afterwards.
void Redis::command_reply(const redisReply* reply) noexcept {
    progress_ms_ = reactor_.now_ms();
    RedisCommand* const command = fifo_.front().command;
    fifo_.pop();
    --pending_;
    if (pending_ == 0)
        reactor_.disarm(command_timer_);
    if (!command) {
        if (reply)
            ++counters_.late;
        return;
    }
    command->answer(reply ? RedisReply::copy(*reply) : RedisReply(RedisKind::lost, "the connection to Redis was lost"));
}

Task<RedisReply> Redis::eval(const RedisScript& script, std::vector<std::string> keys, std::vector<std::string> args,
                             std::int64_t timeout_ms) {
    RedisArgs by_name("EVALSHA", script.sha1(), keys.size());
    by_name.add(keys).add(args);
    RedisReply reply = co_await command(std::move(by_name), timeout_ms);
    if (!reply.is_error() || !reply.text().starts_with("NOSCRIPT"))
        co_return reply;
    RedisArgs whole("EVAL", script.source(), keys.size());
    whole.add(keys).add(args);
    reply = co_await command(std::move(whole), timeout_ms);
    co_return reply;
}

// While the first connect is under way
// -----------------------------------------------------------------------------------------

void Redis::enqueue(RedisCommand& command) noexcept {
    command.place_ = RedisCommand::Place::waiting;
    command.prev_ = queue_last_;
    (queue_last_ ? queue_last_->next_ : queue_first_) = &command;
    queue_last_ = &command;
    ++pending_;
    if (!command_timer_.armed() || command.deadline_ms_ < armed_for_)
        rearm();
}

void Redis::unqueue(RedisCommand& command) noexcept {
    (command.prev_ ? command.prev_->next_ : queue_first_) = command.next_;
    (command.next_ ? command.next_->prev_ : queue_last_) = command.prev_;
    command.prev_ = command.next_ = nullptr;
    command.place_ = RedisCommand::Place::nowhere;
    --pending_;
    if (pending_ == 0)
        reactor_.disarm(command_timer_);
}

void Redis::flush_queue() noexcept {
    while (queue_first_) {
        RedisCommand& command = *queue_first_;
        unqueue(command);
        send(command);
    }
}

void Redis::fail_queue(std::string_view why) noexcept {
    while (queue_first_) {
        RedisCommand& command = *queue_first_;
        unqueue(command);
        command.answer(RedisReply(RedisKind::unavailable, std::string(why)));
    }
}

// Deadlines
// --------------------------------------------------------------------------------------------------------------------

void Redis::expire() noexcept {
    const std::int64_t now = reactor_.now_ms();
    for (RedisCommand* command = queue_first_; command;) {
        RedisCommand* const next = command->next_;
        if (command->deadline_ms_ <= now) {
            unqueue(*command);
            ++counters_.timeouts;
            command->answer(RedisReply(RedisKind::unavailable, "no connection to Redis in time"));
        }
        command = next;
    }
    for (std::uint64_t seq = fifo_.first(); seq != fifo_.last(); ++seq) {
        Entry& entry = fifo_.at(seq);
        if (!entry.command || entry.deadline_ms > now)
            continue;
        RedisCommand* const command = std::exchange(entry.command, nullptr);
        ++counters_.timeouts;
        command->answer(RedisReply(RedisKind::lost, "Redis did not answer in time"));
    }
    if (!fifo_.empty() && now >= std::max(fifo_.front().sent_ms, progress_ms_) + 2 * fifo_.front().timeout_ms)
        close("it does not answer");
    else
        rearm();
}

// For the earliest thing to happen: a deadline, or the head being stuck for too long.
void Redis::rearm() noexcept {
    if (pending_ == 0) {
        reactor_.disarm(command_timer_);
        return;
    }
    std::int64_t due = std::numeric_limits<std::int64_t>::max();
    for (const RedisCommand* command = queue_first_; command; command = command->next_)
        due = std::min(due, command->deadline_ms_);
    if (!fifo_.empty())
        due = std::max(fifo_.front().sent_ms, progress_ms_) + 2 * fifo_.front().timeout_ms;
    for (std::uint64_t seq = fifo_.first(); seq != fifo_.last(); ++seq)
        if (fifo_.at(seq).command)
            due = std::min(due, fifo_.at(seq).deadline_ms);
    armed_for_ = due;
    reactor_.arm(command_timer_, due - reactor_.now_ms());
}

} // namespace billing
