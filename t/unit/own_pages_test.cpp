// Promise guarded: Stripe leads a client back to no page but ours, whatever the client names (C7, A11, A12); and a page
// of another site cannot make a user's browser start a checkout (A13).
#include "endpoints/own_pages.hpp"

#include <gtest/gtest.h>

namespace billing {
namespace {

PageSettings settings() {
    PageSettings pages;
    pages.public_url = "https://app.example.com/base";
    pages.back = "/account";
    pages.allowed_urls = {"https://shop.example.com", "https://partner.example/thanks/"};
    return pages;
}

std::string back(std::string_view wanted, std::string_view origin = "") {
    return return_pages(wanted, origin, settings()).back;
}

constexpr const char* k_configured = "https://app.example.com/base/account";

TEST(OwnPages, WhatIsAllowedIsTaken) { // C7
    EXPECT_EQ(back(""), k_configured);
    EXPECT_EQ(back("/elsewhere?x=1"), "https://app.example.com/elsewhere?x=1") << "a path, its origin from ours";
    EXPECT_EQ(back("https://app.example.com/base/x"), "https://app.example.com/base/x");
    EXPECT_EQ(back("https://shop.example.com"), "https://shop.example.com");
    EXPECT_EQ(back("https://shop.example.com/a/b?c#d"), "https://shop.example.com/a/b?c#d");
    EXPECT_EQ(back("https://partner.example/thanks/you"), "https://partner.example/thanks/you");
}

TEST(OwnPages, AnythingElseIsWhatIsConfigured) { // C7, A11
    for (const char* wanted : {"https://evil.example",
                               "//evil.example",
                               "/\\evil.example",
                               "\\\\evil.example",
                               "https:evil.example",
                               "https:/evil.example",
                               "https:///evil.example",
                               "https://shop.example.com.evil.example/",
                               "https://shop.example.com@evil.example/",
                               "https://shop.example.com:8443/",
                               "http://shop.example.com/",
                               "https://SHOP.example.com/",
                               "javascript:alert(1)",
                               "data:text/html,x",
                               "/x\r\nSet-Cookie: a=b",
                               "/a b",
                               "/\t/evil.example",
                               "https://sh\xc3\xb6p.example.com/",
                               "https://partner.example/",
                               "https://partner.example/thanks",
                               "https://partner.example/thanks/../steal",
                               "https://partner.example/thanks/%2e%2e/steal",
                               "https://partner.example/thanks/.%2E/steal",
                               "https://app.example.com/basement",
                               "evil",
                               "?x",
                               "#x"}) {
        EXPECT_EQ(back(wanted), k_configured) << wanted;
    }
    const std::string with_zero{"/a\0b", 4};
    EXPECT_EQ(back(with_zero), k_configured);
}

TEST(OwnPages, TheClientsPageTellsHowItWent) {
    const ReturnPages pages = return_pages("https://shop.example.com/p?a=1#top", "", settings());
    EXPECT_EQ(pages.success, "https://shop.example.com/p?a=1&checkout=success&session_id={CHECKOUT_SESSION_ID}#top");
    EXPECT_EQ(pages.cancel, "https://shop.example.com/p?a=1&checkout=canceled#top");
    EXPECT_EQ(return_pages("/p", "", settings()).cancel, "https://app.example.com/p?checkout=canceled");
}

TEST(OwnPages, AnOriginThatIsAllowedTakesThePlaceOfOurs) { // C7, A12
    EXPECT_EQ(back("", "https://shop.example.com"), "https://shop.example.com/account");
    EXPECT_EQ(back("", "https://app.example.com"), k_configured) << "our own keeps its path";
    EXPECT_EQ(back("", "https://partner.example"), k_configured) << "a page there is not the whole of it";
    EXPECT_EQ(back("", "https://evil.example"), k_configured);
    EXPECT_EQ(back("", "null"), k_configured);
    EXPECT_EQ(back("https://evil.example", "https://shop.example.com"), "https://shop.example.com/account");
    PageSettings whole = settings();
    whole.back = "https://app.example.com/whole";
    EXPECT_EQ(return_pages("", "https://shop.example.com", whole).back, whole.back) << "a whole address is itself";
}

TEST(OwnPages, PagesOfOtherSitesAreTold) { // A13
    const auto cross = [](const char* type, std::string origin, std::string site) {
        Request request;
        request.content_type = type;
        request.origin = std::move(origin);
        request.fetch_site = std::move(site);
        return is_cross_site(request, settings());
    };
    constexpr const char* k_form = "application/x-www-form-urlencoded";
    EXPECT_TRUE(cross(k_form, "https://evil.example", ""));
    EXPECT_TRUE(cross(k_form, "https://app.example.co", ""));
    EXPECT_TRUE(cross(k_form, "https://app.example.com.evil.example", ""));
    EXPECT_TRUE(cross(k_form, "https://partner.example", "")) << "a page there is not the whole of it";
    EXPECT_TRUE(cross(k_form, "null", "cross-site"));
    EXPECT_TRUE(cross(k_form, "", "cross-site"));
    EXPECT_TRUE(cross(k_form, "", "same-site"));
    EXPECT_TRUE(cross("", "https://evil.example", "")) << "also without a body";
    EXPECT_FALSE(cross(k_form, "https://app.example.com", "same-site"));
    EXPECT_FALSE(cross(k_form, "https://shop.example.com", "cross-site")) << "allowed";
    EXPECT_FALSE(cross(k_form, "http://localhost:8080", "same-origin"));
    EXPECT_FALSE(cross(k_form, "", "none"));
    EXPECT_FALSE(cross(k_form, "", "")) << "no browser";
    EXPECT_FALSE(cross("application/json", "https://evil.example", "cross-site"))
        << "JSON takes the operator's permission";
}

} // namespace
} // namespace billing
