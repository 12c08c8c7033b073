#include "endpoints/documents.hpp"

#include "endpoints/admission.hpp"

#include <utility>

namespace billing {

namespace {

using Ask = Task<Document> (*)(Services&, const EndpointSettings&, std::string);

Task<Document> ask_status(Services& services, const EndpointSettings&, std::string account) {
    Document document = co_await services.documents.status(std::move(account));
    if (document.outcome == Document::Outcome::told) {
        json_object_set_new(document.json.get(), "stripeConfigured", json_boolean(services.stripe.configured()));
        json_object_set_new(document.json.get(), "testMode", json_boolean(!services.livemode));
    }
    co_return document;
}

Task<Document> ask_entitlements(Services& services, const EndpointSettings& settings, std::string account) {
    const EntitlementNames& names = settings.entitlements;
    co_return co_await services.documents.entitlements(std::move(account), names.limit, names.feature);
}

// Of an account that has never been here too.
Task<Response> tell(Request request, Services& services, const EndpointSettings& settings, Ask ask) {
    const EndpointSettings open = for_everybody(settings);
    Admission admission = co_await admit(request, services, open);
    if (admission.refusal) {
        co_return *admission.refusal;
    }
    Document document = co_await ask(services, settings, request.account);
    if (document.outcome == Document::Outcome::unknown_account && settings.create_accounts) {
        Fetched fetched = co_await services.accounts.fetch(request.account, AccountStore::Mode::create);
        if (fetched == Fetched::unavailable) {
            co_return state_unavailable();
        }
        document = co_await ask(services, settings, request.account);
    }
    switch (document.outcome) {
    case Document::Outcome::told:
        co_return json_response(200, document.json.get());
    case Document::Outcome::unknown_account:
        co_return problem(403, "UNKNOWN_ACCOUNT", "Unknown account", "This account is not known here");
    case Document::Outcome::unavailable:
        break;
    }
    co_return state_unavailable();
}

} // namespace

Task<Response> status_document(Request request, Services& services, const EndpointSettings& settings) {
    return tell(std::move(request), services, settings, ask_status);
}

Task<Response> entitlements_document(Request request, Services& services, const EndpointSettings& settings) {
    return tell(std::move(request), services, settings, ask_entitlements);
}

} // namespace billing
