// Which pages are ours: where Stripe may lead a client back to, and whose forms are taken. Pure. What a client names
// counts only where `billing_public_url` or `billing_return_urls` has it; anything else falls back to what is
// configured, so that nobody is led astray by an address of ours.
#pragma once

#include "endpoints/exchange.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace billing {

// As configured. A page is a whole address, or a path below public_url.
struct PageSettings {
    std::string public_url; // as https://app.example.com/base, without a slash at its end
    std::string success = "/?checkout=success&session_id={CHECKOUT_SESSION_ID}";
    std::string cancel = "/?checkout=canceled";
    std::string back = "/";                // from the portal
    std::vector<std::string> allowed_urls; // billing_return_urls: an origin, or an address that others begin with
};

// Whole addresses.
struct ReturnPages {
    std::string success; // may hold {CHECKOUT_SESSION_ID}, which Stripe fills in
    std::string cancel;
    std::string back;
};

// `wanted`: the client's returnUrl, an address or a path; "" for none. It is the page for all three, with what tells
// them apart in its query. Without one, an Origin that is ours takes the place of public_url.
ReturnPages return_pages(std::string_view wanted, std::string_view origin, const PageSettings& settings);

// A page of another site may make a browser send a form with the user's cookies, but not JSON: that takes the
// operator's permission (CORS). So whatever is not JSON has to come from a page of ours; a client that is no browser
// says nothing about where it comes from.
bool is_cross_site(const Request& request, const PageSettings& settings) noexcept;

} // namespace billing
