# What hosts know only moves forward, soon, and in the end to what PostgreSQL says, whatever happens to what lies between: each version of
# an account carries its number as a limit, which every metered answer tells; two observers ask one host each, without a pause, while
# the number rises, and Redis is flushed, restarted, stopped, its stream trimmed, zones overflow, hosts reload, publishers stand still.
# E1 E2 E3 E4 E5 of the invariants; S5, S6, S9; V1, V2.
use v5.36;
use Billing::Client qw(request);
use Billing::Process qw(new_directory patience slurp wait_for);
use Billing::Test;
use JSON::PP ();
use List::Util qw(max);
use Time::HiRes qw(sleep time);

my %seen_by = (Authorization => 'Bearer test:watched');
my $number = 1_000_000;
my %committed;

sub new_world(%option) {
    my $world = world(start => 0, locations => <<'END', %option);
    billing on;
    billing_account $user;
    location /api/ { billing_quota requests; proxy_pass http://app; }
    location /brief/ { billing_feature white_label; billing_on_error stale=2s 503; proxy_pass http://app; }
    location /kind/ { billing_feature white_label; billing_on_error stale=2s allow; proxy_pass http://app; }
END
    for my $host ($world->hosts) {    # so small that a few thousand accounts fill it
        $host->write_config($host->{conf}, BILLING => $host->{vars}{BILLING} =~ s/main 8m/main 2m/r);
        $host->start;
    }
    is $world->host->get('/api/x', %seen_by)->status, 200, 'the account comes into being';
    $world->must('account', 'set', 'watched', '--limit', "requests=$number");
    for my $host ($world->hosts) {
        wait_for(sub { ($host->get('/api/x', %seen_by)->header('RateLimit-Policy') // '') =~ /q=$number/ }, 5, 'its first number');
    }
    return $world;
}

# --- the observers

sub observe($host) {
    my $file = new_directory() . '/seen';
    my ($address, $parent) = ($host->address, $$);
    my $pid = fork // die "fork: $!\n";
    return {pid => $pid, file => $file, name => $host->{name}} if $pid;
    my $stop = 0;
    local $SIG{TERM} = sub { $stop = 1 };
    my %seen = (back => [], other => {}, first => {}, answers => 0);
    my $last = 0;
    until ($stop || getppid != $parent) {
        my $answer = request($address, 'GET', '/api/x', headers => \%seen_by);
        $seen{answers}++;
        my ($now) = ($answer->header('RateLimit-Policy') // '') =~ /q=(\d+)/;
        if ($answer->status != 200 || !$now) {
            $seen{other}{$answer->status || $answer->failure}++;
            next;
        }
        push $seen{back}->@*, "$last, then $now" if $now < $last;
        $seen{first}{$now} = time if $now > $last;
        $last = $now;
        sleep 0.004;
    }
    open my $out, '>', $file;
    print $out JSON::PP->new->encode(\%seen);
    close $out;
    POSIX::_exit(0);
}

sub ask_observer($observer) {
    kill 'TERM', $observer->{pid};
    waitpid $observer->{pid}, 0;
    return JSON::PP->new->decode(slurp($observer->{file}));
}

# One more version, and when it was committed.
sub tick($world, $times = 1) {
    for (1 .. $times) {
        $number++;
        $world->sql(q{UPDATE billing.account_limits l SET amount = ? FROM billing.accounts a WHERE a.id = l.account_id AND a.external_id = 'watched'}, $number);
        $committed{$number} = time;
        sleep 0.02;
    }
    return;
}

sub arrived($world, $what) {
    my $wanted = $number;
    ok eval {
        wait_for(sub { !grep { ($_->get('/api/x', %seen_by)->header('RateLimit-Policy') // '') !~ /q=$wanted/ } $world->hosts }, 15, $what);
    }, "$what: every host has come to the last version";
    return;
}

# Between commit and the first answer that knows it, by the observers' account.
sub delays(@seen) {
    my @delays;
    for my $first (map { $_->{first} } @seen) {
        my @known = sort { $a <=> $b } keys %$first;
        for my $version (sort { $a <=> $b } keys %committed) {
            shift @known while @known && $known[0] < $version;
            push @delays, max(0, $first->{$known[0]} - $committed{$version}) if @known;
        }
    }
    return sort { $a <=> $b } @delays;
}

sub went_forward($what, $seen, $observer) {
    is_deeply $seen->{back}, [], "E1: $what, $observer->{name}: no answer of $seen->{answers} knew less than the one before";
    is_deeply $seen->{other}, {}, "$what, $observer->{name}: and each was one of the gate's";
    return;
}

# E5: nothing is left to publish, and what Redis holds is what PostgreSQL says.
sub same_everywhere($world) {
    ok eval { wait_for(sub { !$world->sql('SELECT 1 FROM billing.snapshot_dirty') }, 30, 'drained') }, 'E5: the dirty set drains';
    my $redis = $world->redis->client;
    my %stamp = map { $_->{account} => $_->{stamp} } $world->sql('SELECT account, billing.stamp_text(stamp) AS stamp FROM billing.account_snapshots');
    my ($held, @differ) = (0);
    for my $account (keys %stamp) {
        my $there = $redis->hget("billing:account:{$account}", 'stamp') // next;
        $held++;
        push @differ, "$account: $there, not $stamp{$account}" if $there ne $stamp{$account};
    }
    cmp_ok $held, '>', 0, "E5: of @{[scalar keys %stamp]} accounts Redis holds $held";
    is_deeply \@differ, [], 'E5: each as PostgreSQL has it';
    return;
}

subtest 'two hosts' => sub {
    my $world = new_world(hosts => 2);
    my ($one, $two) = $world->hosts;
    my $redis = sub { $world->redis->client };
    my @observers = map { observe($_) } $one, $two;
    tick($world, 40);
    arrived($world, 'in calm');
    my @seen = map { ask_observer($_) } @observers;
    went_forward('in calm', $seen[$_], $observers[$_]) for 0, 1;
    my @delays = delays(@seen);
    note sprintf 'E3: from commit to the first answer that knows it: median %.0f ms, 99th of 100 %.0f ms, longest %.0f ms, of %d',
        map({ 1000 * $delays[$_] } $#delays / 2, 0.99 * $#delays, -1), scalar @delays;
    cmp_ok $delays[$#delays / 2], '<', 0.25 * patience(), 'S5, E3: well under a second';
    cmp_ok $delays[-1], '<', 2 * patience(), 'E3: and never longer than two';

    my %ways = (
        'Redis is flushed' => sub { $world->redis->flushall },
        'Redis is restarted' => sub { $world->redis->restart },
        'Redis stands still' => sub { $world->redis->pause; tick($world, 20); $world->redis->resume },
        'the stream is trimmed' => sub { $redis->()->xtrim('billing:changes', 'MAXLEN', 0) },
        'a host missed what was trimmed' => sub { kill 'STOP', $two->workers; tick($world, 6); $redis->()->xtrim('billing:changes', 'MAXLEN', 1); kill 'CONT', $two->workers },
        'hosts reload' => sub { $_->reload for $one, $two },
        'a worker is killed' => sub { $_->kill9_worker(0), $world->may_forfeit(watched => $number / 8) for $one, $two },
    );
    for my $way (sort keys %ways) {
        my @watching = map { observe($_) } $one, $two;
        tick($world, 6);
        $ways{$way}->();
        tick($world, 6);
        arrived($world, $way);
        for (@watching) {
            my $seen = ask_observer($_);
            delete $seen->{other} if $way eq 'a worker is killed';    # its requests in flight
            went_forward($way, {other => {}, %$seen}, $_);
        }
    }

    subtest 'zones that overflow' => sub {
        my @watching = map { observe($_) } $one, $two;
        $world->sql(q{INSERT INTO billing.accounts (external_id, plan_no) SELECT 'many-' || n, (SELECT plan_no FROM billing.plans WHERE plan_key = 'free') FROM generate_series(1, 18300) n});
        tick($world, 20);
        wait_for(sub { !$world->sql('SELECT 1 FROM billing.snapshot_dirty') }, 90, 'all of them are published');
        tick($world, 6);
        arrived($world, 'more accounts than the zones hold');
        went_forward('more accounts than the zones hold', ask_observer($_), $_) for @watching;
        # Nobody has asked of these since: some are still there and some are not, and all are right.
        $world->sql(q{UPDATE billing.accounts SET plan_no = (SELECT plan_no FROM billing.plans WHERE plan_key = 'agency') WHERE external_id IN ('many-1', 'many-9000', 'many-18300')});
        for my $account (qw(many-1 many-9000 many-18300)) {
            ok eval { wait_for(sub { !grep { $_->get('/brief/x', Authorization => "Bearer test:$account")->status != 200 } $one, $two }, 10, 'the change') },
                "E1: $account has its last version on both";
        }
    };
    same_everywhere($world);

    # The publisher of one host stands still between reading a version and writing it; the other host's publishes the next one.
    subtest 'a publisher that comes late' => sub {
        my $key = 'billing:account:{watched}';
        wait_for(sub { !$world->sql('SELECT 1 FROM billing.snapshot_dirty') }, 10, 'nothing is under way');
        kill 'STOP', $two->workers;
        my $lock = $world->db->dbi;
        $lock->begin_work;
        $lock->do('LOCK TABLE billing.snapshot_dirty IN EXCLUSIVE MODE');
        $number++;
        $lock->do(q{UPDATE billing.account_limits l SET amount = ? FROM billing.accounts a WHERE a.id = l.account_id AND a.external_id = 'watched'}, undef, $number);
        wait_for(sub { $world->sql(q{SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%publish_claim%'}) }, 10, 'it waits for its claim');
        kill 'STOP', $one->workers;
        $lock->commit;
        ok eval { wait_for(sub { $world->sql(q{SELECT 1 FROM billing.snapshot_dirty WHERE claimed_until > now()}) }, 10, 'claimed') }, 'a version is read, and not yet written';
        my $stamp = sub { (map { $_->{stamp} } $world->sql(q{SELECT billing.stamp_text(stamp) AS stamp FROM billing.account_snapshots WHERE account = 'watched'}))[0] };
        my $early = $stamp->();
        tick($world);
        my $late = $stamp->();
        kill 'CONT', $two->workers;
        ok eval { wait_for(sub { ($redis->()->hget($key, 'stamp') // '') eq $late }, 10, 'written') }, 'the next one is written by the other host';
        my ($mark) = map { $_->[0] } $redis->()->xrevrange('billing:changes', '+', '-', 'COUNT', 1);
        kill 'CONT', $one->workers;
        my $told = sub { grep { my %entry = $_->[1]->@*; ($entry{account} // '') eq 'watched' && $entry{stamp} eq $early } $redis->()->xrange('billing:changes', $mark, '+') };
        ok eval { wait_for($told, 10, 'told') }, 'then the first is told, too late';
        is $redis->()->hget($key, 'stamp'), $late, 'E2: what Redis holds does not go back';
        arrived($world, 'E2: nor what hosts hold');
    };

    subtest 'cut off' => sub {
        my @who = (Authorization => 'Bearer test:many-1');
        my $all = sub ($path, $status) { !grep { $_->get($path, @who)->status != $status } $one, $two };
        my $becomes = sub ($path, $status, $seconds, $what) {
            my $began = time;
            my $done = eval { wait_for(sub { $all->($path, $status) }, $seconds, $what) };
            ok $done, sprintf 'E4: %s: %d (%.1f s)', $what, $status, time - $began;
        };
        ok $all->($_, 200), "before: $_" for '/brief/x', '/kind/x';
        $world->redis->pause;
        $world->sql(q{UPDATE billing.accounts SET plan_no = (SELECT plan_no FROM billing.plans WHERE plan_key = 'free') WHERE external_id = 'many-1'});
        $becomes->('/brief/x', 403, 8, 'without Redis the change arrives when what is known is too old to decide');
        $world->redis->resume;
        $world->sql(q{UPDATE billing.accounts SET plan_no = (SELECT plan_no FROM billing.plans WHERE plan_key = 'agency') WHERE external_id = 'many-1'});
        $becomes->('/brief/x', 200, 8, 'with it, soon');
        $world->db->pause;
        $becomes->('/brief/x', 503, 15, 'without PostgreSQL the policy of the location decides');
        $becomes->('/kind/x', 200, 5, 'or lets through, where so configured');
        $world->redis->pause;
        $becomes->('/brief/x', 503, 5, 'without either, too');
        $_->resume for $world->redis, $world->db;
        $becomes->('/brief/x', 200, 20, 'all is well again');
        tick($world, 5);
        arrived($world, 'after it');
    };
    same_everywhere($world);
};

subtest 'S9: one host, no Redis' => sub {
    %committed = ();
    my $world = new_world(redis => 0);
    my $host = $world->host;
    my $observer = observe($host);
    tick($world, 30);
    arrived($world, 'in calm');
    my $seen = ask_observer($observer);
    went_forward('in calm', $seen, $observer);
    my @delays = delays($seen);
    note sprintf 'E3: from commit to the first answer that knows it: median %.0f ms, longest %.0f ms, of %d', map({ 1000 * $delays[$_] } $#delays / 2, -1), scalar @delays;
    cmp_ok $delays[$#delays / 2], '<', 0.25 * patience(), 'S5, E3: well under a second';
    my %ways = (
        'the host reloads' => sub { $host->reload },
        'a worker is killed' => sub { $host->kill9_worker(0); $world->may_forfeit(watched => $number / 8) },
        'PostgreSQL is restarted' => sub { $world->may_forfeit(watched => 2 * $number / 8); delete $world->{dbh}; $world->db->stop; $world->db->start },
    );
    for my $way (sort keys %ways) {
        my $watching = observe($host);
        tick($world, 6);
        $ways{$way}->();
        tick($world, 6);
        arrived($world, $way);
        my $told = ask_observer($watching);
        delete $told->{other} if $way =~ /killed|restarted/;    # requests in flight; while there are no units to be had
        went_forward($way, {other => {}, %$told}, $watching);
    }
};
done_testing;
