#include "nginx/settings.hpp"

#include "nginx/conf.hpp"

#include "stripe/names.hpp"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sys/stat.h>

namespace billing {

namespace {

std::string trimmed(const std::string& text) {
    constexpr const char* k_space = " \t\r\n";
    const auto first = text.find_first_not_of(k_space);
    return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(k_space) - first + 1);
}

bool is_page_path(std::string_view text) noexcept {
    return text.starts_with('/') && is_url("https://x" + std::string{text});
}

// Of a setting's file. Relative names are below nginx's configuration.
std::string path_of(ngx_conf_t* cf, std::string_view word) {
    ngx_str_t path = pool_copy(cf->pool, word.substr(std::string_view{"file:"}.size()));
    const bool whole = path.data != nullptr && ngx_conf_full_name(cf->cycle, &path, 1) == NGX_OK;
    return whole ? std::string{view(path)} : std::string{};
}

void warn_of_readers(ngx_conf_t* cf, std::string_view word) {
    struct stat facts {};
    if (!word.starts_with("file:")) {
        return;
    }
    const std::string path = path_of(cf, word);
    if (::stat(path.c_str(), &facts) == 0 && S_ISREG(facts.st_mode) && (facts.st_mode & (S_IROTH | S_IWOTH)) != 0) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"%V\": everybody on this machine may read %s, which holds a secret; %s",
                           static_cast<ngx_str_t*>(cf->args->elts), path.c_str(), "chmod 600 mends it");
    }
}

} // namespace

Result<std::string> read_setting(ngx_conf_t* cf, std::string_view word) {
    if (word.starts_with("env:")) {
        const std::string name{word.substr(4)};
        const char* value = std::getenv(name.c_str());
        if (value == nullptr || *value == '\0') {
            return Error{"the environment has no " + name + "; set it where nginx is started"};
        }
        main_conf(cf).environment.emplace_back(name, ConfPlace::here(cf));
        return std::string{value};
    }
    if (!word.starts_with("file:")) {
        return std::string{word};
    }
    const std::string path = path_of(cf, word);
    std::ifstream stream{path, std::ios::binary};
    if (!stream) {
        return Error{"cannot read " + path + "; nginx's master must be able to open it"};
    }
    std::string value = trimmed({std::istreambuf_iterator<char>{stream}, {}});
    if (value.empty()) {
        return Error{path + " is empty"};
    }
    return value;
}

Result<std::string> read_secret(ngx_conf_t* cf, std::string_view word) {
    auto value = read_setting(cf, word);
    if (!value) {
        return Error{value.error()};
    }
    warn_of_readers(cf, word);
    return trim_secret(value.value());
}

Result<std::string> read_page(ngx_conf_t* cf, std::string_view word) {
    auto value = read_setting(cf, word);
    if (value && !is_url(value.value()) && !is_page_path(value.value())) {
        return Error{"invalid \"" + value.value() + "\"; write a whole address, or a path below billing_public_url"};
    }
    return value;
}

bool is_url(std::string_view text) noexcept {
    const std::string_view rest = text.substr(std::min(text.find("://"), text.size()));
    const std::string_view host = rest.substr(std::min<std::size_t>(3, rest.size()));
    const bool clean = std::all_of(text.begin(), text.end(), [](char byte) {
        return byte > ' ' && byte < 0x7f && byte != '"' && byte != '\\' && byte != '@';
    });
    return clean && (text.starts_with("https://") || text.starts_with("http://")) && !host.empty() &&
           host.front() != '/';
}

} // namespace billing
