#include "state/new_event.hpp"

#include "stripe/effect.hpp"

namespace billing {

namespace {

// Why nothing is to be done about it, or "". It is stored all the same.
std::string reason_to_ignore(const EventHead& head, bool livemode) {
    if (head.kind == EventKind::thin) {
        return "an event of the second kind carries nothing to apply";
    }
    std::string foreign = foreign_event(head.account, head.livemode, livemode);
    if (!foreign.empty()) {
        return foreign;
    }
    return handles_event(head.type) ? "" : "no use for this type";
}

} // namespace

NewEvent new_event(const EventHead& head, bool livemode) {
    NewEvent event;
    event.stripe_account = head.account;
    event.id = head.id;
    event.type = head.type;
    event.api_version = head.api_version;
    event.customer = head.customer;
    event.livemode = head.livemode;
    event.created = head.created;
    event.ignored = reason_to_ignore(head, livemode);
    return event;
}

} // namespace billing
