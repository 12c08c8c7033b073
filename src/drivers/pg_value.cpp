// Making parameters and reading results. Called by whoever has a query or its answer.
#include "drivers/pg_value.hpp"

#include <libpq-fe.h>

#include <charconv>
#include <cstring>

namespace billing {

PgParams& PgParams::add(std::string_view text) {
    if (text.find('\0') != std::string_view::npos)
        zero_byte_ = true;
    starts_.push_back(bytes_.size());
    bytes_.append(text);
    bytes_ += '\0';
    return *this;
}

PgParams& PgParams::add(std::nullptr_t) {
    starts_.push_back(k_null);
    return *this;
}

namespace {

template <class Int>
std::string integers(std::span<const Int> values) {
    std::string out = "{";
    char digits[24];
    for (const Int value : values) {
        if (out.size() > 1)
            out += ',';
        const auto [end, error] = std::to_chars(digits, digits + sizeof(digits), value);
        out.append(digits, end);
    }
    return out + '}';
}

// Always quoted, so that NULL, spaces, commas and braces are nothing special.
void append_text(std::string& out, std::string_view text) {
    if (out.size() > 1)
        out += ',';
    out += '"';
    for (const char c : text) {
        if (c == '"' || c == '\\')
            out += '\\';
        out += c;
    }
    out += '"';
}

} // namespace

PgParams& PgParams::add(std::span<const std::int64_t> values) { return add(integers(values)); }
PgParams& PgParams::add(std::span<const std::int32_t> values) { return add(integers(values)); }
PgParams& PgParams::add(std::span<const std::int16_t> values) { return add(integers(values)); }

PgParams& PgParams::add(std::span<const std::string> values) {
    std::string out = "{";
    for (const std::string& value : values)
        append_text(out, value);
    return add(out + '}');
}

PgParams& PgParams::add(std::span<const std::optional<std::string>> values) {
    std::string out = "{";
    for (const auto& value : values) {
        if (value)
            append_text(out, *value);
        else
            out += out.size() > 1 ? ",NULL" : "NULL";
    }
    return add(out + '}');
}

PgParams& PgParams::add_bytes(std::string_view bytes) {
    binary_.emplace_back(starts_.size(), static_cast<int>(bytes.size()));
    starts_.push_back(bytes_.size());
    bytes_.append(bytes);
    return *this;
}

std::vector<int> PgParams::lengths() const {
    std::vector<int> out(binary_.empty() ? 0 : starts_.size());
    for (const auto& [index, length] : binary_)
        out[index] = length;
    return out;
}

std::vector<int> PgParams::formats() const {
    std::vector<int> out(binary_.empty() ? 0 : starts_.size());
    for (const auto& value : binary_)
        out[value.first] = 1;
    return out;
}

std::vector<const char*> PgParams::pointers() const {
    std::vector<const char*> out;
    out.reserve(starts_.size());
    for (const std::size_t start : starts_)
        out.push_back(start == k_null ? nullptr : bytes_.data() + start);
    return out;
}

void PgResult::Clear::operator()(pg_result* result) const noexcept { PQclear(result); }

PgResult::PgResult(pg_result* result) : result_(result) {
    switch (PQresultStatus(result)) {
    case PGRES_TUPLES_OK:
    case PGRES_COMMAND_OK:
    case PGRES_EMPTY_QUERY:
        outcome_ = PgOutcome::ok;
        return;
    default:
        break;
    }
    outcome_ = PgOutcome::refused;
    const char* state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char* primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    if (state)
        sqlstate_ = state;
    message_ = primary ? primary : "the statement is of a kind which is not supported (COPY)";
}

PgResult PgResult::refused(std::string sqlstate, std::string message) {
    PgResult result(PgOutcome::refused, std::move(message));
    result.sqlstate_ = std::move(sqlstate);
    return result;
}

int PgResult::rows() const noexcept { return result_ ? PQntuples(result_.get()) : 0; }
int PgResult::columns() const noexcept { return result_ ? PQnfields(result_.get()) : 0; }

bool PgResult::is_null(int row, int column) const noexcept {
    // libpq itself complains about numbers out of range on stderr.
    if (row < 0 || column < 0 || row >= rows() || column >= columns())
        return true;
    return PQgetisnull(result_.get(), row, column) != 0;
}

std::string_view PgResult::text(int row, int column) const noexcept {
    if (is_null(row, column))
        return {};
    return {PQgetvalue(result_.get(), row, column), static_cast<std::size_t>(PQgetlength(result_.get(), row, column))};
}

std::optional<std::int64_t> PgResult::maybe_integer(int row, int column) const noexcept {
    const std::string_view value = text(row, column);
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (value.empty() || error != std::errc() || end != value.data() + value.size())
        return std::nullopt;
    return number;
}

std::int64_t PgResult::integer(int row, int column) const noexcept { return maybe_integer(row, column).value_or(0); }

bool PgResult::boolean(int row, int column) const noexcept { return text(row, column) == "t"; }

std::string PgResult::bytes(int row, int column) const {
    const auto digit = [](char hex) { return hex <= '9' ? hex - '0' : hex - 'a' + 10; };
    const std::string_view hex = text(row, column);
    std::string bytes;
    bytes.reserve(hex.size() / 2);
    for (std::size_t at = 0; at + 1 < hex.size(); at += 2)
        bytes += static_cast<char>(digit(hex[at]) * 16 + digit(hex[at + 1]));
    return bytes;
}

std::int64_t PgResult::affected() const noexcept {
    if (!result_)
        return 0;
    const char* digits = PQcmdTuples(result_.get());
    std::int64_t number = 0;
    std::from_chars(digits, digits + std::strlen(digits), number);
    return number;
}

} // namespace billing
