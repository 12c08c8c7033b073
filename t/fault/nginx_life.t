# Whatever nginx does with its processes, every request gets its right answer, nothing alarming is logged, and every unit is accounted
# for: issued = used + what died with a killed worker. Reloads, with the zone as it was, of another size and under another name; a
# binary upgrade, and the way back; a worker killed; the cache manager and loader beside them; a daemon, and one process alone.
# U1, U2, V1, W3.
use v5.36;
use Billing::Load;
use Billing::Test;

my %demo = (Authorization => 'Bearer demo-token');
my %poor = (Authorization => 'Bearer test:poor');
my $world = world(
    start => 0, daemon => 'on', database => {tcp => 1},
    http => 'proxy_cache_path %%PREFIX%%/cache keys_zone=pages:1m;',
    locations => <<'END');
    billing on;
    billing_account $user;
    location /api/ { billing_quota requests; proxy_pass http://app; }
    location /cached/ { billing_quota requests; proxy_cache pages; proxy_cache_valid 200 1h; proxy_pass http://app; }
    location /premium/ { billing_feature white_label; proxy_pass http://app; }
END
my $host = $world->host;
my $billing = $host->{vars}{BILLING};
$host->write_config($host->{conf}, DSN => $world->db->dsn(tcp => 1));
$host->start;

sub row() { ($world->sql(q{SELECT q.issued, q.used FROM billing.quota_periods q JOIN billing.accounts a ON a.id = q.account_id
    WHERE a.external_id = 'demo'}))[0] }
my $served = 1;
is $host->get('/api/x', %demo)->status, 200, 'the account';
is $host->get('/premium/x', %poor)->status, 403, 'one that may not enter';
$world->must('account', 'set', 'demo', '--limit', 'requests=500000');
$world->must('account', 'set', 'poor', '--limit', 'requests=0');
wait_for(sub { $host->get('/api/x', %poor)->status == 402 }, 5, 'its cap');
wait_for(sub {
    my $answer = $host->get('/api/x', %demo);
    $served++ if $answer->status == 200;
    return ($answer->header('RateLimit-Policy') // '') =~ /q=500000/;
}, 5, 'the cap');

# While $what is done to it.
sub under_load($name, $what, $at_most = 0) {
    my $load = Billing::Load->begin($host,
        {path => '/api/x', headers => \%demo, status => 200}, {path => '/cached/x', headers => \%demo, status => 200},
        {path => '/premium/x', headers => \%poor, status => 403}, {path => '/api/x', headers => \%poor, status => 402},
        {path => '/api/x', headers => {}, status => 401});
    my $done = eval { $what->($load); $load->go_on(50); 1 };
    my $why = $@;
    my $seen = $load->end;
    $served += $seen->{right}[0] + $seen->{right}[1];
    ok $done, $name or diag $why;
    cmp_ok $seen->{wrong}->@*, '<=', $at_most, "$name: each of $seen->{all} answers is right"
        or diag join "\n", splice $seen->{wrong}->@*, 0, 10;
    return scalar $seen->{wrong}->@*;
}
sub all_accounted($name) {
    ok eval { wait_for(sub { row()->{used} == $served }, 10, 'usage is reported') }, "$name: what was served is what is used" or diag row()->{used} . " used, $served served";
    return;
}

# The pids of children whose title says so; and whether they hold a connection to PostgreSQL.
sub titled($like) { grep { Billing::Process::slurp("/proc/$_/cmdline") =~ $like } Billing::Process::children($host->master) }
sub talks_to_postgres($pid) {
    my $port = sprintf ':%04X', $world->db->port;
    my %ours = map { (split)[9] => 1 } grep { (split)[2] =~ /$port$/ } split /\n/, Billing::Process::slurp('/proc/net/tcp');
    return scalar grep { (readlink // '') =~ /^socket:\[(\d+)\]$/ && $ours{$1} } glob "/proc/$pid/fd/*";
}

subtest 'beside the cache manager and the cache loader' => sub {
    my @helpers = map { titled($_) } qr/^nginx: cache manager/, qr/^nginx: cache loader/;
    is @helpers, 2, 'both run';
    ok talks_to_postgres($_), 'a worker talks to PostgreSQL' for $host->workers;
    ok !talks_to_postgres($_), 'neither of them does' for @helpers, $host->master;
};

under_load('reloads', sub ($load) {
    for (1 .. 6) {
        $host->reload;
        $load->go_on(20);
    }
});
all_accounted('reloads');
under_load('many reloads at once', sub ($load) {
    for (1 .. 12) {
        kill 'HUP', $host->master;
        select undef, undef, undef, 0.05;
    }
    $host->reload;
});
all_accounted('many reloads at once');

under_load('a larger zone', sub ($load) {
    $host->write_config($host->{conf}, BILLING => $billing =~ s/main 8m/main 12m/r);
    $host->reload;
});
all_accounted('a larger zone');
under_load('a smaller zone', sub ($load) {
    $host->write_config($host->{conf}, BILLING => $billing =~ s/main 8m/main 4m/r);
    $host->reload;
});
all_accounted('a smaller zone');
under_load('a zone of another name', sub ($load) {
    $host->write_config($host->{conf}, BILLING => $billing =~ s/main 8m/other 8m/r);
    $host->reload;
});
all_accounted('a zone of another name');

# Both masters at once until one is told to go.
sub upgrade($old) {
    my $file = "$host->{directory}/nginx.pid";
    kill 'USR2', $old;
    my $new = wait_for(sub { -e "$file.oldbin" && (Billing::Process::slurp($file) =~ /^(\d+)\n/)[0] }, 10, 'the new master');
    $host->adopt($new);
    wait_for(sub { $host->workers == 2 }, 10, 'its workers');
    return $new;
}
sub gone(@pids) { wait_for(sub { !grep { Billing::Process::process_alive($_) } @pids }, 20, "@pids end") }

under_load('a binary upgrade', sub ($load) {
    my $old = $host->master;
    my @old_workers = $host->workers;
    upgrade($old);
    $load->go_on(50);    # by both
    kill 'WINCH', $old;
    gone(@old_workers);
    kill 'QUIT', $old;
    gone($old);
});
all_accounted('a binary upgrade');

under_load('a binary upgrade that is taken back', sub ($load) {
    my $old = $host->master;
    my @old_workers = $host->workers;
    my $new = upgrade($old);
    kill 'WINCH', $old;
    gone(@old_workers);
    $load->go_on(50);
    kill 'HUP', $old;
    wait_for(sub { (grep { Billing::Process::slurp("/proc/$_/cmdline") =~ /^nginx: worker process/ } Billing::Process::children($old)) == 2 },
        10, 'the old master has workers again');
    kill 'QUIT', $new;
    gone($new);
    $host->adopt($old);
});
all_accounted('a binary upgrade that is taken back');

subtest 'stopped and started' => sub {
    $host->{process}->stop('QUIT', 30);
    is_deeply row(), {issued => $served, used => $served}, 'U2: nothing is left behind by any of the zones: issued = used = served';
    $host->start;
};

# Its requests in flight are answered by nobody.
my $lost = under_load('workers are killed', sub ($load) {
    for (1 .. 4) {
        $load->go_on(30);
        $host->kill9_worker($_ % 2);
    }
}, 4 * 3);
ok eval { wait_for(sub { row()->{used} >= $served && row()->{used} <= $served + $lost }, 10, 'usage is reported') },
    "what was served is used, and no more than the $lost that were lost on their way beside it" or diag row()->{used} . ' used';
$host->{process}->stop('TERM', 30);
$world->may_forfeit(demo => 2 * 64);
my $row = row();
cmp_ok $row->{issued} - $row->{used}, '<=', 2 * 64, 'a stop gives back all but what died within a write: ' . ($row->{issued} - $row->{used});
cmp_ok $row->{issued}, '>=', $row->{used}, 'U1: used <= issued';
$host->{killed} = 1;    # it is stopped

subtest 'one process alone' => sub {
    my $single = Billing::Nginx->new(name => 'one process', conf => $host->{conf}, vars => {$host->{vars}->%*, BILLING => $billing},
        workers => 1, master_process => 'off');
    my $before = row();
    is $single->get('/api/x', %demo)->status, 200, 'lets in';
    is $single->get('/premium/x', %poor)->status, 403, 'turns away';
    $world->must('account', 'set', 'poor', '--plan', 'agency');
    ok eval { wait_for(sub { $single->get('/premium/x', %poor)->status == 200 }, 5, 'the change arrives') }, 'follows changes: the jobs run in it';
    $single->{process}->signal('HUP');
    $single->wait_log(qr/\[emerg\].*with "master_process off" nginx cannot take up another configuration/);
    $single->expect_log(qr/\[emerg\].*with "master_process off" nginx cannot take up another configuration/);
    is $single->get('/api/x', %demo)->status, 200, 'told to reload, says that it cannot, and goes on as it was';
    for my $signal (qw(QUIT TERM)) {
        is $single->{process}->stop($signal, 20), 0, "$signal: exits with code 0";
        is_deeply [map { $_ - $before->{used} } row()->{used}], [$signal eq 'QUIT' ? 2 : 3], "$signal: reports all that was spent";
        is row()->{issued} - row()->{used}, $before->{issued} - $before->{used}, "$signal: gives back all that was not";
        next if $signal eq 'TERM';
        $single->start;
        is $single->get('/api/x', %demo)->status, 200, 'starts again';
    }
    $single->{killed} = 1;    # it is stopped
};
done_testing;
