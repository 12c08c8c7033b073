// Real servers for the drivers' tests: a redis-server and a PostgreSQL cluster of our own, each in a temporary
// directory on a unix socket, killed when the test program ends, whichever way. Owner: the test which makes one.
#pragma once

#include <fcntl.h>
#include <libpq-fe.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace billing::test {

inline bool poll_for(const std::function<bool()>& fact, int limit_ms = 10000) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(limit_ms);
    while (!fact()) {
        if (std::chrono::steady_clock::now() > end)
            return false;
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return true;
}

class TempDir {
public:
    TempDir() {
        char name[] = "/tmp/billing-unit-XXXXXX";
        if (!::mkdtemp(name))
            throw std::runtime_error("no temporary directory");
        path_ = name;
    }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;
    ~TempDir() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    const std::string& path() const { return path_; }

private:
    std::string path_;
};

// A server process and its children.
class Process {
public:
    Process() = default;
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;
    ~Process() { kill9(); }

    void spawn(const std::vector<std::string>& command, const std::string& log) {
        pid_ = ::fork();
        if (pid_ != 0)
            return;
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
        ::dup2(out, 1);
        ::dup2(out, 2);
        std::vector<char*> words;
        for (const std::string& word : command)
            words.push_back(const_cast<char*>(word.c_str()));
        words.push_back(nullptr);
        ::execvp(words[0], words.data());
        ::_exit(127);
    }
    bool running() const { return pid_ > 0; }
    // Exit status, or -1.
    int wait() {
        int status = 0;
        ::waitpid(std::exchange(pid_, -1), &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    // Children first, so that none sees its parent die.
    void signal(int number) const {
        if (!running())
            return;
        for (const pid_t child : children())
            ::kill(child, number);
        ::kill(pid_, number);
    }
    void kill9() {
        if (!running())
            return;
        ::kill(pid_, SIGSTOP); // no new children meanwhile
        const std::vector<pid_t> all = children();
        signal(SIGKILL);
        wait();
        // PostgreSQL does not start again while one of them is still attached to its memory.
        for (const pid_t child : all)
            poll_for([child] { return gone(child); });
    }

private:
    std::vector<pid_t> children() const {
        std::ifstream list("/proc/" + std::to_string(pid_) + "/task/" + std::to_string(pid_) + "/children");
        return {std::istream_iterator<pid_t>(list), {}};
    }
    static bool gone(pid_t pid) {
        std::ifstream stream("/proc/" + std::to_string(pid) + "/stat");
        std::string number, name, state;
        stream >> number >> name >> state;
        return !stream || state == "Z";
    }

    pid_t pid_ = -1;
};

class RedisServer {
public:
    explicit RedisServer(std::vector<std::string> options = {}) : options_(std::move(options)) { start(); }

    void start() {
        std::filesystem::remove(socket());
        std::vector<std::string> command = {"redis-server", "--port", "0",     "--unixsocket", socket(), "--save", "",
                                            "--appendonly", "no",     "--dir", dir_.path()};
        command.insert(command.end(), options_.begin(), options_.end());
        process_.spawn(command, dir_.path() + "/log");
        if (!poll_for([this] { return accepts(); }))
            throw std::runtime_error("redis-server does not start");
    }
    void kill9() { process_.kill9(); }
    void pause() { process_.signal(SIGSTOP); }
    void resume() { process_.signal(SIGCONT); }
    std::string socket() const { return dir_.path() + "/redis.sock"; }

private:
    bool accepts() const {
        const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::strncpy(address.sun_path, socket().c_str(), sizeof(address.sun_path) - 1);
        const bool connected = ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
        ::close(fd);
        return connected;
    }

    std::vector<std::string> options_;
    TempDir dir_;
    Process process_;
};

class PostgresServer {
public:
    PostgresServer() {
        const bool root = ::geteuid() == 0;
        // PostgreSQL refuses to run as root.
        if (root) {
            as_other_ = {"setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig=KILL", "--"};
            Process chown;
            chown.spawn({"chown", "postgres:postgres", dir_.path()}, "/dev/null");
            chown.wait();
        }
        ::chmod(dir_.path().c_str(), 0755);
        Process initdb;
        initdb.spawn(command({binary("initdb"), "-D", data(), "-U", "postgres", "-A", "trust", "--no-sync", "-E",
                              "UTF8", "--no-locale"}),
                     "/dev/null");
        if (initdb.wait() != 0)
            throw std::runtime_error("initdb fails");
        start();
    }

    // One for the whole program: initdb takes a second. Running when it is handed out.
    static PostgresServer& shared() {
        static PostgresServer server;
        server.resume();
        if (!server.process_.running())
            server.start();
        return server;
    }

    void start() {
        process_.spawn(
            command({binary("postgres"), "-D", data(), "-k", dir_.path(), "-c", "listen_addresses=", "-c", "fsync=off",
                     "-c", "shared_buffers=16MB", "-c", "max_connections=30", "-c", "autovacuum=off"}),
            "/dev/null");
        if (!poll_for([this] { return PQping(conninfo().c_str()) == PQPING_OK; }))
            throw std::runtime_error("postgres does not start");
    }
    void kill9() { process_.kill9(); }
    void pause() { process_.signal(SIGSTOP); }
    void resume() { process_.signal(SIGCONT); }
    std::string conninfo() const { return "host=" + dir_.path() + " user=postgres dbname=postgres"; }

private:
    static std::string data_name() { return "/data"; }
    std::string data() const { return dir_.path() + data_name(); }

    // The newest version installed.
    static std::string binary(const std::string& name) {
        std::string best;
        int newest = 0;
        std::error_code ignored;
        for (const auto& entry : std::filesystem::directory_iterator("/usr/lib/postgresql", ignored)) {
            const int version = std::atoi(entry.path().filename().c_str());
            const std::string path = entry.path().string() + "/bin/" + name;
            if (version > newest && std::filesystem::exists(path)) {
                newest = version;
                best = path;
            }
        }
        return best.empty() ? name : best;
    }
    std::vector<std::string> command(std::vector<std::string> words) const {
        words.insert(words.begin(), as_other_.begin(), as_other_.end());
        return words;
    }

    std::vector<std::string> as_other_;
    TempDir dir_;
    Process process_;
};

} // namespace billing::test
