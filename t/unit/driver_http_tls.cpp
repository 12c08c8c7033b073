// Promise guarded (A43): over TLS only a server whose certificate is trusted and carries its name is spoken to; HTTP/2
// serves like HTTP/1.1; OpenSSL's errors are not left lying about for others (nginx) to find.
#include <gtest/gtest.h>

#include <openssl/err.h>

#include <fstream>
#include <set>
#include <string>

#include "drivers/http_client.hpp"
#include "http_server.hpp"
#include "loop.hpp"
#include "servers.hpp"

namespace billing {
namespace {

using test::LoopTest;
using test::SilentListener;

// nginx with a certificate of its own making, for 127.0.0.1. One for the whole program.
class TlsServer {
public:
    TlsServer() {
        test::Process openssl;
        openssl.spawn({"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                       "-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout",
                       file("key.pem"), "-out", ca_file()},
                      "/dev/null");
        if (openssl.wait() != 0)
            throw std::runtime_error("openssl makes no certificate");
        {
            const SilentListener free;
            port_ = free.port();
        }
        std::ofstream(file("big")) << std::string(3000000, 'x');
        std::ofstream(file("nginx.conf"))
            << "daemon off; master_process off; error_log stderr; pid " << file("pid") << ";\nevents {}\nhttp {\n"
            << "access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n"
            << "uwsgi_temp_path uwsgi; scgi_temp_path scgi;\nserver { listen 127.0.0.1:" << port_ << " ssl http2;\n"
            << "ssl_certificate " << ca_file() << "; ssl_certificate_key " << file("key.pem") << "; root "
            << dir_.path() << ";\nlocation / { return 200 \"$server_protocol $connection $request_uri\"; }\n"
            << "location /big { }\nlocation /slow/ { alias " << dir_.path() << "/; limit_rate 1000; } } }\n";
        start();
    }
    static TlsServer& shared() {
        static TlsServer server;
        if (!server.nginx_.running())
            server.start();
        return server;
    }

    void start() {
        nginx_.spawn({"nginx", "-p", dir_.path(), "-c", file("nginx.conf")}, file("log"));
        if (!test::poll_for([this] { return accepts(); }))
            throw std::runtime_error("nginx does not start");
    }
    void kill9() { nginx_.kill9(); }
    std::string ca_file() const { return file("cert.pem"); }
    std::string url(const std::string& host = "127.0.0.1") const {
        return "https://" + host + ":" + std::to_string(port_);
    }

private:
    std::string file(const std::string& name) const { return dir_.path() + "/" + name; }
    bool accepts() const {
        const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.sin_port = htons(static_cast<std::uint16_t>(port_));
        const bool connected = ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
        ::close(fd);
        return connected;
    }

    test::TempDir dir_;
    int port_ = 0;
    test::Process nginx_;
};

struct DriverHttpTls : LoopTest {
    void close() override {
        scope->cancel();
        client.reset();
        EXPECT_EQ(ERR_peek_error(), 0U);
    }
    void open(const std::string& ca_file) {
        HttpConfig with;
        with.name = "the test server";
        with.ca_file = ca_file;
        client = std::make_unique<HttpClient>(reactor, with);
    }
    static Task<HttpResponse> asked(HttpClient& by, HttpRequest request) {
        HttpResponse response = co_await by.send(std::move(request));
        co_return response;
    }
    HttpResponse get(const std::string& url) {
        HttpRequest what;
        what.url = url;
        HttpResponse response = await(asked(*client, what));
        EXPECT_EQ(ERR_peek_error(), 0U);
        return response;
    }

    TlsServer& server = TlsServer::shared();
    std::unique_ptr<HttpClient> client;
};

TEST_F(DriverHttpTls, UntrustedCertificateIsRefusedBeforeAnythingIsSent) {
    open("");
    const HttpResponse response = get(server.url());
    EXPECT_EQ(response.outcome, HttpOutcome::unreachable);
    EXPECT_EQ(response.status, 0);
    EXPECT_EQ(logged("SSL peer certificate or SSH remote key was not OK: self-signed certificate"), 1)
        << response.reason;
    open("/nonexistent.pem");
    EXPECT_EQ(get(server.url()).outcome, HttpOutcome::unreachable);
}

TEST_F(DriverHttpTls, CertificateOfAnotherNameIsRefused) {
    open(server.ca_file());
    EXPECT_EQ(get(server.url("localhost")).outcome, HttpOutcome::unreachable);
    EXPECT_TRUE(get(server.url()).ok());
}

TEST_F(DriverHttpTls, Http2ServesManyOverFewConnections) {
    open(server.ca_file());
    std::map<std::string, HttpResponse> responses;
    auto keep = [this, &responses](std::string path) -> Task<> {
        HttpRequest what;
        what.url = server.url() + path;
        HttpResponse response = co_await client->send(std::move(what));
        responses[path] = std::move(response);
    };
    for (int i = 0; i < 60; ++i)
        scope->spawn(keep("/" + std::to_string(i)));
    ASSERT_TRUE(until([&] { return responses.size() == 60; }));
    std::set<std::string> connections;
    for (const auto& [path, response] : responses) {
        ASSERT_TRUE(response.body.starts_with("HTTP/2.0 ")) << response.body << response.reason;
        ASSERT_TRUE(response.body.ends_with(" " + path));
        connections.insert(response.body.substr(9, response.body.find(' ', 9) - 9));
    }
    EXPECT_LE(connections.size(), 8U);
    settle();
    EXPECT_EQ(reactor.foreground_timers(), 0U);
}

TEST_F(DriverHttpTls, Http2AnswerTooLargeOrCutIsToldAndTheConnectionReplaced) {
    open(server.ca_file());
    EXPECT_EQ(get(server.url() + "/big").outcome, HttpOutcome::too_large);
    EXPECT_TRUE(get(server.url()).ok());
    HttpRequest what;
    what.url = server.url() + "/slow/big";
    what.max_body = 4000000;
    what.timeout_ms = 300;
    EXPECT_EQ(await(asked(*client, what)).outcome, HttpOutcome::lost);
    bool done = false;
    auto cut = [&]() -> Task<> {
        what.timeout_ms = 10000;
        HttpResponse response = co_await client->send(std::move(what));
        EXPECT_EQ(response.outcome, HttpOutcome::lost);
        EXPECT_EQ(response.status, 200);
        done = true;
    };
    scope->spawn(cut());
    EXPECT_TRUE(get(server.url()).ok()); // on the same connection, so the other one has begun to come
    server.kill9();
    ASSERT_TRUE(until([&] { return done; }));
    EXPECT_EQ(get(server.url()).outcome, HttpOutcome::unreachable);
    server.start();
    EXPECT_TRUE(get(server.url()).ok());
}

} // namespace
} // namespace billing
