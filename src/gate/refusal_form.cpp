#include "gate/refusal_form.hpp"

#include "domain/json.hpp"

#include <algorithm>

namespace billing {

namespace {

std::string_view trimmed(std::string_view text) noexcept {
    const auto first = text.find_first_not_of(" \t");
    return first == std::string_view::npos ? std::string_view{}
                                           : text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

std::string_view next_part(std::string_view& list, char separator) noexcept {
    const std::string_view part = list.substr(0, list.find(separator));
    list.remove_prefix(std::min(part.size() + 1, list.size()));
    return trimmed(part);
}

bool same(std::string_view left, std::string_view right) noexcept {
    return std::equal(left.begin(), left.end(), right.begin(), right.end(),
                      [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a + 32 : a) == b; });
}

// "0.8" in thousandths, 1000 for what cannot be read.
int quality(std::string_view parameters) noexcept {
    while (!parameters.empty()) {
        const std::string_view parameter = next_part(parameters, ';');
        if (parameter.size() < 3 || (parameter[0] | 0x20) != 'q' || parameter[1] != '=') {
            continue;
        }
        int value = parameter[2] == '0' ? 0 : 1000;
        int step = 100;
        for (const char digit : parameter.substr(std::min<std::size_t>(4, parameter.size()))) {
            value += digit >= '0' && digit <= '9' ? (digit - '0') * step : 0;
            step /= 10;
        }
        return std::min(value, 1000);
    }
    return 1000;
}

std::string escaped(std::string_view text) {
    std::string result;
    for (const char byte : text) {
        switch (byte) {
        case '&':
            result += "&amp;";
            break;
        case '<':
            result += "&lt;";
            break;
        case '>':
            result += "&gt;";
            break;
        case '"':
            result += "&quot;";
            break;
        case '\'':
            result += "&#39;";
            break;
        default:
            result += byte;
        }
    }
    return result;
}

std::string button(std::string_view url, std::string_view plan, const std::string& label) {
    std::string form = "<form method=\"post\" action=\"" + escaped(url) + "\">";
    if (!plan.empty()) {
        form += "<input type=\"hidden\" name=\"plan\" value=\"" + escaped(plan) + "\">";
    }
    return form + "<button>" + escaped(label) + "</button></form>\n";
}

} // namespace

RefusalForm refusal_form(std::string_view content_type, std::string_view accept) noexcept {
    constexpr std::string_view k_grpc = "application/grpc";
    if (content_type.starts_with(k_grpc) &&
        (content_type.size() == k_grpc.size() || content_type[k_grpc.size()] == '+' ||
         content_type[k_grpc.size()] == ';')) {
        return RefusalForm::grpc;
    }
    if (accept.find('h') == std::string_view::npos && accept.find('H') == std::string_view::npos) { // quick: no html
        return RefusalForm::json;
    }
    int html = 0;
    int json = 0;
    while (!accept.empty()) {
        std::string_view range = next_part(accept, ',');
        const std::string_view type = next_part(range, ';');
        if (same(type, "text/html")) {
            html = std::max(html, quality(range));
        } else if (same(type, "application/json") || same(type, "application/problem+json") ||
                   same(type, "application/*") || type == "*/*") {
            json = std::max(json, quality(range));
        }
    }
    return html > json ? RefusalForm::html : RefusalForm::json;
}

std::string refusal_page(std::string_view problem) {
    const auto parsed = parse_json(problem);
    if (!parsed) {
        return "";
    }
    const json_t* members = parsed.value().get();
    const auto text = [members](const char* key) { return text_member(members, key).value_or(std::string_view{}); };
    const std::string title = escaped(text("title"));
    std::string page = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
                       "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                       "<meta name=\"color-scheme\" content=\"light dark\"><title>" +
                       title + "</title></head>\n<body><main><h1>" + title + "</h1>\n<p>" + escaped(text("detail")) +
                       "</p>\n";
    if (!text("upgradeUrl").empty()) {
        page += button(text("upgradeUrl"), text("requiredPlan"), "Upgrade to " + std::string{text("requiredPlan")});
    }
    if (!text("portalUrl").empty()) {
        page += button(text("portalUrl"), {}, "Settle the payment");
    }
    return page + "</main></body></html>\n";
}

int grpc_status(int status) noexcept {
    switch (status) {
    case 400:
        return 3; // INVALID_ARGUMENT
    case 401:
        return 16; // UNAUTHENTICATED
    case 402:
    case 429:
        return 8; // RESOURCE_EXHAUSTED
    case 403:
        return 7; // PERMISSION_DENIED
    case 404:
        return 5; // NOT_FOUND
    case 503:
        return 14; // UNAVAILABLE
    default:
        return status >= 500 ? 13 : 9; // INTERNAL, FAILED_PRECONDITION
    }
}

std::string grpc_message(std::string_view problem) {
    constexpr std::string_view digits = "0123456789ABCDEF";
    const auto parsed = parse_json(problem);
    const auto detail = parsed ? text_member(parsed.value().get(), "detail") : std::nullopt;
    std::string result;
    for (const char byte : detail.value_or(std::string_view{})) {
        if (byte >= ' ' && byte < 0x7f && byte != '%') {
            result += byte;
        } else {
            const auto code = static_cast<unsigned char>(byte);
            result += {'%', digits[code >> 4], digits[code & 15]};
        }
    }
    return result;
}

} // namespace billing
