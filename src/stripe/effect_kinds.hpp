// The readers behind read_effect(), by what an event is about, and what they share. For effect*.cpp alone. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "stripe/effect.hpp"
#include "stripe/objects.hpp"

namespace billing::effects {

// An empty text and a number that is absent put nothing.
void put_text(const Json& into, const char* key, std::string_view text);
void put_number(const Json& into, const char* key, std::optional<std::int64_t> number);
void put_period(const Json& into, const StripePeriod& period);

EventEffect effect_of(const char* kind, std::string customer);
EventEffect ignored(const char* reason);

// effect_checkout.cpp
Result<EventEffect> checkout_completed(const json_t* event);
Result<EventEffect> checkout_expired(const json_t* event);
Result<EventEffect> checkout_failed(const json_t* event);

// effect_money.cpp
Result<EventEffect> invoice_paid(const json_t* event);
Result<EventEffect> invoice_failed(const json_t* event);
Result<EventEffect> charge_refunded(const json_t* event);
Result<EventEffect> refund_changed(const json_t* event);
Result<EventEffect> dispute_changed(const json_t* event);

} // namespace billing::effects
