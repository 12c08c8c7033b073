#include "endpoints/credits_api.hpp"

#include "endpoints/admission.hpp"
#include "endpoints/input.hpp"
#include "state/credit_calls.hpp"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

namespace billing {

namespace {

constexpr std::int64_t k_most_hold = std::int64_t{7} * 86400;

std::optional<CreditAction> action_of(std::string_view path) noexcept {
    struct Named {
        std::string_view name;
        CreditAction action;
    };
    constexpr std::array<Named, 7> k_actions = {{{"check", CreditAction::check},
                                                 {"take", CreditAction::take},
                                                 {"commit", CreditAction::commit},
                                                 {"refund", CreditAction::refund},
                                                 {"grant", CreditAction::grant},
                                                 {"adjust", CreditAction::adjust},
                                                 {"stock", CreditAction::stock}}};
    const std::string_view name = path.substr(path.find_last_of('/') + 1);
    const auto* known =
        std::find_if(k_actions.begin(), k_actions.end(), [&](const Named& n) { return n.name == name; });
    return known == k_actions.end() ? std::nullopt : std::optional{known->action};
}

// False: what is there is no whole number.
bool read_number(std::string_view text, std::optional<std::int64_t>& number) noexcept {
    if (text.empty()) {
        return true;
    }
    std::int64_t value = 0;
    const auto [end, trouble] = std::from_chars(text.data(), text.data() + text.size(), value);
    number = value;
    return trouble == std::errc{} && end == text.data() + text.size();
}

// A text for the ledger has room for a line.
bool is_line(std::string_view text) noexcept {
    return text.size() <= 200 && std::none_of(text.begin(), text.end(), [](char c) { return c >= 0 && c < ' '; });
}

Response invalid(std::string_view detail) { return problem(400, "INVALID_REQUEST", "Invalid request", detail); }

// How many things of a stock there are, or the question.
std::optional<Response> read_stock(const Request& request, const Input& input, CreditCall& call) {
    call.account = input.text({"account"});
    call.credit = input.text({"stock"});
    call.key = input.text({"key", "idempotencyKey"});
    call.key = call.key.empty() ? request.idempotency_key : call.key;
    call.reason = input.text({"reason"});
    if (!read_number(input.text({"current"}), call.quantity)) {
        return invalid("Write current as a whole number");
    }
    if (!is_line(call.reason)) {
        return invalid("Write reason as one line of up to 200 bytes");
    }
    return call.account.empty() || call.credit.empty() ? std::optional{invalid("Write account and stock")}
                                                       : std::nullopt;
}

// A refusal where the input cannot be meant so.
std::optional<Response> read_call(const Request& request, const Input& input, CreditCall& call) {
    call.account = input.text({"account"});
    call.credit = input.text({"credit", "creditType"});
    call.key = input.text({"key", "idempotencyKey"});
    call.key = call.key.empty() ? request.idempotency_key : call.key;
    call.job = input.text({"job", "jobId"});
    call.reason = input.text({"reason"});
    if (!read_number(input.text({"quantity", "amount"}), call.quantity) ||
        !read_number(input.text({"hold"}), call.hold_seconds)) {
        return invalid("Write quantity, and hold in seconds, as whole numbers");
    }
    if (call.hold_seconds && (*call.hold_seconds < 1 || *call.hold_seconds > k_most_hold)) {
        return invalid("Write a hold from 1 to 604800 seconds");
    }
    if (!is_line(call.job) || !is_line(call.reason)) {
        return invalid("Write job and reason as one line of up to 200 bytes");
    }
    const bool partial = call.action == CreditAction::commit || call.action == CreditAction::refund;
    if (call.account.empty() || call.credit.empty() || (!call.quantity && !partial)) {
        return invalid("Write account, credit and quantity");
    }
    if (call.key.empty() && call.action != CreditAction::check) {
        return invalid("Write a key, by which the call can be repeated, or the field Idempotency-Key");
    }
    return std::nullopt;
}

int status_of(std::string_view code) noexcept {
    if (code == "INSUFFICIENT_CREDITS") {
        return 402;
    }
    if (code == "UNKNOWN_ACCOUNT" || code == "NOTHING_TAKEN") {
        return 404;
    }
    return code == "REFUNDED" ? 409 : 400;
}

// A refusal is a problem document with all that PostgreSQL says.
Response answer(const json_t* told) {
    const auto code = text_member(told, "code").value_or("");
    if (code.empty()) {
        return json_response(200, told);
    }
    const auto error = text_member(told, "error").value_or("");
    Json members = problem_members(status_of(code), code, error, error);
    json_object_update_missing(members.get(), const_cast<json_t*>(told));
    return problem_response(status_of(code), members.get());
}

bool is_of_unknown(const json_t* told) { return text_member(told, "code") == "UNKNOWN_ACCOUNT"; }

bool makes_accounts(const CreditCall& call) noexcept {
    return call.action == CreditAction::take || call.action == CreditAction::grant ||
           call.action == CreditAction::adjust || (call.action == CreditAction::stock && call.quantity);
}

Task<Json> ask(CreditCall call, Services& services, bool create) {
    Json told = co_await services.credits.call(call);
    if (!told || !create || !is_of_unknown(told.get())) {
        co_return told;
    }
    Fetched fetched = co_await services.accounts.fetch(call.account, AccountStore::Mode::create);
    if (fetched == Fetched::unavailable) {
        co_return Json{};
    }
    co_return co_await services.credits.call(std::move(call));
}

} // namespace

Task<Response> credits_api(Request request, Services& services, const EndpointSettings& settings) {
    if (!is_back_end(request, settings)) {
        co_return no_back_end();
    }
    const auto action = action_of(request.path);
    if (!action) {
        co_return not_found();
    }
    const auto input = Input::read(request);
    if (!input) {
        co_return invalid(input.error());
    }
    CreditCall call;
    call.action = *action;
    const auto read = *action == CreditAction::stock ? read_stock : read_call;
    if (auto refusal = read(request, input.value(), call)) {
        co_return std::move(*refusal);
    }
    if (*action == CreditAction::check && !valid_account_id(call.account)) {
        co_return invalid("An account id has 1-128 of A-Z a-z 0-9 _ . @ : | -");
    }
    const bool create = settings.create_accounts && makes_accounts(call) && valid_account_id(call.account);
    Json told = co_await ask(std::move(call), services, create);
    co_return told ? answer(told.get()) : state_unavailable();
}

} // namespace billing
