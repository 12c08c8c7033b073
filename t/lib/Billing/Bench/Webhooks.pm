# The intake of Stripe's events, beside what is written or installed in its place (t/bench/peers/intake.js). One PostgreSQL for all, which
# is durable: fsync and synchronous_commit are on, and each answers after the commit. Each run begins with empty tables; at its end
# every acknowledged event must be there, once. Our host has `billing_jobs off`: it takes events and leaves the processing to other
# hosts, as the queue's workers of the others are not here either.
package Billing::Bench::Webhooks;
use v5.36;
use Billing::Bench ();
use Billing::Bench::Events ();
use Billing::Bench::Peers ();
use Billing::Database ();
use Billing::Nginx ();
use Billing::Process qw(free_port new_directory root slurp wait_for);
use Billing::Redis ();
use Billing::Test ();
use Time::HiRes ();

my $conf = <<'END';
%%GLOBALS%%
events { worker_connections 1024; }
http {
    %%HTTP_GLOBALS%%
    billing_zone main 8m;
    billing_postgres "%%DSN%%";
    billing_redis %%REDIS%%;
    billing_catalog %%CATALOG%%;
    billing_jobs off;
    billing_stripe key=sk_test_bench api=http://127.0.0.1:9;
    billing_webhook_secret %%SECRET%%;
    keepalive_requests 100000000;
    server {
        listen 127.0.0.1:%%PORT%% reuseport;
        location = /webhook { billing_webhook; }
    }
}
END

my %rows = (ours => 'SELECT event_id AS id FROM billing.webhook_events', fastify => 'SELECT id FROM peer.events',
    sync => 'SELECT id FROM stripe.subscriptions UNION ALL SELECT id FROM stripe.invoices');
$rows{bullmq} = $rows{fastify};
my %tables = (ours => 'billing.webhook_events', fastify => 'peer.events', bullmq => 'peer.events',
    sync => 'stripe.subscriptions, stripe.subscription_items, stripe.invoices');

sub titles() {
    return (ours => 'billing_webhook', fastify => 'Fastify, npm stripe, pg', bullmq => 'the same and BullMQ', sync => 'stripe-sync-engine');
}

# load => the Billing::Bench::Load, wrapper => [command that brings the servers to their core].
sub new($class, %option) {
    my $self = bless {%option, directory => new_directory(), redis => Billing::Redis->new, next => 1, secret => 'whsec_bench'}, $class;
    $self->{db} = Billing::Database->new(fsync => 1, tcp => 1, settings => {synchronous_commit => 'on', max_wal_size => '4GB',
        shared_buffers => '256MB', autovacuum => 'off'});
    $self->{dbh} = $self->{db}->dbi;
    $self->{dbh}->do('CREATE SCHEMA peer; CREATE TABLE peer.events (id text PRIMARY KEY, type text NOT NULL, api_version text, livemode boolean,
        created timestamptz, payload bytea NOT NULL, received_at timestamptz NOT NULL DEFAULT now())');
    my $number = 0;
    for my $body (Billing::Bench::Events->bodies) {
        push $self->{events}->@*, "$self->{directory}/event-" . $number++;
        Billing::Nginx::write_file($self->{events}[-1], $body);
    }
    $self->{server} = {ours => $self->ours, map { $_ => $self->peer($_) } qw(fastify bullmq sync)};
    return $self;
}

sub ours($self) {
    my $catalog = root() . '/conf/catalog.json';
    for my $command (['migrate', '--dir', root() . '/migrations'], ['catalog', 'apply', $catalog]) {
        my $result = Billing::Test::run_command(@$command, '--dsn', $self->{db}->dsn);
        die "ngx-billing @$command: $result->{err}$result->{out}" if $result->{code};
    }
    my $host = $self->{host} = Billing::Nginx->new(name => 'intake', conf => $conf, workers => 1, log_level => 'warn', wrapper => $self->{wrapper},
        vars => {DSN => $self->{db}->dsn, REDIS => $self->{redis}->address, CATALOG => $catalog, SECRET => $self->{secret}});
    return {port => $host->port, pid => ($host->workers)[0]};
}

sub peer($self, $kind) {
    my $port = free_port();
    my ($redis_socket) = $self->{redis}->address =~ /^unix:(.*)/;
    my $postgres = sprintf 'postgres://postgres@127.0.0.1:%d/billing', $self->{db}->port;
    my $process = Billing::Process->start(name => $kind, log => "$self->{directory}/$kind.log", env => {NODE_ENV => 'production'},
        command => [$self->{wrapper}->@*, 'node', root() . '/t/bench/peers/intake.js', Billing::Bench::Peers::packages(), $kind, $port,
            $self->{secret}, $postgres, $redis_socket]);
    push $self->{peers}->@*, $process;
    $process->await(sub { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port") }, 60, "$kind listens");
    return {port => $port, pid => $process->pid};
}

# ms that a commit of one small row takes here: on a slow disk nothing else matters.
sub commit_ms($self) {
    $self->{dbh}->do('CREATE TABLE IF NOT EXISTS peer.commits (n int)');
    return Billing::Bench::median(map {
        my $begun = Time::HiRes::time();
        $self->{dbh}->do('INSERT INTO peer.commits VALUES (1)');
        1000 * (Time::HiRes::time() - $begun);
    } 1 .. 25);
}

# name => [a run for each round]; the names take turns, in one order and in the other. %words as for the load.
sub rounds($self, $rounds, $names, %words) {
    my %runs;
    for my $round (1 .. $rounds) {
        push $runs{$_}->@*, $self->run($_, %words) for $round % 2 ? @$names : reverse @$names;
    }
    return %runs;
}

# One run of the load with CPU time in us for an event: each => of the server, database => of PostgreSQL, all_cpu => of both.
sub run($self, $name, %words) {
    $self->{dbh}->do("TRUNCATE $tables{$name}");
    $self->{dbh}->do('CHECKPOINT');
    $self->{redis}->flushall;
    my $server = $self->{server}{$name};
    my @before = $self->cpu_seconds($server);
    my $run = $self->{load}->events($name, port => $server->{port}, path => '/webhook', secret => $self->{secret}, from => $self->{next},
        events => join(',', $self->{events}->@*), %words);
    my @after = $self->cpu_seconds($server);
    @$run{qw(each database)} = map { 1e6 * ($after[$_] - $before[$_]) / $run->{all} } 0, 1;
    $run->{all_cpu} = $run->{each} + $run->{database};
    $self->check($name, $run->{all});
    $self->{next} += $run->{all};
    return $run;
}

# The numbers of the events are what their ids end with.
sub check($self, $name, $count) {
    my @found = $self->{dbh}->selectrow_array("SELECT count(*), count(DISTINCT right(id, 12)), min(right(id, 12)::bigint), max(right(id, 12)::bigint)
        FROM ($rows{$name}) x");
    my @due = ($count, $count, $self->{next}, $self->{next} + $count - 1);
    die "$name: acknowledged events are missing, or there twice: @found instead of @due\n" if "@found" ne "@due";
    my $jobs = $self->{redis}->client->llen('bull:events:wait');
    die "$name: $jobs jobs for $count events\n" if $jobs != ($name eq 'bullmq' ? $count : 0);
    return;
}

# Of the server, with all its threads, for Node.js has several; and of PostgreSQL.
sub cpu_seconds($self, $server) {
    my @seconds;
    for my $pids ([$server->{pid}], [$self->{db}->pid, Billing::Process::descendants($self->{db}->pid)]) {
        my $sum = 0;
        $sum += (split ' ', slurp($_) || 0)[0] / 1e9 for map { glob "/proc/$_/task/*/schedstat" } @$pids;
        push @seconds, $sum;
    }
    return @seconds;
}

sub finish($self) {
    $_->stop for $self->{peers}->@*;
    $self->{host}->quit_quietly;
    $self->{dbh}->disconnect;
    $self->{db}->stop;
    $self->{redis}->stop;
    return;
}

1;
