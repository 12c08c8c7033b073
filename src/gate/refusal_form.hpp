// The form in which a client wants to be refused: the problem document, the same as a page for a browser, or what a
// gRPC call understands. Pure text; nginx/ sends it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace billing {

enum class RefusalForm : std::uint8_t { json, html, grpc };

// By the request's Content-Type and Accept. A page only where text/html is preferred to every kind of JSON: programs
// that say nothing, or "*/*", get the document.
RefusalForm refusal_form(std::string_view content_type, std::string_view accept) noexcept;

// A problem document as a page: title, detail, and a button for each way out that it names. Everything in it is
// escaped. "" if it is none.
std::string refusal_page(std::string_view problem);

// The grpc-status of an HTTP status that refuses (the mapping of google.rpc.Code, with 402 and 429 as exhausted).
int grpc_status(int status) noexcept;

// The problem's detail as grpc-message: percent-encoded, printable ASCII.
std::string grpc_message(std::string_view problem);

} // namespace billing
