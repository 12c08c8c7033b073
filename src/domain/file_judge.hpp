// What judging a file that an operator wrote has to do whatever the file is about: problems by path, all in one go.
// Used by the judges of such files; knows no file.
#pragma once

#include "domain/json.hpp"

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace billing {

// One problem a line, each with the file's name before it.
inline std::string problems_of(const std::string& file, std::string_view problems) {
    std::string text;
    while (!problems.empty()) {
        const auto line = problems.substr(0, problems.find('\n'));
        text += (text.empty() ? "" : "\n") + file + ": " + std::string{line};
        problems.remove_prefix(std::min(line.size() + 1, problems.size()));
    }
    return text;
}

class FileJudge {
protected:
    // One problem a line.
    std::string problems() { return std::move(problems_); }

    static bool valid_key(std::string_view key) noexcept {
        return !key.empty() && key.size() <= 64 && std::all_of(key.begin(), key.end(), [](char c) {
            return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
                   c == '.';
        });
    }

    void problem(const std::string& path, const std::string& what) {
        problems_ += (problems_.empty() ? "" : "\n") + path + ": " + what;
    }

    void missing(std::string path, const std::string& name, const char* remedy) {
        path += '.';
        problem(path += name, std::string{"is missing; "} + remedy);
    }

    void known_members(const json_t* object, const std::string& path, std::initializer_list<std::string_view> known) {
        const char* key = nullptr;
        json_t* value = nullptr;
        json_object_foreach(const_cast<json_t*>(object), key, value) {
            if (std::find(known.begin(), known.end(), key) == known.end()) {
                std::string list;
                for (const auto name : known) {
                    list += (list.empty() ? "" : ", ") + std::string{name};
                }
                problem(path.empty() ? key : path + "." + key, "unknown member; known here: " + list);
            }
        }
    }

    // Calls on(key, value, path) for each member whose key is a name; says so when the value is no object.
    template <class On>
    void each(const json_t* object, const std::string& path, On on) {
        if (object == nullptr) {
            return;
        }
        if (!json_is_object(object)) {
            problem(path, "must be an object of names");
            return;
        }
        const char* key = nullptr;
        json_t* value = nullptr;
        json_object_foreach(const_cast<json_t*>(object), key, value) {
            const std::string where = path + "." + key;
            if (!valid_key(key)) {
                problem(where, "a name has 1-64 of A-Z a-z 0-9 _ - .");
                continue;
            }
            on(std::string{key}, value, where);
        }
    }

    void yes_or_no(const json_t* value, const std::string& path) {
        if (value != nullptr && !json_is_boolean(value)) {
            problem(path, "must be true or false");
        }
    }

private:
    std::string problems_;
};

} // namespace billing
