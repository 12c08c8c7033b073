#include "jobs/stripe_list.hpp"

#include "async/sleep.hpp"

#include <utility>

namespace billing {

StripeList::StripeList(Reactor& reactor, StripeApi& stripe, std::string path, Form query, ListPace pace)
    : reactor_(reactor), stripe_(stripe), path_(std::move(path)), query_(std::move(query)), pause_ms_(pace.pause_ms) {
    query_.add("limit", pace.page_size);
}

Task<bool> StripeList::next() {
    if (!more()) {
        co_return false;
    }
    Form query = query_;
    if (begun_) {
        query.add("starting_after", page_.last_id);
        if (pause_ms_ > 0) {
            co_await sleep_for(reactor_, pause_ms_, true);
        }
    }
    StripeReply reply = co_await stripe_.get(path_, std::move(query));
    begun_ = true;
    read(std::move(reply));
    co_return !trouble_;
}

void StripeList::read(StripeReply reply) {
    page_ = StripePage{};
    reply_ = std::move(reply);
    if (!reply_) {
        trouble_.kind = reply_.kind == ReplyKind::later ? Trouble::Kind::later : Trouble::Kind::refused;
        trouble_.text = "Stripe refuses to list " + path_ + ": ";
        if (reply_.kind == ReplyKind::later) {
            trouble_.text = "no answer from Stripe: ";
        } else if (reply_.refusal == Refusal::credentials) {
            trouble_.text = "Stripe does not let the secret key read " + path_ + ": ";
        }
        trouble_.text += reply_.log_text();
        return;
    }
    auto page = read_page(reply_.json.get());
    if (!page) {
        trouble_ = {Trouble::Kind::refused, "Stripe's answer cannot be read: " + page.error()};
        return;
    }
    page_ = std::move(page).value();
}

} // namespace billing
