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
    const auto status = parse_status(text_member(root, "status").value_or(""));
    const auto maintenance = parse_maintenance(text_member(root, "maintenance").value_or(""));
    if (!id || *id <= 0 || !account || !valid_account_id(*account) || !stamp || !plan || *plan < 1 || *plan > 255 ||
        !status || !maintenance || !json_is_boolean(json_object_get(root, "write_enabled"))) {
        return Error{"snapshot lacks id, account, stamp, plan, status, maintenance or write_enabled"};
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
    snapshot.overage = true_member(root, "overage");
    snapshot.deleted = true_member(root, "deleted");
    snapshot.grace_until = integer_member(root, "grace_until");
    snapshot.trial_end = integer_member(root, "trial_end");
    snapshot.period_end = integer_member(root, "period_end");
    snapshot.cancel_at = integer_member(root, "cancel_at");
    if (!read_overrides(root, snapshot)) {
        return Error{"snapshot has an override without number, switch or amount"};
    }
    return snapshot;
}

} // namespace billing
