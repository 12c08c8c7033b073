#include "nginx/own_fields.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace billing {

namespace {

// After "x-billing-": what is sent, now or by hand from the variables, and what a proxy may copy from billing_check.
constexpr std::array<std::string_view, 16> k_names = {
    "account", "plan", "status", "features", "remaining", "reservation", "priority", "warning",
    "cost",    "time", "grace",  "decision", "reason",    "limit",       "reset",    "source",
};

constexpr std::string_view k_attribute = "billing_attr_";

constexpr std::string_view k_separators = "-_.";
constexpr std::size_t k_most_separators =
    4; // of which each may be written in its own way; further ones are written alike

// nginx calls it for a field that it has just added to the request's list.
ngx_int_t drop_field(ngx_http_request_t* r, ngx_table_elt_t*, ngx_uint_t) noexcept {
    ngx_list_t& fields = r->headers_in.headers;
    if (fields.last->nelts > 1 || fields.last == &fields.part) {
        --fields.last->nelts;
        return NGX_OK;
    }
    // Who walks the list reads the first field of each further part unasked, so none may be left empty. The field
    // before this one takes its place; where it stood it stays readable for those who keep pointers to it.
    ngx_list_part_t* before = &fields.part;
    while (before->next != fields.last) {
        before = before->next;
    }
    auto* const moved = static_cast<ngx_table_elt_t*>(before->elts) + --before->nelts;
    *static_cast<ngx_table_elt_t*>(fields.last->elts) = *moved;
    return NGX_OK;
}

ngx_http_header_t own_field = {ngx_string("x-billing"), 0, drop_field};

// Behind the languages' own gateways one name is made of X-Billing-Plan, X_Billing_Plan (CGI) and X.Billing.Plan (PHP);
// nginx lets the latter two pass only where it is told to.
void add_spellings(std::string name, std::size_t from, std::size_t separators, std::set<std::string>& spellings) {
    const std::size_t at = name.find_first_of(k_separators, from);
    if (at == std::string::npos) {
        spellings.insert(std::move(name));
        return;
    }
    const bool last = separators == 1;
    for (const char separator : k_separators) {
        const auto end = last ? name.end() : name.begin() + static_cast<std::ptrdiff_t>(at) + 1;
        std::replace_if(
            name.begin() + static_cast<std::ptrdiff_t>(at), end,
            [](char c) { return k_separators.find(c) != std::string_view::npos; }, separator);
        add_spellings(name, last ? name.size() : at + 1, separators - 1, spellings);
    }
}

struct Key {
    std::string name; // in lower case
    ngx_uint_t hash;
    ngx_http_header_t* field;
};

// The parser of HTTP/1 leaves characters out of a name's hash that it holds for invalid: those of `without`.
ngx_uint_t hash_of(std::string_view name, std::string_view without) noexcept {
    ngx_uint_t hash = 0;
    for (const char c : name) {
        if (without.find(c) == std::string_view::npos) {
            hash = ngx_hash(hash, static_cast<u_char>(c));
        }
    }
    return hash;
}

std::vector<std::string> own_names(const ngx_http_core_main_conf_t& core) {
    std::vector<std::string> names;
    for (const auto name : k_names) {
        names.push_back("x-billing-" + std::string{name});
    }
    const auto* used = static_cast<const ngx_http_variable_t*>(core.variables.elts);
    for (ngx_uint_t index = 0; index < core.variables.nelts; ++index) {
        if (const auto name = view(used[index].name); name.starts_with(k_attribute)) {
            names.push_back("x-billing-" + std::string{name.substr(k_attribute.size())});
        }
    }
    return names;
}

void add_keys(const std::string& name, std::vector<Key>& keys) {
    std::set<std::string> spellings;
    add_spellings(name, 0, k_most_separators, spellings);
    for (const auto& spelling : spellings) {
        std::set<ngx_uint_t> hashes;
        for (const std::string_view without : {"", "_", ".", "_."}) {
            hashes.insert(hash_of(spelling, without));
        }
        for (const ngx_uint_t hash : hashes) {
            keys.push_back({spelling, hash, &own_field});
        }
    }
}

std::size_t bytes_of(const Key& key) noexcept {
    return ngx_align(offsetof(ngx_hash_elt_t, name) + key.name.size(), sizeof(void*));
}

// Of the entries of one bucket, one behind the other, the last is followed by one without a value.
ngx_hash_elt_t* make_bucket(ngx_pool_t* pool, const std::vector<const Key*>& keys) {
    std::size_t bytes = sizeof(void*);
    for (const Key* key : keys) {
        bytes += bytes_of(*key);
    }
    auto* at = static_cast<u_char*>(ngx_pcalloc(pool, bytes));
    auto* first = reinterpret_cast<ngx_hash_elt_t*>(at);
    for (const Key* key : keys) {
        if (at == nullptr) {
            break;
        }
        auto* entry = reinterpret_cast<ngx_hash_elt_t*>(at);
        entry->value = key->field;
        entry->len = static_cast<u_short>(key->name.size());
        ngx_memcpy(entry->name, key->name.data(), key->name.size());
        at += bytes_of(*key);
    }
    return first;
}

// As ngx_hash_find() reads it. nginx's own builder packs tables tight; this one is sparse, so that a name that is not
// in it meets an empty bucket as a rule, and costs a request no more than before.
bool make_table(ngx_pool_t* pool, const std::vector<Key>& keys, ngx_hash_t& table) {
    table.size = keys.size() * 4;
    table.buckets = static_cast<ngx_hash_elt_t**>(ngx_pcalloc(pool, table.size * sizeof(ngx_hash_elt_t*)));
    if (table.buckets == nullptr) {
        return false;
    }
    std::map<ngx_uint_t, std::vector<const Key*>> buckets;
    for (const Key& key : keys) {
        buckets[key.hash % table.size].push_back(&key);
    }
    for (const auto& [number, held] : buckets) {
        table.buckets[number] = make_bucket(pool, held);
        if (table.buckets[number] == nullptr) {
            return false;
        }
    }
    return true;
}

} // namespace

// nginx looks each field's name up in this table anyway, so who sends none of these pays nothing. Ours takes the place
// of the one that nginx has built a moment ago, and holds the same names and more.
ngx_int_t claim_own_fields(ngx_conf_t* cf) {
    return guard(cf->log, ngx_int_t{NGX_ERROR}, [cf]() -> ngx_int_t {
        std::vector<Key> keys;
        for (ngx_http_header_t* known = ngx_http_headers_in; known->name.len != 0; ++known) {
            std::string name{view(known->name)};
            ngx_strlow(reinterpret_cast<u_char*>(name.data()), known->name.data, known->name.len);
            const ngx_uint_t hash = hash_of(name, "");
            keys.push_back({std::move(name), hash, known});
        }
        auto* core =
            static_cast<ngx_http_core_main_conf_t*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));
        for (const auto& name : own_names(*core)) {
            add_keys(name, keys);
        }
        ngx_hash_t table{};
        if (!make_table(cf->pool, keys, table)) {
            return NGX_ERROR;
        }
        core->headers_in_hash = table;
        return NGX_OK;
    });
}

} // namespace billing
