#include "endpoints/own_pages.hpp"

#include <algorithm>

namespace billing {

namespace {

// Bytes that every reader of an address takes for the same: no control, no white space, no backslash (a slash to
// browsers), no user before the host, nothing beyond ASCII.
bool is_plain(std::string_view text) noexcept {
    return std::all_of(text.begin(), text.end(),
                       [](char byte) { return byte > ' ' && byte < 0x7f && byte != '\\' && byte != '@'; });
}

// "https://host:port" of an address.
std::string_view origin_of(std::string_view url) noexcept {
    const auto scheme = url.find("://");
    const auto path = scheme == std::string_view::npos ? scheme : url.find_first_of("/?#", scheme + 3);
    return url.substr(0, path);
}

// Whole parts only: "https://a.example" has "https://a.example/x" below it, and not "https://a.example.evil".
bool is_below(std::string_view url, std::string_view base) noexcept {
    if (!url.starts_with(base)) {
        return false;
    }
    return url.size() == base.size() || base.ends_with('/') ||
           std::string_view{"/?#"}.find(url[base.size()]) != std::string_view::npos;
}

// A path cannot climb out of its base: ".." is a browser's to resolve.
bool climbs(std::string_view url) noexcept {
    const std::string_view path = url.substr(0, url.find_first_of("?#"));
    return path.find("/..") != std::string_view::npos || path.find("/%2e") != std::string_view::npos ||
           path.find("/%2E") != std::string_view::npos || path.find("/.%2") != std::string_view::npos;
}

// The page that a client may be led to, or "".
std::string permitted(std::string_view wanted, const PageSettings& settings) {
    if (wanted.empty() || !is_plain(wanted) || climbs(wanted)) {
        return {};
    }
    if (wanted.starts_with('/')) {
        return wanted.starts_with("//") ? std::string{} : std::string{origin_of(settings.public_url)}.append(wanted);
    }
    const auto& allowed = settings.allowed_urls;
    const bool known = is_below(wanted, settings.public_url) ||
                       std::any_of(allowed.begin(), allowed.end(),
                                   [wanted](const std::string& base) { return is_below(wanted, base); });
    return known ? std::string{wanted} : std::string{};
}

// Of what is allowed only whole origins: a page at somebody else's is no reason to trust the others there.
bool is_own_origin(std::string_view origin, const PageSettings& settings) noexcept {
    const auto& allowed = settings.allowed_urls;
    return !origin.empty() && (origin == origin_of(settings.public_url) ||
                               std::find(allowed.begin(), allowed.end(), origin) != allowed.end());
}

// Before the fragment, which no server sees.
std::string with_query(const std::string& url, std::string_view query) {
    const auto fragment = std::min(url.find('#'), url.size());
    std::string result = url.substr(0, fragment);
    result += result.find('?') == std::string::npos ? '?' : '&';
    return result.append(query).append(url, fragment);
}

std::string whole(const std::string& page, std::string_view base) {
    return page.starts_with('/') ? std::string{base} + page : page;
}

} // namespace

ReturnPages return_pages(std::string_view wanted, std::string_view origin, const PageSettings& settings) {
    const std::string page = permitted(wanted, settings);
    if (!page.empty()) {
        return {with_query(page, "checkout=success&session_id={CHECKOUT_SESSION_ID}"),
                with_query(page, "checkout=canceled"), page};
    }
    // The base's own origin keeps the base's path.
    const bool elsewhere = is_own_origin(origin, settings) && origin != origin_of(settings.public_url);
    const std::string_view base = elsewhere ? origin : std::string_view{settings.public_url};
    return {whole(settings.success, base), whole(settings.cancel, base), whole(settings.back, base)};
}

bool is_cross_site(const Request& request, const PageSettings& settings) noexcept {
    if (request.content_type == "application/json" || request.fetch_site == "same-origin" ||
        request.fetch_site == "none") {
        return false;
    }
    return request.origin.empty() ? !request.fetch_site.empty() : !is_own_origin(request.origin, settings);
}

} // namespace billing
