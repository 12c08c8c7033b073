#include "domain/catalog_settings.hpp"

#include "domain/file_judge.hpp"
#include "domain/result.hpp"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string_view>

namespace billing {

namespace {

class Filler : private FileJudge {
public:
    explicit Filler(CatalogSettings& settings) : settings_(settings) {}

    std::string fill_in(json_t* root) {
        walk(root, "", false);
        return problems();
    }

private:
    void walk(json_t* value, const std::string& path, bool in_price) {
        if (json_is_string(value)) {
            fill(value, path, in_price && path.ends_with(".id"));
        }
        const char* key = nullptr;
        json_t* member = nullptr;
        json_object_foreach(value, key, member) {
            std::string where = path;
            where.append(path.empty() ? "" : ".").append(key);
            walk(member, where, in_price || std::string_view{key} == "price");
        }
        for (std::size_t index = 0; index < json_array_size(value); ++index) {
            walk(json_array_get(value, index), path + "[" + std::to_string(index) + "]", in_price);
        }
    }

    void fill(json_t* value, const std::string& path, bool is_id) {
        const std::string_view text{json_string_value(value), json_string_length(value)};
        const bool from_file = is_id && text.starts_with("file:");
        const bool from_environment = is_id && text.starts_with("env:");
        if (!from_file && !from_environment && text.find("${") == std::string_view::npos) {
            return;
        }
        const auto filled = from_file          ? of_file(text.substr(5))
                            : from_environment ? of_environment(text.substr(4))
                                               : expanded(text);
        if (!filled) {
            problem(path, filled.error());
        } else if (json_string_setn(value, filled.value().data(), filled.value().size()) != 0) {
            problem(path, "is no UTF-8, once its settings are filled in");
        }
    }

    Result<std::string> expanded(std::string_view text) {
        std::string result;
        for (auto start = text.find("${"); start != std::string_view::npos; start = text.find("${")) {
            const auto end = text.find('}', start);
            const auto name = text.substr(start + 2, end == std::string_view::npos ? end : end - start - 2);
            if (end == std::string_view::npos || !is_name(name)) {
                return Error{"write ${NAME} with the name of a variable of the environment, of A-Z a-z 0-9 _"};
            }
            auto value = of_environment(name);
            if (!value) {
                return value;
            }
            result.append(text.substr(0, start)).append(value.value());
            text.remove_prefix(end + 1);
        }
        return result.append(text);
    }

    Result<std::string> of_environment(std::string_view name) {
        const std::string wanted{name};
        const char* value = std::getenv(wanted.c_str());
        if (value == nullptr || *value == '\0') {
            return Error{"the environment has no " + wanted + "; set it where nginx and ngx-billing are started"};
        }
        settings_.environment.insert(wanted);
        return std::string{value};
    }

    Result<std::string> of_file(std::string_view name) const {
        const std::string path = (name.starts_with('/') ? "" : settings_.folder) + std::string{name};
        std::ifstream stream{path, std::ios::binary};
        std::string value{std::istreambuf_iterator<char>{stream}, {}};
        value.erase(std::find_if(value.begin(), value.end(), [](char byte) { return byte == '\r' || byte == '\n'; }),
                    value.end());
        if (value.empty()) {
            return Error{"cannot read " + path + ", or its first line is empty"};
        }
        return value;
    }

    static bool is_name(std::string_view name) noexcept {
        return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
            return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
        });
    }

    CatalogSettings& settings_;
};

} // namespace

std::string CatalogSettings::fill_in(json_t* root) { return Filler{*this}.fill_in(root); }

} // namespace billing
