#include "state/credit_calls.hpp"

#include <string_view>
#include <utility>

namespace billing {

namespace {

struct Statement {
    std::string_view sql;
    PgParams parameters;
};

Statement statement_of(const CreditCall& call) {
    const auto job = call.job.empty() ? std::nullopt : std::optional{call.job};
    const auto reason = [&call](const char* otherwise) { return call.reason.empty() ? otherwise : call.reason; };
    switch (call.action) {
    case CreditAction::check:
        return {"SELECT billing.check_credits($1, $2, $3)::text", PgParams(call.account, call.credit, call.quantity)};
    case CreditAction::take:
        return {"SELECT billing.deduct_credits($1, $2, $3, $4, make_interval(secs => $5), $6)::text",
                PgParams(call.account, call.credit, call.quantity, call.key, call.hold_seconds, job)};
    case CreditAction::commit:
        return {"SELECT billing.commit_credits($1, $2, $3, $4)::text",
                PgParams(call.account, call.credit, call.key, call.quantity)};
    case CreditAction::refund:
        return {"SELECT billing.refund_credits($1, $2, $3, $4, $5)::text",
                PgParams(call.account, call.credit, call.key, call.quantity, reason("refunded"))};
    case CreditAction::grant:
        return {"SELECT billing.grant_credits($1, $2, $3, $4, $5)::text",
                PgParams(call.account, call.credit, call.quantity, call.key, reason("granted"))};
    case CreditAction::stock:
        return {"SELECT billing.stock_count($1, $2, $3, $4, $5)::text",
                PgParams(call.account, call.credit, call.quantity,
                         call.key.empty() ? std::nullopt : std::optional{call.key}, reason("stated"))};
    case CreditAction::adjust:
        break;
    }
    return {"SELECT billing.adjust_credits($1, $2, $3, $4, $5)::text",
            PgParams(call.account, call.credit, call.quantity, call.key, reason("adjusted"))};
}

} // namespace

Task<Json> CreditCalls::call(CreditCall call) {
    Statement statement = statement_of(call);
    co_return co_await ask(statement.sql, std::move(statement.parameters));
}

Task<Json> CreditCalls::overage(std::string account, std::optional<bool> on, std::string actor) {
    PgParams parameters(account, on, actor);
    co_return co_await ask("SELECT billing.overage_settings($1, $2, $3)::text", std::move(parameters));
}

Task<Json> CreditCalls::ask(std::string_view sql, PgParams parameters) {
    PgResult result = co_await postgres_.query(sql, std::move(parameters));
    if (!result) {
        co_return Json{};
    }
    auto parsed = parse_json(result.text(0, 0));
    co_return parsed ? std::move(parsed).value() : Json{};
}

} // namespace billing
