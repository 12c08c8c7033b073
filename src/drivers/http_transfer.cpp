// Options, callbacks and the outcome of one transfer. Called by HttpClient; the callbacks by libcurl, so nothing may be
// thrown there.
#include "drivers/http_transfer.hpp"

#include <fcntl.h>
#include <openssl/x509_vfy.h>
#include <strings.h>

#include <algorithm>
#include <cstring>

#include "drivers/http_client.hpp"

namespace billing {

namespace {

constexpr std::size_t k_max_headers = 48;
constexpr std::size_t k_max_header_bytes = std::size_t{16} * 1024; // what is beyond is not kept

bool is_token(std::string_view text) noexcept {
    return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char byte) {
        return (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') ||
               byte == '-' || byte == '_';
    });
}

// One line: what could end it would begin another header.
bool is_line(std::string_view text) noexcept {
    return std::none_of(text.begin(), text.end(),
                        [](char byte) { return byte == '\r' || byte == '\n' || byte == '\0'; });
}

std::string_view trimmed(std::string_view text) noexcept {
    const auto first = text.find_first_not_of(" \t\r\n");
    if (first == text.npos)
        return {};
    return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

} // namespace

std::size_t HttpHeaders::position(std::string_view name) const noexcept {
    std::size_t i = 0;
    while (i < all_.size() &&
           !(all_[i].name.size() == name.size() && ::strncasecmp(all_[i].name.data(), name.data(), name.size()) == 0))
        ++i;
    return i;
}

std::string_view HttpHeaders::find(std::string_view name) const noexcept {
    const std::size_t i = position(name);
    return i == all_.size() ? std::string_view() : std::string_view(all_[i].value);
}

HttpTransfer::~HttpTransfer() {
    if (easy_)
        curl_easy_cleanup(easy_);
    curl_slist_free_all(list_);
}

bool HttpTransfer::prepare(const HttpConfig& config, std::int64_t timeout_ms) noexcept {
    max_body_ = request_.max_body != 0 ? request_.max_body : config.max_body;
    if (!is_line(request_.url) || !fill_headers()) {
        problem_ = "the request cannot be written";
        return false;
    }
    easy_ = curl_easy_init();
    const bool done = easy_ && set(CURLOPT_PRIVATE, this) && set(CURLOPT_URL, request_.url.c_str()) &&
                      set(CURLOPT_PROTOCOLS_STR, config.plain_http ? "https,http" : "https") &&
                      set(CURLOPT_PROXY, "") && set(CURLOPT_FOLLOWLOCATION, 0L) && set(CURLOPT_PATH_AS_IS, 1L) &&
                      set(CURLOPT_NOSIGNAL, 1L) && set(CURLOPT_TIMEOUT_MS, static_cast<long>(timeout_ms)) &&
                      set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(std::min(timeout_ms, config.connect_ms))) &&
                      set(CURLOPT_MAXFILESIZE_LARGE, static_cast<curl_off_t>(max_body_)) &&
                      set(CURLOPT_HTTPHEADER, list_) && set(CURLOPT_USERAGENT, "ngx-billing") &&
                      set(CURLOPT_HEADERFUNCTION, &HttpTransfer::on_header) && set(CURLOPT_HEADERDATA, this) &&
                      set(CURLOPT_WRITEFUNCTION, &HttpTransfer::on_body) && set(CURLOPT_WRITEDATA, this) &&
                      set(CURLOPT_SOCKOPTFUNCTION, &HttpTransfer::on_socket) && set_method() &&
                      set_trust(config.ca_file);
    if (!done) {
        problem_ = "libcurl does not take the request";
        return false;
    }
    // Ending a transfer whose name is still being looked up would otherwise wait for the resolver's thread, which may
    // take half a minute. The thread is let go and frees what it holds when it is through.
    set(CURLOPT_QUICK_EXIT, 1L);
    return true;
}

bool HttpTransfer::fill_headers() noexcept {
    try {
        // No "100 Continue": a server which does not know it would cost a second.
        std::string line = "Expect:";
        for (std::size_t i = 0;; ++i) {
            curl_slist* const longer = curl_slist_append(list_, line.c_str());
            if (!longer)
                return false;
            list_ = longer;
            if (i == request_.headers.size())
                return true;
            const auto& [name, value] = request_.headers.all()[i];
            if (!is_token(name) || !is_line(value))
                return false;
            line = name;
            line += value.empty() ? ";" : ": "; // "name:" would mean: do not send it
            line += value;
        }
    } catch (...) {
        return false;
    }
}

bool HttpTransfer::set_method() noexcept {
    const std::string& method = request_.method;
    if (method == "GET")
        return set(CURLOPT_HTTPGET, 1L);
    if (method == "HEAD")
        return set(CURLOPT_NOBODY, 1L);
    if (method == "DELETE")
        return set(CURLOPT_CUSTOMREQUEST, "DELETE");
    if (method != "POST" && method != "PUT" && method != "PATCH")
        return false;
    return set(CURLOPT_POST, 1L) && set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request_.body.size())) &&
           set(CURLOPT_POSTFIELDS, request_.body.data()) &&
           (method == "POST" || set(CURLOPT_CUSTOMREQUEST, method.c_str()));
}

bool HttpTransfer::set_trust(const std::string& ca_file) noexcept {
    if (!set(CURLOPT_SSL_VERIFYPEER, 1L) || !set(CURLOPT_SSL_VERIFYHOST, 2L) ||
        !set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2)))
        return false;
    const curl_version_info_data* const version = curl_version_info(CURLVERSION_NOW);
    const bool file = !ca_file.empty() || (version->age >= CURLVERSION_SEVENTH && version->cainfo);
    // With a folder libcurl does not keep the parsed certificates, and reads them all again for each connection: 20 ms
    // in which the worker does nothing else.
    if (file && !set(CURLOPT_CAPATH, static_cast<char*>(nullptr)))
        return false;
    return ca_file.empty() || set(CURLOPT_CAINFO, ca_file.c_str());
}

int HttpTransfer::on_socket(void*, curl_socket_t fd, curlsocktype) noexcept {
    ::fcntl(fd, F_SETFD, FD_CLOEXEC);
    return CURL_SOCKOPT_OK;
}

std::size_t HttpTransfer::on_header(char* data, std::size_t size, std::size_t count, void* self) noexcept {
    try {
        static_cast<HttpTransfer*>(self)->header(std::string_view(data, size * count));
        return size * count;
    } catch (...) {
        return 0;
    }
}

void HttpTransfer::header(std::string_view line) {
    if (line.starts_with("HTTP/")) { // a new answer: the one before was informational
        response_.headers.clear();
        header_bytes_ = 0;
        headers_done_ = false;
        return;
    }
    const auto colon = line.find(':');
    if (trimmed(line).empty())
        headers_done_ = true;
    if (headers_done_ || colon == line.npos || response_.headers.size() == k_max_headers)
        return;
    header_bytes_ += line.size();
    if (header_bytes_ <= k_max_header_bytes)
        response_.headers.add(trimmed(line.substr(0, colon)), trimmed(line.substr(colon + 1)));
}

std::size_t HttpTransfer::on_body(char* data, std::size_t size, std::size_t count, void* self) noexcept {
    auto& transfer = *static_cast<HttpTransfer*>(self);
    const std::size_t bytes = size * count;
    if (bytes > transfer.max_body_ - transfer.response_.body.size()) {
        transfer.too_large_ = true;
        return 0;
    }
    try {
        transfer.response_.body.append(data, bytes);
        return bytes;
    } catch (...) {
        return 0;
    }
}

// Careful: true as soon as a byte may have left.
bool HttpTransfer::sent() const noexcept {
    long request = 0;
    curl_off_t begun = 0;
    curl_easy_getinfo(easy_, CURLINFO_REQUEST_SIZE, &request);
    curl_easy_getinfo(easy_, CURLINFO_PRETRANSFER_TIME_T, &begun); // 0 until the connection is there, TLS and all
    return request > 0 || begun > 0;
}

// libcurl's own message may quote the server, and has times in it which differ each time.
std::string HttpTransfer::reason(CURLcode code) const {
    if (problem_)
        return problem_;
    if (code == CURLE_OK)
        return "the answer ends within its headers";
    std::string text = curl_easy_strerror(code);
    long detail = 0;
    if (code == CURLE_PEER_FAILED_VERIFICATION &&
        curl_easy_getinfo(easy_, CURLINFO_SSL_VERIFYRESULT, &detail) == CURLE_OK && detail != 0)
        return text + ": " + X509_verify_cert_error_string(detail);
    if (code == CURLE_COULDNT_CONNECT && curl_easy_getinfo(easy_, CURLINFO_OS_ERRNO, &detail) == CURLE_OK &&
        detail != 0)
        return text + ": " + std::strerror(static_cast<int>(detail));
    return text;
}

HttpResponse HttpTransfer::response(CURLcode code) {
    long status = 0;
    curl_easy_getinfo(easy_, CURLINFO_RESPONSE_CODE, &status);
    response_.status = static_cast<int>(status);
    if (too_large_ || code == CURLE_FILESIZE_EXCEEDED)
        response_.outcome = HttpOutcome::too_large;
    else if (code == CURLE_OK && headers_done_ && status >= 200) // libcurl is content with half a head
        response_.outcome = HttpOutcome::ok;
    else
        response_.outcome = sent() ? HttpOutcome::lost : HttpOutcome::unreachable;
    if (response_.outcome == HttpOutcome::too_large)
        response_.reason = "the answer is larger than " + std::to_string(max_body_) + " bytes";
    else if (response_.outcome != HttpOutcome::ok)
        response_.reason = reason(code);
    if (response_.outcome != HttpOutcome::ok)
        response_.body.clear();
    return std::move(response_);
}

} // namespace billing
