// Promise guarded: under any mixture of asking, cancelling, stalls and crashes of the server, an answer is the asker's
// own, who is not cancelled is answered exactly once, and nothing is left over. The mixture is random, with fixed
// seeds.
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>

#include "drivers/postgres.hpp"
#include "drivers/redis.hpp"
#include "loop.hpp"
#include "servers.hpp"

namespace billing {
namespace {

using test::LoopTest;
using test::PostgresServer;
using test::RedisServer;

struct DriverStorm : LoopTest {
    struct Request {
        explicit Request(Reactor& reactor) : own(reactor) {}
        Scope own;
        int answers = 0;
        bool cancelled = false;
    };
    struct Weather {
        std::function<void()> pause, resume, crash, restart;
        std::function<bool()> available;
    };

    template <class Server, class Driver>
    static Weather weather_of(Server& server, Driver& driver) {
        return Weather{[&] { server.pause(); }, [&] { server.resume(); }, [&] { server.kill9(); },
                       [&] { server.start(); }, [&] { return driver.available(); }};
    }

    // Some seconds of a server's life. `ask` is a coroutine which ends by calling answered().
    void storm(unsigned seed, const Weather& weather, const std::function<Task<>(int)>& ask) {
        std::mt19937 random(seed);
        const auto chance = [&random](unsigned of) { return random() % of == 0; };
        bool paused = false;
        bool down = false;
        for (int i = 0; i < 1500; ++i) {
            requests[i] = std::make_unique<Request>(reactor);
            requests[i]->own.spawn(ask(i));
            if (chance(3))
                cancel(static_cast<int>(random() % static_cast<unsigned>(i + 1)));
            if (chance(4))
                reactor.turn(static_cast<std::int64_t>(random() % 3));
            if (chance(100) && !down) {
                paused ? weather.resume() : weather.pause();
                paused = !paused;
            }
            if (chance(250) && !paused) {
                down ? weather.restart() : weather.crash();
                down = !down;
            }
            // Some turns of fine weather after each change to the better, however fast this machine is.
            if (!paused && !down && !weather.available()) {
                ASSERT_TRUE(until(weather.available));
            }
        }
        if (paused)
            weather.resume();
        if (down)
            weather.restart();
        ASSERT_TRUE(until([this] {
            return std::all_of(requests.begin(), requests.end(),
                               [](const auto& one) { return one.second->cancelled || one.second->answers > 0; });
        }));
        for (const auto& [number, request] : requests)
            EXPECT_EQ(request->answers > 1, false) << "request " << number;
        EXPECT_GT(good, 50) << "it was no test of matching";
        EXPECT_EQ(wrong, 0);
        EXPECT_TRUE(until(weather.available));
    }
    void cancel(int number) {
        Request& request = *requests.at(number);
        request.cancelled = request.cancelled || request.answers == 0;
        request.own.cancel();
    }
    void answered(int number, bool ok, std::string_view text) {
        Request& request = *requests.at(number);
        ++request.answers;
        good += ok;
        if (request.cancelled || (ok && text != std::to_string(number)))
            ++wrong;
    }

    std::map<int, std::unique_ptr<Request>> requests;
    int good = 0;
    int wrong = 0;
};

TEST_F(DriverStorm, Postgres) {
    PostgresServer& server = PostgresServer::shared();
    PgConfig config;
    config.conninfo = server.conninfo();
    config.max_pending = 200;
    config.timeout_ms = 50;
    for (const unsigned seed : {1U, 2U}) {
        Postgres pg(reactor, config);
        const auto ask = [&](int number) -> Task<> {
            PgResult result = co_await pg.query("select $1::text", PgParams(number));
            answered(number, result.ok(), result.text(0, 0));
        };
        pg.start();
        storm(seed, weather_of(server, pg), ask);
        EXPECT_TRUE(until([&] { return pg.pending() == 0; }));
        requests.clear();
    }
}

TEST_F(DriverStorm, Redis) {
    RedisServer server;
    RedisConfig config;
    config.address.unix_path = server.socket();
    config.max_pending = 200;
    config.timeout_ms = 50;
    config.connect_ms = 200;
    for (const unsigned seed : {3U, 4U}) {
        Redis redis(reactor, config);
        const auto ask = [&](int number) -> Task<> {
            RedisReply reply = co_await redis.command(RedisArgs("ECHO", number));
            answered(number, reply.ok(), reply.text());
        };
        redis.start();
        storm(seed, weather_of(server, redis), ask);
        EXPECT_TRUE(until([&] { return redis.pending() == 0; }));
        requests.clear();
    }
}

} // namespace
} // namespace billing
