#include "nginx/endpoint_handler.hpp"

#include "endpoints/checkout.hpp"
#include "endpoints/credits_api.hpp"
#include "endpoints/documents.hpp"
#include "endpoints/metrics.hpp"
#include "endpoints/portal.hpp"
#include "endpoints/switches.hpp"
#include "endpoints/upgrade.hpp"
#include "endpoints/webhook.hpp"
#include "gate/problem.hpp"
#include "nginx/answer.hpp"
#include "nginx/conf.hpp"
#include "nginx/identity_record.hpp"
#include "nginx/request_body.hpp"
#include "nginx/request_header.hpp"
#include "nginx/worker.hpp"

#include <memory>

namespace billing {

namespace {

// What a client of checkout and portal has to say is short.
constexpr std::size_t k_max_input_bytes = std::size_t{64} * 1024;

class Seat;
// Shared by the client and the work for it: whoever ends first says so here.
struct Link {
    Seat* seat = nullptr;
};

// The waiting client. Lives in the request's memory, gone with it.
class Seat final : public Ready {
public:
    explicit Seat(ngx_http_request_t* r) : request_(r), link_(std::make_shared<Link>()) { link_->seat = this; }
    ~Seat() override { link_->seat = nullptr; }

    const std::shared_ptr<Link>& link() const noexcept { return link_; }

    void answer(Response response) {
        response_ = std::move(response);
        Worker::current()->reactor().post(*this);
    }

private:
    void run() noexcept override;

    ngx_http_request_t* request_;
    std::shared_ptr<Link> link_;
    Response response_;
};

static_assert(alignof(Seat) <= NGX_ALIGNMENT);

bool add_fields(ngx_http_request_t* r, const Response& response) {
    return add_header(r, "Cache-Control", "no-store") &&
           (response.retry_after == 0 || add_header(r, "Retry-After", std::to_string(response.retry_after))) &&
           (response.allow == nullptr || add_header(r, "Allow", response.allow)) &&
           (response.status != NGX_HTTP_UNAUTHORIZED || add_header(r, "WWW-Authenticate", response.challenge));
}

// The operator's status for a problem; 0: the default.
std::uint16_t chosen_status(const Codes& codes, std::string_view code) noexcept {
    if (code == "UNKNOWN_PLAN") {
        return codes.unknown_plan;
    }
    if (code == "NO_CUSTOMER") {
        return codes.no_customer;
    }
    if (code == "STRIPE_REFUSED" || code == "STRIPE_UNAVAILABLE") {
        return codes.stripe_error;
    }
    for (std::size_t reason = 1; reason < k_reasons; ++reason) {
        if (code == code_of(static_cast<Reason>(reason))) {
            return codes.gate[reason];
        }
    }
    return 0;
}

void Seat::run() noexcept {
    ngx_http_request_t* r = request_;
    ngx_connection_t* connection = r->connection; // the request, and this seat in it, are gone below
    Response response = std::move(response_);
    r->read_event_handler = ngx_http_block_reading;
    ngx_http_finalize_request(r, send_response(r, std::move(response)));
    ngx_http_run_posted_requests(connection);
}

// A way into the handler that no location of ours led to.
Task<Response> nothing_here() { co_return not_found(); }

Task<Response> work_for(EndpointKind kind, Request request, Services& services, const EndpointSettings& settings) {
    switch (kind) {
    case EndpointKind::checkout:
        return checkout(std::move(request), services, settings);
    case EndpointKind::portal:
        return portal(std::move(request), services, settings);
    case EndpointKind::upgrade:
        return upgrade(std::move(request), services, settings);
    case EndpointKind::metrics:
        return metrics(std::move(request), services, settings);
    case EndpointKind::webhook:
        return webhook(std::move(request), services, settings);
    case EndpointKind::credits_api:
        return credits_api(std::move(request), services, settings);
    case EndpointKind::settings:
        return switches(std::move(request), services, settings);
    case EndpointKind::status:
        return status_document(std::move(request), services, settings);
    case EndpointKind::entitlements:
        return entitlements_document(std::move(request), services, settings);
    case EndpointKind::none:
        break;
    }
    return nothing_here();
}

Task<void> serve(std::shared_ptr<Link> link, Task<Response> work) {
    Response response = problem(500, "INTERNAL_ERROR", "Internal error", "The server's log has more");
    try {
        response = co_await std::move(work);
    } catch (const std::exception& trouble) {
        Worker::current()->reactor().log(LogLevel::error,
                                         std::string{"billing: an endpoint failed: "} + trouble.what());
    }
    if (link->seat != nullptr) {
        link->seat->answer(std::move(response));
    }
}

// "application/json" of "Application/JSON; charset=utf-8".
std::string content_type_of(ngx_http_request_t* r) {
    const ngx_table_elt_t* field = r->headers_in.content_type;
    std::string type{field == nullptr ? std::string_view{} : view(field->value)};
    type.resize(std::min(type.find_first_of("; \t"), type.size()));
    for (char& byte : type) {
        byte = static_cast<char>(ngx_tolower(static_cast<u_char>(byte)));
    }
    return type;
}

bool is_loopback(const sockaddr* address) noexcept {
    switch (address->sa_family) {
    case AF_UNIX:
        return true;
    case AF_INET:
        return ntohl(reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
#if (NGX_HAVE_INET6)
    case AF_INET6:
        return IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr) != 0;
#endif
    default:
        return false;
    }
}

Request read_fields(ngx_http_request_t* r) {
    Request request;
    request.method = view(r->method_name);
    request.content_type = content_type_of(r);
    request.path = view(r->uri);
    request.query = view(r->args);
    request.origin = header_of(r, "origin");
    request.fetch_site = header_of(r, "sec-fetch-site");
    request.signature = header_of(r, "stripe-signature");
    request.authorization = header_of(r, "authorization");
    request.idempotency_key = header_of(r, "idempotency-key");
    request.is_local = is_loopback(r->connection->sockaddr);
    return request;
}

Response refuse_credential(Reason reason) {
    if (reason == Reason::unavailable) {
        return try_later(code_of(reason), "The account cannot be told at the moment");
    }
    Response response = problem(default_status(reason), code_of(reason), title_of(reason), detail_of(reason));
    response.challenge = challenge_of(reason);
    return response;
}

// False: nginx could not tell. Null is "".
bool read_value(ngx_http_request_t* r, ngx_http_complex_value_t* value, std::string& text) {
    ngx_str_t result = ngx_null_string;
    if (value != nullptr && ngx_http_complex_value(r, value, &result) != NGX_OK) {
        return false;
    }
    text = view(result);
    return true;
}

// Who asks. A refusal where the id cannot be one.
std::optional<Response> read_account(ngx_http_request_t* r, const LocConf& conf, Request& request) {
    std::string_view account;
    // The body names the account of billing_credits_api, and with billing_account_from.
    if (!conf.account.given() || conf.endpoint.kind == EndpointKind::credits_api) {
        return std::nullopt;
    }
    if (!conf.account.read(r, account)) {
        return try_later("BILLING_UNAVAILABLE", "The account cannot be told at the moment");
    }
    if (const Reason refusal = identity_refusal(r, conf.account); refusal != Reason::allowed) {
        return refuse_credential(refusal);
    }
    if (!account.empty() && !valid_account_id(account)) {
        return invalid_account();
    }
    request.account = account;
    return std::nullopt;
}

// What the operator's variables say of who asks. False: nginx could not tell.
bool read_person(ngx_http_request_t* r, const EndpointConf& conf, Request& request) {
    const ContactSource contact = conf.contact.value_or(ContactSource{});
    std::string verdict;
    if (!read_value(r, conf.named ? conf.named->certificate : conf.certificate, verdict)) {
        return false;
    }
    request.certified = verdict == "SUCCESS";
    return read_value(r, conf.role ? conf.role->value : nullptr, request.role) &&
           read_value(r, conf.subject ? conf.subject->value : nullptr, request.subject) &&
           read_value(r, contact.email, request.email) && read_value(r, contact.name, request.name);
}

// OPTIONS is answered everywhere.
struct Methods {
    ngx_uint_t mask;
    const char* allow;
};

Methods methods_of(EndpointKind kind) noexcept {
    if (kind == EndpointKind::metrics || kind == EndpointKind::status || kind == EndpointKind::entitlements) {
        return {NGX_HTTP_GET | NGX_HTTP_HEAD, "GET, HEAD, OPTIONS"};
    }
    if (kind == EndpointKind::settings) {
        return {NGX_HTTP_GET | NGX_HTTP_HEAD | NGX_HTTP_POST, "GET, HEAD, POST, OPTIONS"};
    }
    return {NGX_HTTP_POST, "POST, OPTIONS"};
}

std::size_t largest_body(const LocConf& conf) noexcept {
    return conf.endpoint.kind == EndpointKind::webhook ? k_max_event_bytes : k_max_input_bytes;
}

Response too_large() {
    return problem(413, "BODY_TOO_LARGE", "Body too large", "The body is longer than is taken here");
}

// NGX_DONE: the answer comes later. Else what to finalize with.
ngx_int_t begin(ngx_http_request_t* r) {
    const LocConf& conf = loc_conf(r);
    auto body = read_request_body(r, largest_body(conf));
    if (body.too_large) {
        return send_response(r, too_large());
    }
    if (body.failed) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    Request request = read_fields(r);
    request.body = std::move(body.bytes);
    if (const auto refusal = read_account(r, conf, request)) {
        return send_response(r, *refusal);
    }
    if (!read_person(r, conf.endpoint, request)) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    ngx_http_cleanup_t* cleanup = ngx_http_cleanup_add(r, sizeof(Seat));
    if (cleanup == nullptr) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    auto* seat = new (cleanup->data) Seat{r};
    cleanup->handler = [](void* data) { static_cast<Seat*>(data)->~Seat(); };
    r->read_event_handler = ngx_http_test_reading; // notices a client that goes away
    r->write_event_handler = ngx_http_request_empty_handler;
    Worker& worker = *Worker::current();
    Task<Response> work = work_for(conf.endpoint.kind, std::move(request), worker.services(), conf.endpoint.settings);
    return worker.scope().spawn(serve(seat->link(), std::move(work))) ? NGX_DONE : NGX_HTTP_SERVICE_UNAVAILABLE;
}

void on_body(ngx_http_request_t* r) {
    const ngx_int_t result =
        guard(r->connection->log, ngx_int_t{NGX_HTTP_INTERNAL_SERVER_ERROR}, [r] { return begin(r); });
    if (result != NGX_DONE) { // else the reference that reading the body took is the seat's
        ngx_http_finalize_request(r, result);
    }
}

// Without looking at the body.
ngx_int_t refuse_at_once(ngx_http_request_t* r, const Response& response) {
    const ngx_int_t discarded = ngx_http_discard_request_body(r);
    return discarded == NGX_OK ? send_response(r, response) : discarded;
}

} // namespace

ngx_int_t send_response(ngx_http_request_t* r, Response response) noexcept {
    return guard(r->connection->log, ngx_int_t{NGX_HTTP_INTERNAL_SERVER_ERROR}, [&]() -> ngx_int_t {
        if (const auto status = chosen_status(loc_conf(r).status_codes, response.code); status != 0) {
            change_status(response, status);
        }
        if (!add_fields(r, response)) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
        // nginx takes the address of a redirection where other answers have their body.
        return send_answer(r, response.status, response.type,
                           response.location.empty() ? response.body : response.location);
    });
}

ngx_int_t endpoint_handler(ngx_http_request_t* r) {
    return guard(r->connection->log, ngx_int_t{NGX_HTTP_INTERNAL_SERVER_ERROR}, [r]() -> ngx_int_t {
        const Methods methods = methods_of(loc_conf(r).endpoint.kind);
        if (r->method == NGX_HTTP_OPTIONS) {
            Response response;
            response.status = NGX_HTTP_NO_CONTENT;
            response.allow = methods.allow;
            return refuse_at_once(r, response);
        }
        if ((r->method & methods.mask) == 0 || r != r->main) {
            return refuse_at_once(r, wrong_method(methods.allow));
        }
        if (r->headers_in.content_length_n > static_cast<off_t>(largest_body(loc_conf(r)))) {
            return refuse_at_once(r, too_large());
        }
        r->request_body_in_single_buf = 1;
        const ngx_int_t read = ngx_http_read_client_request_body(r, on_body);
        return read >= NGX_HTTP_SPECIAL_RESPONSE ? read : NGX_DONE;
    });
}

} // namespace billing
