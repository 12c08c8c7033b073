#include "jobs/host_jobs.hpp"

#include "async/sleep.hpp"

namespace billing {

namespace {

constexpr std::uint64_t k_lease_ms = 3000;
constexpr std::int64_t k_renew_ms = 500;
// Any constant will do that nobody else locks in this database: "billing" in hex.
constexpr std::int64_t k_publisher_lock = 0x62696c6c696e67;
constexpr const char* k_channel = "billing_dirty";
constexpr const char* k_inbox_channel = "billing_inbox";
constexpr std::int64_t k_inbox_query_ms = 10'000; // nobody waits for it, and a claim that is lost costs its lease

} // namespace

// The work while the lease is held. Destroying it ends everything.
class HostJobs::Running {
public:
    Running(Reactor& reactor, const Shared& shared, const Settings& settings)
        : for_all_(settings.for_all), changed_(reactor), returned_(reactor), received_(reactor), scope_(reactor),
          postgres_(reactor, postgres_config(settings)), listener_(reactor, listener_config(settings)),
          publisher_(reactor, postgres_, listener_, changed_, shared.redis, shared.table, shared.accounts,
                     shared.catalogs),
          flusher_(reactor, postgres_, shared.table, returned_, settings.host, settings.thresholds),
          sweeper_(reactor, postgres_) {
        if (settings.redis) {
            RedisConfig config;
            config.address = *settings.redis;
            config.background = true;
            stream_.emplace(reactor, config);
            reader_.emplace(reactor, *stream_, *shared.redis, shared.table, shared.accounts, shared.catalogs,
                            returned_);
        }
        if (settings.for_all && settings.stripe) {
            PgConfig config = postgres_config(settings);
            config.timeout_ms = k_inbox_query_ms;
            inbox_postgres_.emplace(reactor, config);
            stripe_.emplace(reactor, *settings.stripe);
            inbox_.emplace(reactor, *inbox_postgres_, *stripe_, received_, settings.inbox);
            overage_.emplace(reactor, *inbox_postgres_, *stripe_);
            reconcile_.emplace(reactor, *inbox_postgres_, *stripe_, settings.inbox.livemode, look_settings(settings));
            purge_.emplace(reactor, *inbox_postgres_, settings.keep_payloads_s);
        }
    }

    void start() {
        postgres_.start();
        if (for_all_) {
            listener_.start();
            scope_.spawn(publisher_.run());
            scope_.spawn(sweeper_.run());
        }
        scope_.spawn(flusher_.run());
        if (reader_) {
            stream_->start();
            scope_.spawn(reader_->run());
        }
        if (inbox_) {
            inbox_postgres_->start();
            scope_.spawn(inbox_->run());
            scope_.spawn(reconcile_->run());
            scope_.spawn(purge_->run());
            scope_.spawn(overage_->run());
        }
    }

    // Nothing is under way that would have to be done again.
    bool idle() const noexcept { return !inbox_ || inbox_->idle(); }

    ~Running() { scope_.cancel(); }

private:
    static PgConfig postgres_config(const Settings& settings) {
        PgConfig config;
        config.conninfo = settings.conninfo;
        config.connections = 1;
        config.tells_outages = false;
        return config;
    }

    static LookSettings look_settings(const Settings& settings) {
        LookSettings look;
        look.payment_policy = settings.inbox.payment_policy;
        look.grace_seconds = settings.inbox.grace_seconds;
        look.actor = "jobs:" + settings.host;
        return look;
    }

    PgListenerConfig listener_config(const Settings& settings) {
        PgListenerConfig config;
        config.conninfo = settings.listen_conninfo;
        config.channels.push_back({k_channel, &changed_});
        if (settings.stripe) {
            config.channels.push_back({k_inbox_channel, &received_});
        }
        if (!settings.redis) {
            config.lock_key = k_publisher_lock;
        }
        return config;
    }

    bool for_all_;
    Signal changed_;
    Signal returned_;
    Signal received_;
    Scope scope_;
    Postgres postgres_;
    PgListener listener_;
    Publisher publisher_;
    UsageFlusher flusher_;
    Sweeper sweeper_;
    std::optional<Redis> stream_;
    std::optional<ChangeReader> reader_;
    std::optional<Postgres> inbox_postgres_;
    std::optional<StripeApi> stripe_;
    std::optional<Inbox> inbox_;
    std::optional<ReconcileSchedule> reconcile_;
    std::optional<StripePurge> purge_;
    std::optional<OverageReporter> overage_;
};

HostJobs::HostJobs(Reactor& reactor, Shared shared, Settings settings)
    : reactor_(reactor), shared_(shared), settings_(std::move(settings)), scope_(reactor) {}

HostJobs::~HostJobs() { stop(); }

void HostJobs::start() { scope_.spawn(keep_lease()); }

void HostJobs::stop() noexcept {
    scope_.cancel();
    give_up();
}

void HostJobs::give_up() noexcept {
    running_.reset();
    shared_.table.release_lease(settings_.pid);
}

Task<void> HostJobs::keep_lease() {
    while (!reactor_.leaving() || (running_ && !running_->idle())) {
        const auto now = static_cast<std::uint64_t>(reactor_.now_ms());
        const bool held = shared_.table.hold_lease(settings_.pid, now, k_lease_ms);
        if (held && !running_) {
            running_ = std::make_unique<Running>(reactor_, shared_, settings_);
            running_->start();
        } else if (!held && running_) {
            running_.reset(); // this worker was stopped for longer than the lease lasts
        }
        co_await sleep_for(reactor_, k_renew_ms, true);
    }
    give_up();
}

} // namespace billing
