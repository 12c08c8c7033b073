#include "endpoints/metrics.hpp"

#include "endpoints/metrics_text.hpp"

#include <algorithm>

namespace billing {

namespace {

std::optional<std::int64_t> watermark_age(const Table& table, std::int64_t now_ms) {
    const auto arrival = static_cast<std::int64_t>(table.watermark_arrival());
    return arrival == 0 ? std::nullopt : std::optional{std::max<std::int64_t>(now_ms - arrival, 0)};
}

} // namespace

Task<Response> metrics(Request, Services& services, const EndpointSettings&) {
    HostMetrics host;
    host.queues = co_await services.gauges.queues();
    host.zone = co_await services.gauges.zone();
    for (std::size_t number = 0; number < host.counters.size(); ++number) {
        host.counters[number] = services.table.counted(static_cast<Counter>(number));
    }
    host.workers = services.table.states();
    host.watermark_age_ms = watermark_age(services.table, services.reactor.now_ms());
    host.nginx = services.nginx;
    Response response;
    response.type = "text/plain; version=0.0.4; charset=utf-8";
    response.body = metrics_text(host);
    co_return response;
}

} // namespace billing
