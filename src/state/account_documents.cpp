#include "state/account_documents.hpp"

#include <utility>

namespace billing {

Task<Document> AccountDocuments::status(std::string account) {
    co_return co_await ask("SELECT billing.account_document($1)::text", PgParams(account));
}

Task<Document> AccountDocuments::entitlements(std::string account, std::string limit, std::string feature) {
    PgParams parameters(account, limit, feature);
    co_return co_await ask("SELECT billing.account_entitlements($1, $2, $3)::text", std::move(parameters));
}

Task<Document> AccountDocuments::ask(std::string_view sql, PgParams parameters) {
    Document document;
    PgResult result = co_await postgres_.query(sql, std::move(parameters));
    if (!result) {
        co_return document;
    }
    if (result.is_null(0, 0)) {
        document.outcome = Document::Outcome::unknown_account;
        co_return document;
    }
    auto parsed = parse_json(result.text(0, 0));
    if (parsed) {
        document.outcome = Document::Outcome::told;
        document.json = std::move(parsed).value();
    }
    co_return document;
}

} // namespace billing
