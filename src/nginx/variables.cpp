#include "nginx/variables.hpp"

#include "gate/problem.hpp"
#include "nginx/gate_handler.hpp"
#include "nginx/recheck.hpp"
#include "nginx/worker.hpp"

#include <array>

namespace billing {

namespace {

using Reader = std::string (*)(const RequestRecord& record);

constexpr std::string_view k_attribute_prefix = "billing_attr_";

const Plan* plan_of(const RequestRecord& record) noexcept {
    const Catalog* catalog = Worker::current()->gate().catalog();
    return catalog == nullptr ? nullptr : catalog->plan(record.decision.plan_no);
}

std::string plan_key(const RequestRecord& record) {
    const Plan* plan = plan_of(record);
    return plan == nullptr ? "" : plan->key;
}

std::string when_metered(const RequestRecord& record, std::uint64_t value) {
    const Meter& meter = record.decision.meter;
    return !meter.metered ? "" : meter.unlimited ? "unlimited" : std::to_string(value);
}

std::string decision_text(const RequestRecord& record) {
    const Decision& decision = record.decision;
    if (!decision.allows()) {
        return record.observed ? "would_deny" : "deny";
    }
    return decision.fallback        ? "allow_fallback"
           : decision.grace         ? "allow_grace"
           : decision.meter.overage ? "allow_overage"
                                    : "allow";
}

struct Variable {
    std::string_view name;
    Reader read;
};

constexpr std::array<Variable, 14> k_variables = {{
    {"billing_account", [](const RequestRecord& record) { return std::string{record.account}; }},
    {"billing_plan", plan_key},
    {"billing_status",
     [](const RequestRecord& record) {
         return record.decision.plan_no == 0 ? "" : std::string{to_text(record.decision.status)};
     }},
    {"billing_decision", decision_text},
    {"billing_reason",
     [](const RequestRecord& record) {
         return record.decision.allows() ? "" : reason_code(record.decision, record.rules().rules);
     }},
    {"billing_remaining",
     [](const RequestRecord& record) { return when_metered(record, record.decision.meter.remaining); }},
    {"billing_limit", [](const RequestRecord& record) { return when_metered(record, record.decision.meter.limit); }},
    {"billing_reset",
     [](const RequestRecord& record) {
         const auto reset = record.decision.meter.reset;
         return reset == 0 ? "" : std::to_string(reset);
     }},
    {"billing_cost",
     [](const RequestRecord& record) {
         return std::to_string(record.charge.sum() +
                               recharged_units(*static_cast<const ngx_http_request_t*>(record.cleanup.data)));
     }},
    {"billing_reservation",
     [](const RequestRecord& record) {
         const CreditCharge* credits = record.charge.credits;
         return credits == nullptr ? std::string{} : std::string{credits->reservation.view()};
     }},
    {"billing_source", [](const RequestRecord& record) { return std::string{to_text(record.decision.source)}; }},
    {"billing_time",
     [](const RequestRecord& record) {
         std::string text = std::to_string(record.waited_ms / 1000) + ".000";
         const std::string rest = std::to_string(record.waited_ms % 1000);
         return text.replace(text.size() - rest.size(), rest.size(), rest);
     }},
    {"billing_warning",
     [](const RequestRecord& record) {
         const Decision& decision = record.decision;
         return decision.warning == 0
                    ? std::string{}
                    : record.rules().rules.quotas[decision.warned].key + ' ' + std::to_string(decision.warning) + '%';
     }},
    {"billing_grace",
     [](const RequestRecord& record) { return record.decision.grace ? std::string{"1"} : std::string{}; }},
}};

// The text is copied: what it came from may be forgotten before the request ends. "" is not found.
ngx_int_t give(ngx_http_request_t* r, ngx_http_variable_value_t* value, std::string_view read) {
    value->not_found = read.empty();
    if (read.empty()) {
        return NGX_OK;
    }
    const ngx_str_t text = pool_copy(r->pool, read);
    if (text.data == nullptr) {
        return NGX_ERROR;
    }
    value->data = text.data;
    value->len = static_cast<unsigned>(text.len) & 0xfffffff;
    value->valid = 1;
    value->no_cacheable = 1;
    return NGX_OK;
}

// noexcept edge: data is the variable's place in the table.
ngx_int_t get_variable(ngx_http_request_t* r, ngx_http_variable_value_t* value, uintptr_t data) {
    return guard(r->connection->log, ngx_int_t{NGX_ERROR}, [&]() -> ngx_int_t {
        const RequestRecord* record = shown_record(r);
        return give(r, value, record == nullptr ? "" : k_variables[data].read(*record));
    });
}

// noexcept edge: data is the variable's whole name.
ngx_int_t get_attribute(ngx_http_request_t* r, ngx_http_variable_value_t* value, uintptr_t data) {
    const auto name = view(*reinterpret_cast<const ngx_str_t*>(data)).substr(k_attribute_prefix.size());
    const RequestRecord* record = shown_record(r);
    const std::string* text = record == nullptr ? nullptr : read_attribute(*record, name);
    return give(r, value, text == nullptr ? std::string_view{} : *text);
}

} // namespace

const RequestRecord* shown_record(ngx_http_request_t* r) noexcept {
    const RequestRecord* record = find_record(r);
    if (record == nullptr) {
        record = r == r->main ? nullptr : find_record(r->main);
    }
    return record == nullptr || record->conf == nullptr || record->waiting != nullptr ? nullptr : record;
}

const std::string* read_attribute(const RequestRecord& record, std::string_view name) noexcept {
    const Plan* plan = plan_of(record);
    if (plan == nullptr) {
        return nullptr;
    }
    const auto found = plan->attributes.find(name);
    return found == plan->attributes.end() ? nullptr : &found->second;
}

std::string read_variable(const RequestRecord& record, std::string_view name) {
    for (const Variable& variable : k_variables) {
        if (variable.name == name) {
            return variable.read(record);
        }
    }
    return {};
}

ngx_int_t add_variables(ngx_conf_t* cf) {
    for (std::size_t index = 0; index < k_variables.size(); ++index) {
        ngx_str_t name = as_ngx(k_variables[index].name);
        ngx_http_variable_t* variable = ngx_http_add_variable(cf, &name, NGX_HTTP_VAR_NOCACHEABLE);
        if (variable == nullptr) {
            return NGX_ERROR;
        }
        variable->get_handler = get_variable;
        variable->data = index;
    }
    ngx_str_t prefix = as_ngx(k_attribute_prefix);
    ngx_http_variable_t* attribute = ngx_http_add_variable(cf, &prefix, NGX_HTTP_VAR_NOCACHEABLE | NGX_HTTP_VAR_PREFIX);
    if (attribute == nullptr) {
        return NGX_ERROR;
    }
    attribute->get_handler = get_attribute;
    return NGX_OK;
}

} // namespace billing
