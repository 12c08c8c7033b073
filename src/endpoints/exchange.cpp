#include "endpoints/exchange.hpp"

#include <utility>

namespace billing {

Response json_response(int status, const json_t* body) {
    Response response;
    response.status = status;
    response.body = dump_json(body);
    return response;
}

Json problem_members(int status, std::string_view code, std::string_view title, std::string_view detail) {
    Json body{json_object()};
    put_member(body.get(), "type", "about:blank");
    put_member(body.get(), "title", title);
    put_member(body.get(), "status", status);
    put_member(body.get(), "detail", detail);
    put_member(body.get(), "error", title);
    put_member(body.get(), "code", code);
    return body;
}

Response problem_response(int status, const json_t* members) {
    Response response = json_response(status, members);
    response.type = "application/problem+json";
    return response;
}

Response problem(int status, std::string_view code, std::string_view title, std::string_view detail) {
    const Json body = problem_members(status, code, title, detail);
    Response response = problem_response(status, body.get());
    response.code = code;
    return response;
}

void change_status(Response& response, int status) {
    if (const auto body = parse_json(response.body)) {
        put_member(body.value().get(), "status", status);
        response.body = dump_json(body.value().get());
    }
    response.status = status;
}

Response see_other(std::string url) {
    Response response;
    response.status = 303;
    response.location = std::move(url);
    return response;
}

Response no_account() { return problem(401, "ACCOUNT_REQUIRED", "Account required", "The request names no account"); }

Response invalid_account() {
    return problem(400, "INVALID_ACCOUNT", "Invalid account", "An account id has 1-128 of A-Z a-z 0-9 _ . @ : | -");
}

Response no_back_end() {
    return problem(401, "INVALID_TOKEN", "Invalid token", "This location is for the application's own back ends");
}

Response cross_site() {
    return problem(403, "CROSS_SITE", "Cross-site request", "A page of another site cannot start this");
}

Response not_found() { return problem(404, "NOT_FOUND", "Not found", "Nothing is served here"); }

Response not_configured() {
    return problem(503, "BILLING_NOT_CONFIGURED", "billing not configured",
                   "This server has no connection to a payment provider");
}

Response state_unavailable() {
    return try_later("BILLING_UNAVAILABLE", "The account's state cannot be read at the moment");
}

Response try_later(std::string_view code, std::string_view detail, std::int64_t seconds) {
    Response response = problem(503, code, "Try again later", detail);
    response.retry_after = seconds;
    return response;
}

Response wrong_method(const char* allow) {
    Response response =
        problem(405, "METHOD_NOT_ALLOWED", "Method not allowed", std::string{"What is allowed: "} + allow);
    response.allow = allow;
    return response;
}

} // namespace billing
