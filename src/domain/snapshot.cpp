#include "domain/snapshot.hpp"

#include "domain/json.hpp"

#include <charconv>

namespace billing {

namespace {

std::optional<Maintenance> parse_maintenance(std::string_view text) noexcept {
    if (text == "none") {
        return Maintenance::none;
    }
    if (text == "payment") {
        return Maintenance::payment;
    }
    if (text == "operator") {
        return Maintenance::operator_hold;
    }
    return std::nullopt;
}

// Overrides are keyed by the number of the feature or limit, as text.
std::optional<std::uint8_t> parse_number(std::string_view key, unsigned below) noexcept {
    unsigned number = 0;
    const auto [end, problem] = std::from_chars(key.data(), key.data() + key.size(), number);
    if (problem != std::errc{} || end != key.data() + key.size() || number >= below) {
        return std::nullopt;
    }
    return static_cast<std::uint8_t>(number);
}

// "zone":{"spans":[[from,offset],...],"until":...}, or null for UTC.
bool read_zone(const json_t* source, Snapshot& snapshot) {
    constexpr std::int64_t k_most_offset = 86400;
    if (source == nullptr || json_is_null(source)) {
        return true;
    }
    const json_t* spans = json_object_get(source, "spans");
    const auto until = integer_member(source, "until");
    if (json_array_size(spans) == 0 || !until) {
        return false;
    }
    snapshot.zone_until = *until;
    for (std::size_t index = 0; index < json_array_size(spans); ++index) {
        const json_t* from = json_array_get(json_array_get(spans, index), 0);
        const json_t* offset = json_array_get(json_array_get(spans, index), 1);
        const std::int64_t seconds = json_is_integer(offset) ? json_integer_value(offset) : k_most_offset;
        if (!json_is_integer(from) || seconds <= -k_most_offset || seconds >= k_most_offset) {
            return false;
        }
        snapshot.zone.push_back({json_integer_value(from), static_cast<std::int32_t>(seconds)});
    }
    return true;
}

bool read_overrides(const json_t* root, Snapshot& snapshot) {
    const char* key = nullptr;
    json_t* value = nullptr;
    json_object_foreach(json_object_get(root, "features"), key, value) {
        const auto number = parse_number(key, 128);
        if (!number || !json_is_boolean(json_object_get(value, "on"))) {
            return false;
        }
        snapshot.features.push_back({*number, true_member(value, "on"), integer_member(value, "until")});
    }
    json_object_foreach(json_object_get(root, "limits"), key, value) {
        const auto number = parse_number(key, 64);
        const json_t* amount = json_object_get(value, "amount");
        if (!number || (!json_is_null(amount) && !json_is_integer(amount))) {
            return false;
        }
        snapshot.limits.push_back({*number, integer_member(value, "amount"), integer_member(value, "until")});
    }
    return true;
}

} // namespace

Result<Snapshot> read_snapshot(std::string_view body) {
    auto parsed = parse_json(body);
    if (!parsed) {
        return Error{"snapshot is not JSON: " + parsed.error()};
    }
    const json_t* root = parsed.value().get();
    const auto id = integer_member(root, "id");
    const auto account = text_member(root, "account");
    const auto stamp = from_hex16(text_member(root, "stamp").value_or(""));
    const auto plan = integer_member(root, "plan");
    const auto anchor = integer_member(root, "anchor");
    const auto status = parse_status(text_member(root, "status").value_or(""));
    const auto maintenance = parse_maintenance(text_member(root, "maintenance").value_or(""));
    if (!id || *id <= 0 || *id > k_account_number_max || !anchor || !account || !valid_account_id(*account) || !stamp ||
        !plan || *plan < 1 || *plan > 255 || !status || !maintenance ||
        !json_is_boolean(json_object_get(root, "write_enabled"))) {
        return Error{"snapshot lacks id, account, stamp, plan, anchor, status, maintenance or write_enabled"};
    }
    Snapshot snapshot;
    snapshot.id = static_cast<std::uint64_t>(*id);
    snapshot.account = *account;
    snapshot.stamp = *stamp;
    snapshot.plan_no = static_cast<std::uint8_t>(*plan);
    snapshot.status = *status;
    snapshot.maintenance = *maintenance;
    snapshot.write_enabled = true_member(root, "write_enabled");
    snapshot.enforced = true_member(root, "enforced");
    snapshot.overage_on = true_member(root, "overage_on");
    snapshot.deleted = true_member(root, "deleted");
    snapshot.grace_until = integer_member(root, "grace_until");
    snapshot.trial_end = integer_member(root, "trial_end");
    snapshot.period_end = integer_member(root, "period_end");
    snapshot.cancel_at = integer_member(root, "cancel_at");
    snapshot.anchor = *anchor;
    if (!read_zone(json_object_get(root, "zone"), snapshot)) {
        return Error{"snapshot has a time zone without spans, offsets or end"};
    }
    if (!read_overrides(root, snapshot)) {
        return Error{"snapshot has an override without number, switch or amount"};
    }
    return snapshot;
}

} // namespace billing
