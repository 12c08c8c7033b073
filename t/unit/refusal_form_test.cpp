// Promise guarded: browsers get a page, programs the document, gRPC calls a status; and nothing that a catalog or a
// client says can break out of the page. G19, G27; security case A40.
#include "gate/refusal_form.hpp"

#include <gtest/gtest.h>

namespace billing {
namespace {

TEST(RefusalForm, APageOnlyForWhoPrefersIt) { // G19
    const char* browsers[] = {"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
                              "text/html", "TEXT/HTML", "application/json;q=0.5, text/html;q=0.9",
                              "text/html;level=1;q=0.4, */*;q=0.3"};
    for (const char* accept : browsers) {
        EXPECT_EQ(refusal_form("", accept), RefusalForm::html) << accept;
    }
    const char* programs[] = {"",
                              "*/*",
                              "application/json",
                              "application/json, text/html",
                              "text/html;q=0",
                              "text/html;q=0.5, application/problem+json",
                              "text/plain",
                              "text/html;q=0.8,*/*;q=0.8",
                              ";;,,q=",
                              "text/htmlx"};
    for (const char* accept : programs) {
        EXPECT_EQ(refusal_form("application/json", accept), RefusalForm::json) << accept;
    }
}

TEST(RefusalForm, GrpcIsKnownByItsContentType) { // G27
    EXPECT_EQ(refusal_form("application/grpc", "text/html"), RefusalForm::grpc);
    EXPECT_EQ(refusal_form("application/grpc+proto", ""), RefusalForm::grpc);
    EXPECT_EQ(refusal_form("application/grpc-web", ""), RefusalForm::json) << "another protocol";
    EXPECT_EQ(grpc_status(401), 16);
    EXPECT_EQ(grpc_status(402), 8);
    EXPECT_EQ(grpc_status(403), 7);
    EXPECT_EQ(grpc_status(503), 14);
    EXPECT_EQ(grpc_message(R"({"detail": "1 \u00e4 needed, 100%\n"})"), "1 %C3%A4 needed, 100%25%0A");
    EXPECT_EQ(grpc_message("no problem"), "");
}

TEST(RefusalForm, ThePageShowsTheWaysOut) { // G19
    const auto page = refusal_page(R"({"title": "Limit reached", "detail": "1 requests needed, 0 of 20 left",
        "requiredPlan": "starter", "upgradeUrl": "https://app.example.com/billing/checkout"})");
    EXPECT_NE(page.find("<h1>Limit reached</h1>"), page.npos);
    EXPECT_NE(page.find("<p>1 requests needed, 0 of 20 left</p>"), page.npos);
    EXPECT_NE(page.find("<form method=\"post\" action=\"https://app.example.com/billing/checkout\">"
                        "<input type=\"hidden\" name=\"plan\" value=\"starter\"><button>Upgrade to starter</button>"),
              page.npos);
    EXPECT_EQ(page.find("Settle"), page.npos);
    const auto owes =
        refusal_page(R"({"title": "Maintenance", "portalUrl": "https://app.example.com/billing/portal"})");
    EXPECT_NE(owes.find("action=\"https://app.example.com/billing/portal\"><button>"), owes.npos);
    EXPECT_EQ(refusal_page("no problem"), "");
}

TEST(RefusalForm, NothingBreaksOutOfThePage) { // A40
    const auto page = refusal_page(R"({"title": "<script>x</script>", "detail": "\"'&", "upgradeUrl": "\"><img src=x>",
        "requiredPlan": "\"><b>"})");
    EXPECT_EQ(page.find("<script"), page.npos);
    EXPECT_EQ(page.find("<img"), page.npos);
    EXPECT_EQ(page.find("<b>"), page.npos);
    EXPECT_NE(page.find("&quot;&#39;&amp;"), page.npos);
}

} // namespace
} // namespace billing
