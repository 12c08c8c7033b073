#include "nginx/pass_headers.hpp"

#include "gate/feature_names.hpp"
#include "nginx/variables.hpp"
#include "nginx/worker.hpp"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

namespace billing {

namespace {

struct Field {
    std::string_view name;
    std::string_view lower; // its address tells our fields from a client's
    std::string (*read)(const RequestRecord& record);
};

template <std::size_t k_index>
std::string variable(const RequestRecord& record) {
    constexpr std::array<std::string_view, 6> k_names = {"billing_account",   "billing_plan",        "billing_status",
                                                         "billing_remaining", "billing_reservation", "billing_warning"};
    return read_variable(record, k_names[k_index]);
}

std::string features(const RequestRecord& record) {
    Worker& worker = *Worker::current();
    const Catalog* catalog = worker.gate().catalog();
    return catalog == nullptr ? "" : feature_names(worker.table(), *catalog, record.account, record.decision.plan_no);
}

std::string priority(const RequestRecord& record) {
    const std::string* text = read_attribute(record, "priority");
    return text == nullptr ? "" : *text;
}

constexpr std::array<Field, 8> k_fields = {{
    {"X-Billing-Account", "x-billing-account", variable<0>},
    {"X-Billing-Plan", "x-billing-plan", variable<1>},
    {"X-Billing-Status", "x-billing-status", variable<2>},
    {"X-Billing-Features", "x-billing-features", features},
    {"X-Billing-Remaining", "x-billing-remaining", variable<3>},
    {"X-Billing-Reservation", "x-billing-reservation", variable<4>},
    {"X-Billing-Priority", "x-billing-priority", priority},
    {"X-Billing-Warning", "x-billing-warning", variable<5>},
}};

bool is_ours(const ngx_table_elt_t& field) noexcept {
    return std::any_of(k_fields.begin(), k_fields.end(), [&](const Field& ours) {
        return reinterpret_cast<const char*>(field.lowcase_key) == ours.lower.data();
    });
}

bool has_ours(const ngx_list_part_t& part) noexcept {
    const auto* fields = static_cast<const ngx_table_elt_t*>(part.elts);
    return std::any_of(fields, fields + part.nelts, is_ours);
}

// Takes our fields out of the list. A subrequest's list shares its parts with its parent's, so what changes is copied:
// the chain, and the part that we have added, of which `others` gets what somebody else has put behind ours.
bool detach(ngx_http_request_t* r, std::vector<ngx_table_elt_t>& others) {
    ngx_list_t& list = r->headers_in.headers;
    ngx_list_part_t* last = &list.part; // a client's, always
    for (const ngx_list_part_t* part = list.part.next; part != nullptr; part = part->next) {
        if (has_ours(*part)) {
            const auto* fields = static_cast<const ngx_table_elt_t*>(part->elts);
            std::copy_if(fields, fields + part->nelts, std::back_inserter(others),
                         [](const ngx_table_elt_t& field) { return !is_ours(field); });
            continue;
        }
        auto* copy = static_cast<ngx_list_part_t*>(ngx_palloc(r->pool, sizeof(ngx_list_part_t)));
        if (copy == nullptr) {
            return false;
        }
        *copy = *part;
        last->next = copy;
        last = copy;
    }
    last->next = nullptr;
    list.last = last;
    return true;
}

// In a part of its own: the rest of the last one may be another request's too.
bool append(ngx_http_request_t* r, const std::vector<ngx_table_elt_t>& fields) {
    if (fields.empty()) {
        return true;
    }
    ngx_list_t& list = r->headers_in.headers;
    auto* part = static_cast<ngx_list_part_t*>(ngx_palloc(r->pool, sizeof(ngx_list_part_t)));
    void* room = ngx_palloc(r->pool, list.nalloc * list.size);
    if (part == nullptr || room == nullptr) {
        return false;
    }
    *part = {room, 0, nullptr};
    list.last->next = part;
    list.last = part;
    for (const ngx_table_elt_t& field : fields) {
        auto* slot = static_cast<ngx_table_elt_t*>(ngx_list_push(&list));
        if (slot == nullptr) {
            return false;
        }
        *slot = field;
    }
    return true;
}

} // namespace

bool pass_headers(ngx_http_request_t* r, bool on) {
    const RequestRecord* record = on ? shown_record(r) : nullptr;
    if (record != nullptr && !record->passed()) { // a refusal's page says nothing of whom it is for
        record = nullptr;
    }
    bool has = false;
    for (const ngx_list_part_t* part = r->headers_in.headers.part.next; part != nullptr; part = part->next) {
        has = has || has_ours(*part);
    }
    if (record == nullptr && !has) {
        return true;
    }
    std::vector<ngx_table_elt_t> fields;
    if (!detach(r, fields)) {
        return false;
    }
    for (const Field& ours : k_fields) {
        const std::string value = record == nullptr ? "" : ours.read(*record);
        if (value.empty()) {
            continue;
        }
        ngx_table_elt_t field{};
        field.key = as_ngx(ours.name);
        field.lowcase_key = as_ngx(ours.lower).data;
        field.hash = ngx_hash_key(field.lowcase_key, ours.lower.size());
        field.value = pool_copy(r->pool, value);
        if (field.value.data == nullptr) {
            return false;
        }
        fields.push_back(field);
    }
    return append(r, fields);
}

} // namespace billing
