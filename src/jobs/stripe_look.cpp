#include "jobs/stripe_look.hpp"

#include "stripe/names.hpp"

#include <utility>

namespace billing {

namespace {

using Outcome = StripeLook::Outcome;

constexpr int k_most_pages = 50;
constexpr ListPace k_pace{100, 0};
constexpr std::int64_t k_look_ms = 25'000;

} // namespace

StripeReader::StripeReader(Reactor& reactor, StripeApi& stripe)
    : reactor_(reactor), stripe_(stripe), end_ms_(reactor.now_ms() + k_look_ms) {}

Task<void> StripeReader::read_pages(std::string path, Form query, Keep keep) {
    StripeList list{reactor_, stripe_, path, std::move(query), k_pace};
    for (int page = 0; ok() && list.more(); ++page) {
        if (page == k_most_pages) {
            stop(Outcome::failed, path + " has more than " + std::to_string(k_most_pages) + " pages");
            break;
        }
        if (!in_time()) {
            break;
        }
        const bool read = co_await list.next();
        if (read) {
            keep_all(list.page(), keep);
        } else if (!list.reply()) {
            refused(list.reply());
        } else {
            stop(Outcome::failed, list.trouble().text);
        }
    }
}

Task<void> StripeReader::read_parts(std::string folder, std::string id, std::string parts, Form query, Keep keep) {
    if (!is_object_id(id)) {
        stop(Outcome::failed, folder + ": an id that is none");
        co_return;
    }
    co_await read_pages(folder + "/" + id + "/" + parts, std::move(query), std::move(keep));
}

Task<void> StripeReader::read_one(std::string folder, std::string id, Form query, Keep keep) {
    if (!ok() || !in_time()) {
        co_return;
    }
    if (!is_object_id(id)) {
        stop(Outcome::failed, folder + ": an id that is none");
        co_return;
    }
    StripeReply reply = co_await stripe_.get(folder + "/" + id, std::move(query));
    if (reply) {
        keep_one(reply.json.get(), keep);
    } else {
        refused(reply);
    }
}

void StripeReader::keep_all(const StripePage& page, const Keep& keep) {
    for (const json_t* element : page.data) {
        if (ok()) {
            keep_one(element, keep);
        }
    }
}

void StripeReader::keep_one(const json_t* object, const Keep& keep) {
    const auto kept = keep(object);
    kept_ = true;
    if (!kept) {
        stop(Outcome::failed, "Stripe's answer cannot be read: " + kept.error());
    }
}

bool StripeReader::in_time() {
    if (reactor_.now_ms() < end_ms_) {
        return true;
    }
    stop(Outcome::later, "Stripe was too slow");
    return false;
}

void StripeReader::refused(const StripeReply& reply) {
    if (reply.refusal == Refusal::missing_customer && !kept_) {
        look_.missing = true;
        return;
    }
    Outcome outcome = Outcome::failed;
    if (reply.kind == ReplyKind::later) {
        outcome = Outcome::later;
    } else if (reply.refusal == Refusal::credentials) {
        outcome = Outcome::credentials;
    }
    stop(outcome, "Stripe: " + reply.log_text());
}

void StripeReader::stop(StripeLook::Outcome outcome, std::string problem) {
    look_.outcome = outcome;
    look_.problem = std::move(problem);
}

StripeLook StripeReader::finish(std::string json) && {
    if (ok()) {
        look_.json = std::move(json);
    }
    return std::move(look_);
}

} // namespace billing
