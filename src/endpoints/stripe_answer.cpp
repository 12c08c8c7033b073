#include "endpoints/stripe_answer.hpp"

#include <algorithm>
#include <random>

namespace billing {

Response stripe_problem(const StripeReply& reply) {
    const int status = client_status(reply);
    Response response = problem(status, status == 503 ? "STRIPE_UNAVAILABLE" : "STRIPE_REFUSED",
                                "Payment provider unavailable", client_text(reply));
    if (status == 503) {
        response.retry_after = std::max<std::int64_t>((reply.retry_after_ms + 999) / 1000, 5);
    }
    return response;
}

std::string one_time_key(std::string_view what) {
    std::random_device random;
    const auto part = [&random] { return to_hex16((std::uint64_t{random()} << 32) | random()); };
    return std::string{what} + ":" + part() + part();
}

Response session_answer(const std::string& url, const char* alias, bool redirect) {
    if (redirect) {
        return see_other(url);
    }
    const Json body{json_object()};
    put_member(body.get(), "url", url);
    put_member(body.get(), alias, url);
    return json_response(200, body.get());
}

bool is_page(std::string_view url, bool plain_http) noexcept {
    const bool scheme = url.starts_with("https://") || (plain_http && url.starts_with("http://"));
    return scheme && std::all_of(url.begin(), url.end(), [](char byte) { return byte > ' ' && byte < 0x7f; });
}

} // namespace billing
