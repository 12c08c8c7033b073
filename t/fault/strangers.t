# Who is not known costs little, however many come: a flood of ids that nobody has takes no memory, puts no account out that is in use, and
# is answered; and an account that is known but in no cache is fetched once by each worker, however many of its requests wait for it.
# A38, S10 (one fetch); zone of the least size.
use v5.36;
use Billing::Process qw(sanitized slurp wait_for);
use Billing::Test;

my $world = world(start => 0, database => {settings => {track_functions => 'all'}}, locations => <<'END');
    billing_account $http_x_account;
    add_header X-Source $billing_source always;
    location /deny/ { billing on; billing_unknown_account deny; proxy_pass http://app; }
    location /free/ { billing on; billing_unknown_account free; proxy_pass http://app; }
    location /open/ { return 204; }
    location = /metrics { billing_metrics; }
END
my $host = $world->host;
$host->write_config($host->{conf}, BILLING => $host->{vars}{BILLING} =~ s/main 8m/main 2m/r);
$world->sql(q{INSERT INTO billing.accounts (external_id, plan_no) SELECT name || n, 1 FROM generate_series(1, 60) n, (VALUES ('real-'), ('cold-')) v(name)});
$host->start;
wait_for(sub { !$world->sql('SELECT 1 FROM billing.snapshot_dirty') }, 20, 'all are published');

# No cache knows anybody.
is $host->{process}->stop('QUIT', 20), 0, 'the host forgets';
$world->redis->flushall;
my $calls = sub {
    wait_for(sub { !$world->sql(q{SELECT 1 FROM pg_stat_activity WHERE application_name = 'ngx_billing'}) }, 10, 'sessions have ended');
    return (map { $_->{n} } $world->sql(q{SELECT coalesce(sum(calls), 0) AS n FROM pg_stat_user_functions WHERE funcname = 'snapshots'}))[0];
};
my $before = $calls->();
# What is fetched before the first heartbeat has come is fetched again.
my $begin = sub {
    $host->start;
    wait_for(sub { ($host->get('/metrics')->body =~ /^billing_watermark_age_seconds (\S+)/m)[0] < 5 }, 10, 'the host knows all changes');
};
$begin->();
is $host->get('/deny/x', 'X-Account' => 'nobody')->status, 403, 'a stranger is turned away';

subtest 'many wait for one' => sub {
    my $ask = sub ($account) {
        my $socket = $host->connect;
        print $socket "GET /deny/x HTTP/1.1\r\nHost: x\r\nX-Account: $account\r\nConnection: close\r\n\r\n";
        return $socket;
    };
    $world->db->pause;
    my @waiting = map { $ask->('cold-1') } 1 .. 200;
    $host->get_many(40, 8, '/open/x');    # by now each worker has read its share
    $world->db->resume;
    my @answers = map { local $/; <$_> // '' } @waiting;
    is grep({ m{^HTTP/1\.1 200 } } @answers), 200, 'all are answered';
    cmp_ok grep({ /^X-Source: postgres\r$/m } @answers), '>', 100, 'most of them have waited for PostgreSQL';
    is $host->{process}->stop('QUIT', 20), 0, 'the end of the host, and of its sessions';
    my $fetched = $calls->() - $before;
    cmp_ok $fetched, '<=', 1 + 2, "S10: one fetch by each of two workers for 200 requests, and one for the stranger ($fetched)";
    cmp_ok $fetched, '>=', 2, 'and it was asked';
    $begin->();
};

subtest 'a flood of strangers' => sub {
    my $number = 0;
    my $flood = sub ($path, $wanted, $count) {
        my @sockets = map { $host->connect } 1 .. 8;
        my $right = 0;
        for (1 .. $count / 8 / 50) {
            for my $socket (@sockets) {
                print $socket join '', map { "GET $path HTTP/1.1\r\nHost: x\r\nX-Account: stranger-" . ++$number . "\r\n\r\n" } 1 .. 50;
            }
            for my $socket (@sockets) {
                my ($text, $seen) = ('', 0);
                while ($seen < 50) {
                    sysread $socket, $text, 65536, length $text or last;
                    $seen = () = $text =~ m{HTTP/1\.1 \d}g;
                }
                $right += () = $text =~ m{HTTP/1\.1 $wanted }g;
            }
        }
        return $right;
    };
    my $memory = sub { my $sum = 0; $sum += $_ for map { slurp("/proc/$_/status") =~ /^VmRSS:\s+(\d+) kB/m } $host->workers; return $sum };
    my $used = sub { ($host->get('/metrics')->body =~ /^billing_cache_bytes\{state="used"\} (\d+)/m)[0] };
    my $from_memory = sub { scalar grep { my $answer = $host->get('/deny/x', 'X-Account' => "real-$_"); $answer->status == 200 && $answer->header('X-Source') eq 'shm' } 1 .. 60 };

    is $host->get('/deny/x', 'X-Account' => "real-$_")->status, 200, "real-$_ is known" for 1 .. 60;
    ok eval { wait_for(sub { $from_memory->() == 60 }, 10, 'from memory') }, 'and held in shared memory';
    my $bytes = wait_for(sub { my $now = $used->(); $now >= 60 * 64 && $now }, 10, 'it is measured');
    is $flood->('/deny/x', 403, 6000), 6000, 'A38: strangers are turned away';
    my $warm = $memory->();
    is $flood->('/deny/x', 403, 6000), 6000, 'A38: and more of them';
    is $flood->('/free/x', 200, 2000), 2000, 'A38: or treated as free';
    my $grown = $memory->() - $warm;
    SKIP: {
        skip 'ASan keeps what is freed', 1 if sanitized();
        cmp_ok $grown, '<', 2048, "A38: the workers have not grown by it ($grown kB)";
    }
    # Each worker measures every five seconds.
    ok eval { wait_for(sub { 4 == grep { $used->() == $bytes } 1 .. 4 }, 20, 'both workers have measured') }, 'A38: nor what shared memory holds';
    is $from_memory->(), 60, 'A38: who was known is still there';
    is $world->sql(q{SELECT 1 FROM billing.accounts WHERE external_id LIKE 'stranger%'}), 0, 'and nobody has come into being';
};
done_testing;
