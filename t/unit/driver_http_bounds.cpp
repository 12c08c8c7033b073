// Promise guarded: whatever hangs (a name, a connection, a handshake, an answer, the loop itself), each request is
// answered in bounded time, nothing blocks the loop, nothing is left behind (C10).
#include <gtest/gtest.h>

#include <dlfcn.h>
#include <netdb.h>
#include <sys/resource.h>

#include <chrono>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "async/sleep.hpp"
#include "http_loop.hpp"
#include "servers.hpp"

namespace billing {
namespace {

using test::HttpAsk;
using test::HttpPeer;
using test::HttpServer;
using test::serve;
using test::SilentListener;

struct DriverHttpBounds : test::HttpTest {};

// A name service which does not answer, for names in .hangs.test; which gives 127.0.0.2 (nobody there) and 127.0.0.1
// for those in .twice.test.
std::atomic<int> lookups_hanging = 0;
std::atomic<bool> lookups_released = false;

TEST_F(DriverHttpBounds, ConnectionWhichIsNotAcceptedIsUnreachableInTime) {
    const SilentListener full(0);
    std::vector<int> fillers;
    for (int i = 0; i < 3; ++i) { // the kernel drops what comes beyond
        fillers.push_back(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.sin_port = htons(static_cast<std::uint16_t>(full.port()));
        ::connect(fillers.back(), reinterpret_cast<sockaddr*>(&address), sizeof(address));
    }
    HttpConfig with;
    with.connect_ms = 150;
    open(with);
    const std::int64_t begin = reactor.now_ms();
    EXPECT_EQ(get(full.url()).outcome, HttpOutcome::unreachable);
    EXPECT_GE(reactor.now_ms() - begin, 140);
    EXPECT_LT(reactor.now_ms() - begin, 2000);
    for (const int fd : fillers)
        ::close(fd);
}

TEST_F(DriverHttpBounds, TlsHandshakeWithoutAnAnswerIsUnreachableInTime) {
    const SilentListener silent;
    HttpConfig with;
    with.connect_ms = 150;
    open(with);
    EXPECT_EQ(get("https://127.0.0.1:" + std::to_string(silent.port())).outcome, HttpOutcome::unreachable);
    EXPECT_EQ(logged("cannot reach the test server: Timeout was reached"), 1);
}

TEST_F(DriverHttpBounds, ServerWhichHangsMeansLostInTimeWhileTheLoopGoesOn) {
    const SilentListener stopped; // as a stopped process: the kernel takes what is sent
    open();
    int ticks = 0;
    auto tick = [](Reactor& on, int& count) -> Task<> {
        for (;; ++count)
            co_await sleep_for(on, 5);
    };
    scope->spawn(tick(reactor, ticks));
    const std::int64_t begin = reactor.now_ms();
    send(*scope, "stopped", request(stopped.url(), 300));
    send(*scope, "silent", request(server.url() + "/hang", 300));
    send(*scope, "trickle", request(server.url() + "/trickle", 300));
    EXPECT_GE(reactor.foreground_timers(), 1U) << "a graceful shutdown waits for the answers";
    ASSERT_TRUE(have(3));
    EXPECT_GE(reactor.now_ms() - begin, 290);
    EXPECT_LT(reactor.now_ms() - begin, 2000);
    for (const auto& [name, response] : responses) {
        EXPECT_EQ(response.outcome, HttpOutcome::lost) << name;
        EXPECT_TRUE(response.body.empty());
    }
    EXPECT_GT(ticks, 10);
    EXPECT_EQ(errors, 1) << "one state, one line";
    EXPECT_EQ(logged("no whole answer from the test server: Timeout was reached"), 1);
}

// libcurl 7.88 loses its own time-out when a byte comes within the millisecond before it.
TEST_F(DriverHttpBounds, BytesInTheLastInstantDoNotMakeARequestEndless) {
    constexpr int k_timeout_ms = 250; // beyond libcurl's other timers
    HttpServer dripping([](HttpPeer& peer, const HttpAsk& ask) {
        const auto begin = std::chrono::steady_clock::now();
        const auto stop = begin + std::chrono::microseconds(k_timeout_ms * 1000 - std::stoi(ask.target.substr(1)));
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        std::this_thread::sleep_until(stop - std::chrono::milliseconds(2));
        while (std::chrono::steady_clock::now() < stop && peer.write("x"))
            std::this_thread::sleep_for(std::chrono::microseconds(50));
        return peer.hang(), false;
    });
    open();
    for (int i = 0; i < 24; ++i) {
        send(*scope, std::to_string(i), request(dripping.url() + "/" + std::to_string(i * 60), k_timeout_ms));
        if (i % 8 == 7) {
            ASSERT_TRUE(have(static_cast<std::size_t>(i) + 1)) << i;
        }
    }
    for (const auto& [name, response] : responses)
        EXPECT_EQ(response.outcome, HttpOutcome::lost);
}

TEST_F(DriverHttpBounds, QueueIsBoundedInLengthAndTimeAndKeepsItsOrder) {
    HttpServer slow([&slow](HttpPeer& peer, const HttpAsk& ask) {
        slow.gate();
        return serve(peer, ask);
    });
    HttpConfig with;
    with.max_connections = 1;
    with.max_pending = 5;
    open(with);
    Scope leaving(reactor);
    send(*scope, "first", request(slow.url() + "/first"));
    send(leaving, "leaves", request(slow.url() + "/leaves"));
    send(*scope, "short", request(slow.url() + "/short", 50));
    send(*scope, "second", request(slow.url() + "/second"));
    send(*scope, "third", request(slow.url() + "/third"));
    send(*scope, "over", request(slow.url() + "/over"));
    ASSERT_EQ(responses.size(), 1U) << "refused at once";
    EXPECT_EQ(responses["over"].outcome, HttpOutcome::unreachable);
    EXPECT_EQ(client->counters().refused, 1U);
    leaving.cancel();
    EXPECT_EQ(client->pending(), 4U) << "what was not begun is not sent";
    ASSERT_TRUE(have(2));
    EXPECT_EQ(responses["short"].outcome, HttpOutcome::unreachable);
    slow.open_gate();
    ASSERT_TRUE(have(5));
    const std::vector<HttpAsk> asks = slow.asked();
    ASSERT_EQ(asks.size(), 3U);
    EXPECT_EQ(asks[1].target, "/second");
    EXPECT_EQ(asks[2].target, "/third");
    EXPECT_EQ(errors, 0) << "the server is not to blame";
}

TEST_F(DriverHttpBounds, NameServiceWhichHangsBlocksNobody) {
    open();
    const std::int64_t begin = reactor.now_ms();
    send(*scope, "hang", request("http://some.hangs.test/", 200));
    send(*scope, "fine", request(server.url() + "/fine"));
    ASSERT_TRUE(until([&] { return responses.count("fine") == 1; }));
    ASSERT_TRUE(have(2));
    EXPECT_EQ(responses["hang"].outcome, HttpOutcome::unreachable);
    send(*scope, "again", request("http://some.hangs.test/"));
    settle();
    client->stop();
    ASSERT_TRUE(have(3));
    EXPECT_LT(reactor.now_ms() - begin, 2000) << "neither the end of a transfer nor stop() waits for the lookup";
    EXPECT_GE(lookups_hanging, 1);
    lookups_released = true;
    EXPECT_TRUE(test::poll_for([] { return lookups_hanging == 0; }));
}

TEST_F(DriverHttpBounds, NextAddressOfANameIsTriedWhenTheFirstRefuses) {
    open();
    const std::string url = "http://some.twice.test:" + std::to_string(server.port());
    for (const char* path : {"/a", "/b"})
        EXPECT_EQ(get(url + path).body, std::string("GET ") + path + " ");
    EXPECT_EQ(server.accepted(), 1);
}

TEST_F(DriverHttpBounds, LoopWithoutRoomEndsTheRequestAtOnceNotAllLater) {
    const SilentListener silent;
    open();
    const int free = ::dup(0);
    ::close(free);
    rlimit old{};
    ::getrlimit(RLIMIT_NOFILE, &old);
    rlimit tight = old;
    tight.rlim_cur = static_cast<rlim_t>(free) + 1; // libcurl's socket, but not the loop's copy of it
    ::setrlimit(RLIMIT_NOFILE, &tight);
    const std::int64_t begin = reactor.now_ms();
    const HttpResponse response = get(silent.url());
    ::setrlimit(RLIMIT_NOFILE, &old);
    EXPECT_EQ(response.outcome, HttpOutcome::unreachable);
    // A thread of the server may have taken the last descriptor before libcurl could.
    EXPECT_TRUE(response.reason == "the loop has no room for a connection" ||
                response.reason == "Couldn't connect to server")
        << response.reason;
    EXPECT_LT(reactor.now_ms() - begin, 2000);
    EXPECT_TRUE(get(server.url() + "/x").ok());
}

TEST_F(DriverHttpBounds, StopAndShutdownAnswerWhoWaitsAndWhoComesLater) {
    for (const bool hard : {false, true}) {
        HttpConfig with;
        with.max_connections = 1;
        open(with);
        responses.clear();
        const int before = server.requests();
        send(*scope, "sent", request(server.url() + "/hang"));
        send(*scope, "queued", request(server.url() + "/queued"));
        ASSERT_TRUE(until([&] { return server.requests() == before + 1; }));
        hard ? reactor.shutdown() : client->stop();
        client->stop();
        ASSERT_TRUE(have(2));
        EXPECT_EQ(responses["sent"].outcome, HttpOutcome::lost);
        EXPECT_EQ(responses["queued"].outcome, HttpOutcome::unreachable);
        EXPECT_EQ(get(server.url()).outcome, HttpOutcome::unreachable);
        EXPECT_EQ(reactor.sockets(), 0U);
        EXPECT_EQ(reactor.timers(), 0U);
        EXPECT_EQ(errors, 0);
    }
}

std::size_t descriptors() {
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

TEST_F(DriverHttpBounds, NothingIsLeftAfterAStormOfCutsHangsAndCancels) {
    const std::size_t before = descriptors();
    HttpConfig with;
    with.timeout_ms = 100;
    with.max_body = 2000;
    with.max_pending = 1000;
    open(with);
    const std::vector<std::string> paths = {"/a",       "/hang",     "/cut-length", "/cut-chunk",
                                            "/b",       "/bye",      "/big-length", "/big-chunks",
                                            "/trickle", "/cut-head", "/c",          "/chunked"};
    std::vector<std::unique_ptr<Scope>> requests;
    for (std::size_t i = 0; i < 240; ++i) {
        requests.push_back(std::make_unique<Scope>(reactor));
        send(*requests.back(), std::to_string(i),
             request(server.url() + paths[i * 7 % paths.size()], i % 5 == 0 ? 30 : 300));
        if (i % 3 == 0)
            settle(2);
        if (i % 4 == 0)
            requests[i / 2]->cancel();
    }
    ASSERT_TRUE(until([&] { return client->pending() == 0; }, 60000));
    settle();
    for (const auto& [name, response] : responses) {
        const std::string& path = paths[std::stoul(name) * 7 % paths.size()];
        if (response.ok() && path.size() == 2) {
            EXPECT_EQ(response.body, "GET " + path + " ");
        }
        EXPECT_TRUE(!response.ok() || path.size() == 2 || path == "/bye" || path == "/chunked") << path;
    }
    EXPECT_TRUE(get(server.url() + "/after").ok());
    requests.clear();
    client.reset();
    EXPECT_EQ(reactor.sockets(), 0U);
    // The server's own ends stay open until it goes.
    EXPECT_LE(descriptors(), before + static_cast<std::size_t>(server.accepted()));
}

} // namespace
} // namespace billing

// Stands before libc's: libcurl's resolver threads come here.
extern "C" int getaddrinfo(const char* name, const char* service, const addrinfo* hints, addrinfo** result) {
    using Real = int (*)(const char*, const char*, const addrinfo*, addrinfo**);
    static const Real real = reinterpret_cast<Real>(::dlsym(RTLD_NEXT, "getaddrinfo"));
    const std::string_view text = name ? name : "";
    if (text.ends_with(".twice.test")) {
        const int problem = real("127.0.0.2", service, hints, result);
        return problem != 0 ? problem : real("127.0.0.1", service, hints, &(*result)->ai_next);
    }
    if (!text.ends_with(".hangs.test"))
        return real(name, service, hints, result);
    ++billing::lookups_hanging;
    billing::test::poll_for([] { return billing::lookups_released.load(); }, 5000);
    --billing::lookups_hanging;
    return EAI_AGAIN;
}
