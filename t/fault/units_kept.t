# Units served <= units issued <= cap, and every unit accounted for, whatever dies: workers, Redis, PostgreSQL, a whole host; under
# reloads; with two hosts drawing from one quota at once. G10, S6; Q1 of the invariants; P7 in small.
use v5.36;
use Billing::Test;

my $cap = 2000;
my @demo = (Authorization => 'Bearer demo-token');

sub new_world() {
    my $world = world(hosts => 2, locations => <<'END');
    billing on;
    billing_account $user;
    location /api/ { billing_quota requests; proxy_pass http://app; }
    location /dear/ { billing_quota requests cost=7; proxy_pass http://app; }
END
    is $world->host->get('/api/x', @demo)->status, 200, 'the account';
    $world->must('account', 'set', 'demo', '--limit', "requests=$cap");
    wait_for(sub { ($world->host(0)->get('/api/x', @demo)->header('RateLimit-Policy') // '') =~ /q=$cap/ }, 5, 'the cap');
    return $world;
}

sub row($world) {
    return ($world->sql(q{SELECT q.cap, q.issued, q.used FROM billing.quota_periods q JOIN billing.accounts a ON a.id = q.account_id
        WHERE a.external_id = 'demo'}))[0];
}

# Spends on both hosts until both refuse everything; $fault->($round) happens between the bursts.
sub spend_all($world, $fault) {
    my ($unknown, $round, $quiet) = (0, 0, 0);
    my $served = $world->app->count; # by new_world
    until ($quiet >= 3 || $round > 200) {
        my @answers = map { $world->host($_)->get_many(60, 6, '/api/x', @demo) } 0, 1;
        $served += grep { $_->status == 200 } @answers;
        $unknown += grep { $_->status == 0 || $_->status >= 500 } @answers;
        $quiet = (grep { $_->status == 402 } @answers) == @answers ? $quiet + 1 : 0;
        $fault->(++$round);
    }
    my $row = row($world);
    cmp_ok $served, '<=', $cap, "no more than $cap are served ($served)";
    cmp_ok $row->{issued}, '<=', $cap, "no more than $cap are issued ($row->{issued})";
    cmp_ok $world->app->count('/api/x'), '<=', $cap, 'and no more have reached the application';
    return ($served, $unknown);
}

subtest 'nothing dies' => sub {
    my $world = new_world();
    my ($served, $unknown) = spend_all($world, sub ($round) { });
    is $unknown, 0, 'every request is answered';
    is $served, $cap, 'every unit of the cap is served';
    wait_for(sub { row($world)->{used} == $cap }, 5, 'all usage is reported');
    is_deeply row($world), {cap => $cap, issued => $cap, used => $cap}, 'issued = used = cap: all accounted for';
};

subtest 'workers die' => sub {
    my $world = new_world();
    my ($served) = spend_all($world, sub ($round) { $world->host($round % 2)->kill9_worker($round % 2) if $round < 12 && $round % 3 == 0 });
    my $row = wait_for(sub { my $row = row($world); $row->{used} >= $served && $row }, 5, 'all usage is reported');
    cmp_ok $row->{used}, '<=', $row->{issued}, 'used <= issued';
    $world->may_forfeit(demo => 4 * 6);
    cmp_ok $cap - $served, '<=', 4 * 6, sprintf 'at most the requests in flight are lost with a worker (%d)', $cap - $served;
};

subtest 'Redis dies and forgets' => sub {
    my $world = new_world();
    my ($served) = spend_all($world, sub ($round) {
        $world->redis->restart if $round == 2 || $round == 5;
        $world->redis->flushall if $round == 4;
    });
    is $served, $cap, 'not one unit is lost or doubled';
    wait_for(sub { row($world)->{used} == $cap }, 10, 'all accounted for');
    pass 'all accounted for';
    $world->must('account', 'set', 'demo', '--limit', 'requests=' . ($cap + 10));
    wait_for(sub { $world->host($_)->get('/api/x', @demo)->status == 200 }, 5, 'changes arrive') for 0, 1;
    pass 'and changes reach both hosts again';
};

subtest 'PostgreSQL dies' => sub {
    my $world = new_world();
    my ($served) = spend_all($world, sub ($round) {
        return if $round != 2 && $round != 5;
        $world->db->kill9;
        $world->db->start;
        wait_for(sub { $world->host($_)->get('/dear/x', Authorization => 'Bearer test:other')->status != 503 }, 20, 'PostgreSQL answers again') for 0, 1;
    });
    $world->may_forfeit(demo => 2 * $cap / 8);
    cmp_ok $cap - $served, '<=', 2 * $cap / 8, sprintf 'at most a take is lost with each answer (%d)', $cap - $served;
    my $row = wait_for(sub { my $row = row($world); $row->{used} >= $served && $row }, 10, 'all usage is reported');
    cmp_ok $row->{used}, '<=', $row->{issued}, 'used <= issued';
};

subtest 'reloads' => sub {
    my $world = new_world();
    my ($served, $unknown) = spend_all($world, sub ($round) { $world->host($round % 2)->reload if $round < 9 });
    is $unknown, 0, 'every request is answered';
    is $served, $cap, 'not one unit is lost or doubled';
    wait_for(sub { row($world)->{used} == $cap }, 10, 'all accounted for');
    pass 'all accounted for';
};

subtest 'a host dies' => sub {
    my $world = new_world();
    $world->host(1)->expect_log(qr/\[(?:alert|notice)\]/);
    my ($served) = spend_all($world, sub ($round) {
        return if $round != 3;
        $world->host(1)->kill9;
        $world->host(1)->start;
    });
    # Far from the limit a worker takes at most an eighth of what remains; the host held one take of each worker at most.
    $world->may_forfeit(demo => 2 * $cap / 8);
    cmp_ok $cap - $served, '<=', 2 * $cap / 8, sprintf 'at most what the host held is lost (%d)', $cap - $served;
};

subtest 'dear requests near the end' => sub {
    my $world = new_world();
    $world->must('account', 'set', 'demo', '--limit', 'requests=30');
    wait_for(sub { ($world->host(0)->get('/api/x', @demo)->header('RateLimit-Policy') // '') =~ /q=30/ }, 5, 'the cap');
    my $used = $world->app->count;
    my @dear = map { $world->host($_ % 2)->get('/dear/x', @demo)->status } 1 .. 6;
    my $left = 30 - $used - 7 * grep { $_ == 200 } @dear;
    cmp_ok $left, '<', 7, 'seven more do not fit';
    my @cheap = map { $world->host($_ % 2)->get('/api/x', @demo)->status } 1 .. $left + 2;
    is_deeply \@cheap, [(200) x $left, 402, 402], "the $left that are left serve cheaper requests";
};

done_testing;
