// What the tests of the HTTP client share: a server which misbehaves by path, a client, and where the answers are kept.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "drivers/http_client.hpp"
#include "http_server.hpp"
#include "loop.hpp"

namespace billing::test {

inline bool serve(HttpPeer& peer, const HttpAsk& ask) {
    const std::string& path = ask.target;
    if (path == "/hang")
        return peer.hang(), false;
    if (path == "/cut-length")
        return peer.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), false;
    if (path == "/cut-chunk")
        return peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"), false;
    if (path == "/cut-head")
        return peer.write("HTTP/1.1 200 OK\r\nContent-Le"), false;
    if (path == "/cut-early")
        return peer.write("HTTP/1.1 100 Continue\r\n\r\n"), false;
    if (path == "/trickle")
        return peer.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), peer.hang(), false;
    if (path == "/chunked")
        return peer.write(
            "HTTP/1.1 100 Continue\r\nEarly: yes\r\n\r\nHTTP/1.1 201 Made\r\nTransfer-Encoding: chunked\r\n"
            "X-Some: a\r\nx-some: b\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: late\r\n\r\n");
    if (path == "/big-length")
        return peer.write("HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 5000000\r\n\r\n"), peer.hang(), false;
    if (path == "/big-chunks") {
        peer.write("HTTP/1.1 503 Busy\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n");
        while (peer.write("400\r\n" + std::string(0x400, 'x') + "\r\n"))
            ;
        return false;
    }
    if (path == "/redirect")
        return peer.answer(302, "", "Location: /echo\r\n");
    if (path == "/bye")
        return peer.answer(200, "bye"), false; // without "Connection: close"
    return peer.answer(200, ask.method + " " + path + " " + ask.body);
}

struct HttpTest : LoopTest {
    void close() override {
        scope->cancel();
        client.reset();
    }

    void open(HttpConfig with = {}) {
        with.name = "the test server";
        with.plain_http = true;
        client = std::make_unique<HttpClient>(reactor, with);
    }
    static Task<HttpResponse> asked(HttpClient& by, HttpRequest request) {
        HttpResponse response = co_await by.send(std::move(request));
        co_return response;
    }
    static HttpRequest request(const std::string& url, std::int64_t timeout_ms = 0) {
        HttpRequest out;
        out.url = url;
        out.timeout_ms = timeout_ms;
        return out;
    }
    static HttpRequest post(const std::string& url, const std::string& body) {
        HttpRequest out = request(url);
        out.method = "POST";
        out.body = body;
        return out;
    }
    HttpResponse get(const std::string& url, std::int64_t timeout_ms = 0) {
        return await(asked(*client, request(url, timeout_ms)));
    }

    // Into responses[name].
    Task<> keep(std::string name, HttpRequest what) {
        HttpResponse response = co_await client->send(std::move(what));
        responses[name] = std::move(response);
    }
    void send(Scope& in, const std::string& name, HttpRequest what) { in.spawn(keep(name, std::move(what))); }
    bool have(std::size_t count) {
        return until([&] { return responses.size() == count; });
    }
    bool idle() {
        return until([&] { return client->pending() == 0; });
    }

    HttpServer server{serve};
    std::unique_ptr<HttpClient> client;
    std::map<std::string, HttpResponse> responses;
};

} // namespace billing::test
