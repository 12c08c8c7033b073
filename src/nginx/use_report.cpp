#include "nginx/use_report.hpp"

#include "nginx/outcome.hpp"
#include "nginx/worker.hpp"

#include <algorithm>
#include <charconv>
#include <string>

namespace billing {

namespace {

// A whole number, written as one.
std::optional<std::uint32_t> parse_use(std::string_view text) noexcept {
    std::uint32_t units = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), units);
    const bool whole = problem == std::errc{} && end == text.data() + text.size();
    return whole ? std::optional{units} : std::nullopt;
}

// nginx's variable has only one of them.
bool stands_twice(const ngx_http_request_t* r, const std::string& field) noexcept {
    return !field.empty() && r->upstream != nullptr && count_fields(r->upstream->headers_in.headers, field) > 1;
}

std::optional<std::uint32_t> read_report(ngx_http_request_t* r, const UseReport& report, const std::string& what) {
    ngx_str_t text;
    if (report.value == nullptr || ngx_http_complex_value(r, report.value, &text) != NGX_OK || text.len == 0) {
        return std::nullopt;
    }
    const auto units = parse_use(view(text));
    if (!units || stands_twice(r, report.field)) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "billing: the use of %s was reported by what is no whole number; it stays as it was taken",
                      what.c_str());
        return std::nullopt;
    }
    if (*units > report.most) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0, "billing: the use of %s was reported as %uD; %uD are charged",
                      what.c_str(), *units, report.most);
    }
    return std::min(*units, report.most);
}

} // namespace

void settle_by_report(ngx_http_request_t* r, RequestRecord& record) {
    const LocationRules& location = record.rules();
    Gate& gate = Worker::current()->gate();
    for (std::size_t index = 0; index < location.quota_use.size(); ++index) {
        const std::string& key = location.rules.quotas[index].key;
        if (const auto units = read_report(r, location.quota_use[index], key)) {
            gate.settle_quota(record.charge, location.index, index, *units, record.account, ngx_time(),
                              ngx_current_msec);
        }
    }
    for (std::size_t index = 0; index < location.credit_use.size(); ++index) {
        const std::string& key = location.rules.credits[index].key;
        if (const auto units = read_report(r, location.credit_use[index], key)) {
            gate.settle_credits(record.charge, location.index, index, *units);
        }
    }
}

} // namespace billing
