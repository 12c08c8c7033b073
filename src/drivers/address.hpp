// Addresses of Redis and PostgreSQL as the operator writes them -> checked and resolved, so that nobody looks up a name
// later. Called once, in the master at config time or in the command: the only place of the drivers which may block
// (DNS). Error texts never contain a password, nor the text it was found in.
#pragma once

#include <string>
#include <string_view>

#include "domain/result.hpp"

namespace billing {

struct RedisAddress {
    std::string unix_path; // set: a unix socket, then ip and port mean nothing
    std::string ip;        // numeric, IPv4 or IPv6 without brackets
    int port = 6379;
    std::string user; // empty: none
    std::string password;
    int database = 0;

    // For logs: "unix:/path" or "ip:port", without user and password.
    std::string display() const;
};

// "unix:/path", "host[:port]", "[::1]:6379", "redis://[[user]:password@]host[:port][/db]" (user and password
// percent-encoded). "rediss://" is refused: there is no TLS here. Where a name has both, the IPv4 address is taken.
Result<RedisAddress> resolve_redis(std::string_view text);

// A libpq connection string or URI -> a connection string with hostaddr, sslmode, gssencmode=disable and
// connect_timeout (5 s unless given). Refused: several hosts, service=, sslmode=prefer or allow, gssencmode other than
// disable. Without sslmode, TCP gets `disable`. The result holds the password: never log it.
Result<std::string> resolve_postgres(std::string_view text);

} // namespace billing
