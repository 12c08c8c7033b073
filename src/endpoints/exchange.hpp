// What a location of ours is asked and what it answers. Values, without nginx: nginx/endpoint_handler fills the one and
// sends the other.
#pragma once

#include "domain/json.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace billing {

// Texts are "" where the client sent none. All of it is what the client chose, but for what
// the operator's variables say of it: account, subject, role, email, name.
struct Request {
    std::string method;
    std::string account; // who asks, as the operator's billing_account has it; a valid id, or "" for nobody
    std::string subject; // which person, as billing_subject has it
    std::string role;    // what that person is in the account, as billing_role has it
    std::string email;   // as billing_customer has them
    std::string name;
    std::string content_type; // without parameters, in lower case
    std::string path;         // of the location's address, decoded
    std::string query;        // as it came
    std::string body;
    std::string origin;          // Origin
    std::string fetch_site;      // Sec-Fetch-Site
    std::string signature;       // Stripe-Signature
    std::string authorization;   // Authorization
    std::string idempotency_key; // Idempotency-Key
    bool certified = false;      // by a certificate that nginx has verified, where the location asks for one

    bool is_local = false; // from this machine

    // What an HTML form sends; its sender wants to be led on, not to read JSON.
    bool is_form() const noexcept { return content_type == "application/x-www-form-urlencoded"; }
};

struct Response {
    int status = 200;
    std::string code; // of a problem, as in its body
    const char* type = "application/json";
    std::string body;
    std::string location;                  // of 303
    std::int64_t retry_after = 0;          // seconds; 0: none
    const char* allow = nullptr;           // of 405
    std::string_view challenge = "Bearer"; // of 401; static text
};

Response json_response(int status, const json_t* body);

// RFC 9457, with the members that gate/problem.cpp gives to refusals. `title` and `detail` are ours.
Response problem(int status, std::string_view code, std::string_view title, std::string_view detail);
// The same, to be filled in further.
Json problem_members(int status, std::string_view code, std::string_view title, std::string_view detail);
Response problem_response(int status, const json_t* members);

// Another status for a problem, in its body too.
void change_status(Response& response, int status);

// The client is to go on there with GET.
Response see_other(std::string url);

// What several endpoints answer.
Response no_account();
Response invalid_account();
Response no_back_end();
Response cross_site();
Response not_found();
Response not_configured();
Response state_unavailable();
Response try_later(std::string_view code, std::string_view detail, std::int64_t seconds = 1);
// 405; `allow` as in the field Allow.
Response wrong_method(const char* allow);

} // namespace billing
