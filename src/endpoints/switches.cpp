#include "endpoints/switches.hpp"

#include "endpoints/admission.hpp"

#include <optional>
#include <utility>

namespace billing {

namespace {

bool is_of_unknown(const json_t* told) { return text_member(told, "code") == "UNKNOWN_ACCOUNT"; }

Response answer(const json_t* told) {
    const auto code = text_member(told, "code").value_or("");
    if (code.empty()) {
        return json_response(200, told);
    }
    const auto error = text_member(told, "error").value_or("");
    return problem(is_of_unknown(told) ? 403 : 409, code, error, error);
}

} // namespace

Task<Response> switches(Request request, Services& services, const EndpointSettings& settings) {
    const bool changes = request.method == "POST";
    const EndpointSettings rules = changes ? settings : for_everybody(settings);
    Admission admission = co_await admit(request, services, rules);
    if (admission.refusal) {
        co_return *admission.refusal;
    }
    const auto on = changes ? admission.input.flag("overage") : std::nullopt;
    if (changes && !on) {
        co_return problem(400, "INVALID_REQUEST", "Invalid request", "Write overage as true or false");
    }
    const std::string actor = request.subject.empty() ? request.account : request.subject;
    Json told = co_await services.credits.overage(request.account, on, actor);
    if (told && is_of_unknown(told.get()) && settings.create_accounts) {
        Fetched fetched = co_await services.accounts.fetch(request.account, AccountStore::Mode::create);
        if (fetched == Fetched::unavailable) {
            co_return state_unavailable();
        }
        told = co_await services.credits.overage(request.account, on, actor);
    }
    co_return told ? answer(told.get()) : state_unavailable();
}

} // namespace billing
