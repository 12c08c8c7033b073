// Parsing and resolving. Called once, in the master at config time or in the command; may block on DNS.
#include "drivers/address.hpp"

#include <arpa/inet.h>
#include <libpq-fe.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>

namespace billing {

namespace {

// A host name or numeric address -> numeric address; IPv4 first.
Result<std::string> look_up(const std::string& host, const char* what) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    const int rc = ::getaddrinfo(host.c_str(), nullptr, &hints, &found);
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> guard(found, &::freeaddrinfo);
    if (rc != 0 || !found)
        return Error{std::string(what) + ": cannot resolve host \"" + host + "\": " + ::gai_strerror(rc)};
    const addrinfo* best = found;
    for (const addrinfo* one = found; one; one = one->ai_next) {
        if (one->ai_family == AF_INET) {
            best = one;
            break;
        }
    }
    char text[NI_MAXHOST];
    if (::getnameinfo(best->ai_addr, best->ai_addrlen, text, sizeof(text), nullptr, 0, NI_NUMERICHOST) != 0)
        return Error{std::string(what) + ": cannot resolve host \"" + host + "\""};
    return std::string(text);
}

std::optional<int> number(std::string_view text, int low, int high) {
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < low || value > high)
        return std::nullopt;
    return value;
}

int hex_digit(char c) noexcept {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

std::optional<std::string> percent_decoded(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '%') {
            out += text[i];
            continue;
        }
        if (i + 2 >= text.size())
            return std::nullopt;
        const int high = hex_digit(text[i + 1]);
        const int low = hex_digit(text[i + 2]);
        if (high < 0 || low < 0)
            return std::nullopt;
        out += static_cast<char>(high * 16 + low);
        i += 2;
    }
    return out;
}

constexpr std::string_view k_redis_forms =
    "write unix:/path, host:port, [ipv6]:port or redis://[[user]:password@]host[:port][/database]";

Error redis_error(const std::string& what) {
    return Error{"Redis address: " + what + "; " + std::string(k_redis_forms)};
}

// "host", "host:port", "[ipv6]", "[ipv6]:port" into `address`.
Result<Done> take_endpoint(std::string_view text, RedisAddress& address) {
    std::string_view host = text;
    std::string_view port;
    bool has_port = false;
    if (text.starts_with('[')) {
        const auto end = text.find(']');
        if (end == std::string_view::npos)
            return redis_error("\"[\" without \"]\"");
        host = text.substr(1, end - 1);
        const std::string_view rest = text.substr(end + 1);
        if (!rest.empty() && !rest.starts_with(':'))
            return redis_error("something other than \":port\" after \"]\"");
        has_port = !rest.empty();
        if (has_port)
            port = rest.substr(1);
    } else if (const auto colon = text.find(':'); colon != std::string_view::npos) {
        if (text.find(':', colon + 1) != std::string_view::npos)
            return redis_error("more than one \":\" (an IPv6 address goes into brackets)");
        host = text.substr(0, colon);
        port = text.substr(colon + 1);
        has_port = true;
    }
    if (host.empty())
        return redis_error("no host");
    if (has_port) {
        const auto value = number(port, 1, 65535);
        if (!value)
            return redis_error("the port is not a number from 1 to 65535");
        address.port = *value;
    }
    Result<std::string> ip = look_up(std::string(host), "Redis address");
    if (!ip)
        return Error{ip.error()};
    address.ip = std::move(ip).value();
    return Done{};
}

// "[[user]:password@]host[:port][/database]" into `address`. Its errors must not quote the text.
Result<Done> take_redis_url(std::string_view text, RedisAddress& address) {
    if (const auto at = text.rfind('@'); at != std::string_view::npos) {
        const std::string_view login = text.substr(0, at);
        text = text.substr(at + 1);
        const auto colon = login.find(':');
        if (colon == std::string_view::npos)
            return redis_error("a user without a password (\":password@\" has no user)");
        const auto user = percent_decoded(login.substr(0, colon));
        const auto password = percent_decoded(login.substr(colon + 1));
        if (!user || !password)
            return redis_error("\"%\" in user or password is not followed by two hex digits");
        address.user = *user;
        address.password = *password;
        if (address.password.empty())
            return redis_error("the password is empty");
    }
    if (text.find_first_of("?#") != std::string_view::npos)
        return redis_error("\"?\" and \"#\" mean nothing here");
    if (const auto slash = text.find('/'); slash != std::string_view::npos) {
        const std::string_view database = text.substr(slash + 1);
        text = text.substr(0, slash);
        if (!database.empty()) {
            const auto value = number(database, 0, 1'000'000);
            if (!value)
                return redis_error("the database is not a number");
            address.database = *value;
        }
    }
    return take_endpoint(text, address);
}

} // namespace

std::string RedisAddress::display() const {
    if (!unix_path.empty())
        return "unix:" + unix_path;
    const bool v6 = ip.find(':') != std::string::npos;
    return (v6 ? "[" + ip + "]" : ip) + ":" + std::to_string(port);
}

Result<RedisAddress> resolve_redis(std::string_view text) {
    RedisAddress address;
    if (text.empty())
        return redis_error("it is empty");
    // A zero byte would end the C strings below early.
    if (text.find('\0') != std::string_view::npos)
        return redis_error("it holds a zero byte");
    if (text.starts_with("unix:")) {
        address.unix_path = text.substr(5);
        if (!address.unix_path.starts_with('/'))
            return redis_error("the path after \"unix:\" does not begin with \"/\"");
        if (address.unix_path.size() >= sizeof(sockaddr_un::sun_path))
            return redis_error("the path is too long for a unix socket (107 bytes)");
        return address;
    }
    if (text.starts_with("rediss://"))
        return Error{
            "Redis address: rediss:// (TLS) is not supported; use a unix socket, a private network, or a local "
            "TLS tunnel (stunnel) and redis:// to it"};
    Result<Done> done = Done{};
    if (text.starts_with("redis://"))
        done = take_redis_url(text.substr(8), address);
    else if (text.find_first_of("/@") != std::string_view::npos)
        return redis_error("an unknown form");
    else
        done = take_endpoint(text, address);
    if (!done)
        return Error{done.error()};
    return address;
}

// PostgreSQL
// ------------------------------------------------------------------------------------------------------------------

namespace {

using Options = std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)>;

// libpq quotes the text it stumbled over, which may be the password: say it in our own words.
Error pg_syntax_error(std::string_view libpq_says) {
    std::string what = "not a connection string";
    if (libpq_says.starts_with("missing \"=\""))
        what = "a word without \"=\" (a value with spaces goes into '...')";
    else if (libpq_says.starts_with("unterminated quoted string"))
        what = "a quote is not closed";
    else if (libpq_says.starts_with("invalid connection option") ||
             libpq_says.starts_with("invalid URI query parameter"))
        what = "an option PostgreSQL does not know";
    else if (libpq_says.starts_with("invalid percent-encoded token"))
        what = "\"%\" is not followed by two hex digits";
    return Error{
        "PostgreSQL connection: " + what +
        "; write key=value pairs or postgresql://user:password@host:port/database (not shown here: it may hold a "
        "password)"};
}

Error pg_error(const std::string& what) { return Error{"PostgreSQL connection: " + what}; }

class Conninfo {
public:
    explicit Conninfo(PQconninfoOption* options) : options_(options, &PQconninfoFree) {}

    bool has(const char* key) const { return !get(key).empty(); }
    std::string get(const char* key) const {
        for (PQconninfoOption* one = options_.get(); one->keyword; ++one)
            if (std::strcmp(one->keyword, key) == 0)
                return one->val ? one->val : "";
        return "";
    }

private:
    Options options_;
};

void append(std::string& out, std::string_view key, std::string_view value) {
    if (!out.empty())
        out += ' ';
    out += key;
    out += "='";
    for (const char c : value) {
        if (c == '\'' || c == '\\')
            out += '\\';
        out += c;
    }
    out += '\'';
}

// What cannot work without blocking, or not at all.
std::optional<Error> pg_objection(const Conninfo& info, const std::string& host) {
    for (const std::string& list : {host, info.get("hostaddr"), info.get("port")})
        if (list.find(',') != std::string::npos)
            return pg_error(
                "several hosts are not supported; name one (or put a proxy or a virtual address before them)");
    if (info.has("service"))
        return pg_error("service= is not supported; write the parameters out");
    const std::string sslmode = info.get("sslmode");
    if (sslmode == "prefer" || sslmode == "allow")
        return pg_error("sslmode=" + sslmode +
                        " is not supported (it may connect twice); write disable, require, verify-ca or "
                        "verify-full");
    const std::string gssencmode = info.get("gssencmode");
    if (!gssencmode.empty() && gssencmode != "disable")
        return pg_error("gssencmode must be disable");
    if (info.has("connect_timeout") && !number(info.get("connect_timeout"), 1, 300))
        return pg_error("connect_timeout is not a number of seconds from 1 to 300");
    return std::nullopt;
}

} // namespace

Result<std::string> resolve_postgres(std::string_view text) {
    if (text.empty())
        return pg_error("it is empty");
    if (text.find('\0') != std::string_view::npos)
        return pg_error("it holds a zero byte");
    char* message = nullptr;
    PQconninfoOption* parsed = PQconninfoParse(std::string(text).c_str(), &message);
    const std::unique_ptr<char, decltype(&PQfreemem)> guard(message, &PQfreemem);
    if (!parsed)
        return pg_syntax_error(message ? message : "");
    const Conninfo info(parsed);

    std::string host = info.get("host");
    if (host.empty() && !info.has("hostaddr"))
        if (const char* from_environment = std::getenv("PGHOST"))
            host = from_environment;
    if (auto objection = pg_objection(info, host))
        return *objection;

    std::string out;
    for (PQconninfoOption* one = parsed; one->keyword; ++one) {
        const std::string_view key = one->keyword;
        const bool ours =
            key == "host" || key == "hostaddr" || key == "sslmode" || key == "gssencmode" || key == "connect_timeout";
        if (!ours && one->val)
            append(out, key, one->val);
    }
    const bool unix_socket = !info.has("hostaddr") && (host.empty() || host.starts_with('/') || host.starts_with('@'));
    if (!host.empty())
        append(out, "host", host);
    if (!unix_socket) {
        Result<std::string> ip = look_up(info.has("hostaddr") ? info.get("hostaddr") : host, "PostgreSQL connection");
        if (!ip)
            return Error{ip.error()};
        append(out, "hostaddr", ip.value());
    }
    append(out, "sslmode", info.has("sslmode") ? info.get("sslmode") : "disable");
    append(out, "gssencmode", "disable");
    append(out, "connect_timeout", info.has("connect_timeout") ? info.get("connect_timeout") : "5");
    return out;
}

} // namespace billing
