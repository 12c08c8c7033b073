#include "nginx/worker.hpp"

#include "async/poll_reactor.hpp"
#include "jobs/pulse.hpp"
#include "stripe/names.hpp"

namespace billing {

namespace {

PgConfig postgres_config(const MainConf& conf) {
    PgConfig config;
    config.conninfo = conf.postgres;
    return config;
}

// How many of one account's checkouts may wait for the one before.
constexpr std::size_t k_checkouts_waiting = 12;

PgConfig endpoint_postgres_config(const MainConf& conf) {
    PgConfig config = postgres_config(conf);
    config.connections = 1;
    config.timeout_ms = 4000;
    config.tells_outages = false;
    return config;
}

RedisConfig redis_config(const MainConf& conf) {
    RedisConfig config;
    config.address = *conf.redis;
    return config;
}

std::vector<const Rules*> all_rules(const MainConf& conf) {
    std::vector<const Rules*> rules;
    for (const auto& location : conf.rules) {
        rules.push_back(&location->rules);
    }
    return rules;
}

QuotaThresholds thresholds(const MainConf& conf) {
    QuotaThresholds all;
    for (const auto& location : conf.rules) {
        for (const QuotaRule& quota : location->rules.quotas) {
            for (const std::uint8_t percent : quota.warns) {
                all.add(quota.key, percent);
            }
        }
    }
    return all;
}

bool is_live(const MainConf& conf) { return conf.stripe && key_mode(conf.stripe->key) == KeyMode::live; }

// Nothing: Stripe is not configured.
std::optional<StripeConfig> stripe_config(const MainConf& conf, Table& table) {
    std::optional<StripeConfig> config = conf.stripe;
    if (config) {
        config->told = [&table](ReplyKind kind) {
            table.count(kind == ReplyKind::ok        ? Counter::stripe_ok
                        : kind == ReplyKind::refused ? Counter::stripe_refused
                                                     : Counter::stripe_unavailable);
        };
    }
    return config;
}

HostJobs::Settings job_settings(const ngx_cycle_t* cycle, const MainConf& conf, Table& table) {
    HostJobs::Settings settings;
    settings.conninfo = conf.postgres;
    settings.listen_conninfo = conf.postgres_listen;
    settings.redis = conf.redis;
    settings.host = std::string{view(cycle->hostname)};
    settings.pid = static_cast<std::uint32_t>(ngx_pid);
    settings.thresholds = thresholds(conf);
    settings.for_all = conf.jobs.value_or(true);
    settings.stripe = stripe_config(conf, table);
    settings.inbox.table = &table;
    const PaymentPolicy policy = conf.payment_policy.value_or(PaymentPolicy{});
    settings.inbox.account_name = conf.metadata.value_or(MetadataNames{}).account;
    settings.inbox.livemode = is_live(conf);
    settings.inbox.payment_policy = policy.maintenance ? "maintenance" : "grace";
    settings.inbox.grace_seconds = policy.grace_seconds;
    settings.keep_payloads_s = conf.keep_payloads_s.value_or(k_keep_payloads_s);
    settings.inbox.dispute_policy = conf.dispute_maintenance.value_or(false) ? "maintenance" : "notify";
    return settings;
}

// At a process's end the loop of nginx has ended already, so one of our own carries the last reports, for as long as an
// operator who stops nginx should have to wait. `make`: Task<bool>(Reactor&, Postgres&).
template <class Make>
bool carry_out(const MainConf& conf, Make&& make) {
    constexpr std::int64_t k_patience_ms = 2000;
    PollReactor reactor{[](LogLevel, std::string_view) {}};
    PgConfig config = postgres_config(conf);
    config.connections = 1;
    Postgres postgres{reactor, config};
    postgres.start();
    struct Finish final : Root<bool> {
        using Root<bool>::Root;
        void done() noexcept override {}
    };
    Finish finish{make(reactor, postgres)};
    Scope scope{reactor};
    const bool over = scope.start(finish) || reactor.run_until([&] { return finish.finished(); }, k_patience_ms);
    return over && finish.take();
}

// The zone ends with the last worker, and what it holds with it.
Task<bool> return_tokens(Reactor& reactor, Postgres& postgres, Table table, std::string host,
                         QuotaThresholds warnings) {
    Signal unused{reactor};
    UsageFlusher flusher{reactor, postgres, table, unused, std::move(host), std::move(warnings)};
    bool returned = co_await flusher.finish();
    co_return returned;
}

Task<bool> tell_verdicts(Reactor& reactor, Postgres& postgres, std::deque<CreditVerdict> leftovers) {
    CreditVerdicts verdicts{reactor, postgres};
    verdicts.take_over(std::move(leftovers));
    bool told = co_await verdicts.finish();
    co_return told;
}

} // namespace

Worker::Worker(ngx_cycle_t* cycle, const MainConf& conf, Table table)
    : serves_(conf.endpoints), reactor_(cycle->log), scope_(reactor_), requests_(reactor_), table_(table),
      postgres_(reactor_, postgres_config(conf)), redis_(), cache_(),
      accounts_(scope_, postgres_,
                conf.redis ? &cache_.emplace(reactor_, redis_.emplace(reactor_, redis_config(conf))) : nullptr, table_),
      catalogs_(scope_, postgres_, cache_ ? &*cache_ : nullptr, table_), funding_(scope_, postgres_, table_),
      credits_(scope_, postgres_, TakingKind::credits), stock_(scope_, postgres_, TakingKind::stock),
      keys_(reactor_, postgres_), verdicts_(reactor_, postgres_),
      gate_(reactor_, table_, catalogs_, accounts_, funding_, credits_, stock_, keys_, verdicts_, all_rules(conf)),
      identity_(scope_, postgres_, table_, worker_tokens(conf)),
      endpoint_postgres_(reactor_, endpoint_postgres_config(conf)),
      stripe_(reactor_, stripe_config(conf, table_).value_or(StripeConfig{})), turns_(reactor_, k_checkouts_waiting),
      checkouts_(reactor_, endpoint_postgres_), credit_calls_(endpoint_postgres_), documents_(endpoint_postgres_),
      events_(scope_, endpoint_postgres_), gauges_(reactor_, endpoint_postgres_, table_),
      services_{
          reactor_, stripe_, accounts_, checkouts_,    credit_calls_, documents_,          events_,
          turns_,   table_,  gauges_,   is_live(conf), NGINX_VERSION, Complaint{reactor_},
      },
      jobs_(reactor_, {cache_ ? &*cache_ : nullptr, table_, accounts_, catalogs_}, job_settings(cycle, conf, table_)) {}

Worker::~Worker() {
    requests_.cancel();
    jobs_.stop();
    scope_.cancel();
    identity_.stop();
    stripe_.stop();
    if (redis_) {
        redis_->stop();
    }
    endpoint_postgres_.stop();
    postgres_.stop();
}

void Worker::start() {
    postgres_.start();
    if (serves_) {
        endpoint_postgres_.start();
    }
    if (redis_) {
        redis_->start();
    }
    identity_.start();
    scope_.spawn(verdicts_.run());
    jobs_.start();
    scope_.spawn(
        keep_telling(reactor_, table_, static_cast<std::uint32_t>(ngx_pid), postgres_, redis_ ? &*redis_ : nullptr));
}

ngx_int_t init_process(ngx_cycle_t* cycle) {
    return guard(cycle->log, ngx_int_t{NGX_ERROR}, [cycle]() -> ngx_int_t {
        const MainConf* conf = main_conf(cycle);
        const bool serves = ngx_process == NGX_PROCESS_WORKER || ngx_process == NGX_PROCESS_SINGLE;
        if (!serves || conf == nullptr || (!conf->gated && !conf->endpoints)) {
            return NGX_OK;
        }
        auto& zone = *static_cast<ZoneData*>(conf->zone->data);
        auto table = Table::attach(zone.block.at, zone.block.bytes, *zone.lock);
        if (!table) {
            ngx_log_error(NGX_LOG_EMERG, cycle->log, 0, "billing: %s", table.error().c_str());
            return NGX_ERROR;
        }
        table.value().as_worker(static_cast<std::uint32_t>(ngx_worker));
        table.value().join(static_cast<std::uint32_t>(ngx_pid));
        Worker::current_ = new Worker{cycle, *conf, std::move(table).value()};
        Worker::current_->start();
        return NGX_OK;
    });
}

void exit_process(ngx_cycle_t* cycle) {
    if (Worker::current_ == nullptr) {
        return;
    }
    Table table = Worker::current_->table();
    std::deque<CreditVerdict> verdicts = Worker::current_->untold_verdicts();
    delete Worker::current_;
    Worker::current_ = nullptr;
    guard(cycle->log, 0, [&] {
        const MainConf& conf = *main_conf(cycle);
        const bool told = verdicts.empty() || carry_out(conf, [&](Reactor& reactor, Postgres& postgres) {
                              return tell_verdicts(reactor, postgres, std::move(verdicts));
                          });
        if (!told) {
            ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                          "billing: PostgreSQL was not told how the last requests ended; the credits that they took go "
                          "back when their hold is over");
        }
        const bool returned =
            !table.leave(static_cast<std::uint32_t>(ngx_pid)) ||
            carry_out(conf, [&](Reactor& reactor, Postgres& postgres) {
                return return_tokens(reactor, postgres, table, std::string{view(cycle->hostname)}, thresholds(conf));
            });
        if (!returned) {
            ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                          "billing: PostgreSQL did not take back the quota tokens that this host held; they stay "
                          "issued until their period ends");
        }
        return 0;
    });
}

} // namespace billing
