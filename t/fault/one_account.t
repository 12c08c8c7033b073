# One account never holds up another: whatever is wrong with the one, in Redis or in PostgreSQL, the changes and requests of the other
# go on; and a host that has missed entries of the change stream does not go on as if nothing had been. V2, V3, I1; A44, E4.
use v5.36;
use Billing::Test;

my $world = world(hosts => 2, locations => <<'END');
    billing on;
    billing_account $user;
    location /f/ { billing_feature svg_export; proxy_pass http://app; }
    location /api/ { billing_quota requests; proxy_pass http://app; }
    location /x/ { proxy_pass http://app; }
END
my ($one, $two) = $world->hosts;
sub as($account) { (Authorization => "Bearer test:$account") }
sub everywhere($status, $account, $what, $path = '/f/x') {
    my $done = eval { wait_for(sub { !grep { $_->get($path, as($account))->status != $status } $one, $two }, 5, $what) };
    ok $done, $what;
    return;
}
for my $account (qw(good bad)) {
    is $one->get('/x/x', as($account))->status, 200, "$account comes into being";
    $world->must('account', 'set', $account, '--plan', 'pro');
    everywhere(200, $account, "$account is on pro");
}

subtest 'a key of another type in Redis' => sub {
    $world->redis->client->set('billing:account:{bad}', 'x');
    $world->sql(q{UPDATE billing.accounts SET plan_no = (SELECT plan_no FROM billing.plans WHERE plan_key = 'free')});
    everywhere(403, 'good', 'the other account follows');
    everywhere(403, 'bad', 'and so does this one, by the stream');
    my ($told) = grep { $_ } map { $_->log_lines(qr/\[error\].*Redis refuses billing:account:\{bad\}: WRONGTYPE/) } $one, $two;
    ok $told, 'the trouble is told';
};

subtest 'a row that somebody holds' => sub {
    $world->must('account', 'set', $_, '--plan', 'pro', '--limit', 'requests=100') for qw(good bad);
    everywhere(200, $_, "$_ spends", '/api/x') for qw(good bad);
    my $holder = $world->db->dbi;
    $holder->begin_work;
    $holder->do(q{SELECT 1 FROM billing.quota_periods q JOIN billing.accounts a ON a.id = q.account_id WHERE a.external_id = 'bad' FOR UPDATE});
    my @waiting = map { my $socket = $one->connect; print $socket "GET /api/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        . "Authorization: Bearer test:bad\r\n\r\n"; $socket } 1 .. 10;
    my @answers = $one->get_many(20, 4, '/api/x', as('good'));
    is grep({ $_->status == 200 } @answers), 20, 'the other account passes meanwhile';
    my @bad = map { local $/; <$_> // '' } @waiting;
    is grep({ /^HTTP\/1.1 503/ } @bad), 10, 'this one is answered, not kept';
    my ($sessions) = map { $_->{n} } $world->sql(q{SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock'});
    cmp_ok $sessions, '<=', 4, 'and no sessions pile up';
    $holder->rollback;
    everywhere(200, 'bad', 'when it is let go, it passes', '/api/x');
};

subtest 'a host that missed entries of the stream' => sub {
    everywhere(200, 'good', 'the account is known to both hosts', '/f/x');
    $two->pause;
    $world->must('account', 'set', 'good', '--plan', 'free');
    wait_for(sub { $one->get('/f/x', as('good'))->status == 403 }, 5, 'the first host follows');
    $world->redis->client->xtrim('billing:changes', 'MAXLEN', 1);
    $two->resume;
    my $done = eval { wait_for(sub { $two->get('/f/x', as('good'))->status == 403 }, 5, 'the second notices') };
    ok $done, 'the second host notices the gap and asks anew';
};

subtest 'nonsense in the keys of the stream' => sub {
    $world->redis->client->set('billing:life', 'x');
    $world->must('account', 'set', 'good', '--plan', 'pro');
    everywhere(200, 'good', 'changes arrive with a short mark');
    $world->redis->client->xadd('billing:changes', '*', 'kind', 'catalog', 'stamp', 'ffffffffffffffff', 'body', 'garbage');
    $world->redis->client->xadd('billing:changes', '*', 'kind', 'account', 'account', 'good', 'stamp', 'x', 'body', '{}');
    $world->must('account', 'set', 'good', '--plan', 'free');
    everywhere(403, 'good', 'and behind entries that are none');
};

# A44. What is well formed but comes from nobody: stamps of an epoch that PostgreSQL never had, or far ahead of it, would decide
# until PostgreSQL caught up, which is never.
subtest 'stamps that PostgreSQL never gave' => sub {
    my $redis = $world->redis->client;
    my ($pro, $free) = map { my $key = $_; map { $_->{plan_no} } $world->sql('SELECT plan_no FROM billing.plans WHERE plan_key = ?', $key) } qw(pro free);
    my $forged = sub ($account, $change) {
        my ($row) = $world->sql('SELECT stamp, body FROM billing.snapshots(ARRAY[?], false)', $account);
        my $stamp = sprintf '%016x', $change->($row->{stamp});
        my $body = $row->{body} =~ s/"stamp":"\w+"/"stamp":"$stamp"/r =~ s/"plan":\d+/"plan":$pro/r;
        return (account => $account, stamp => $stamp, body => $body);
    };
    my %ways = (
        'of an epoch to come' => sub ($stamp) { $stamp + (7 << 40) },
        'of the last epoch that a stamp can have' => sub ($stamp) { (0x7fffff << 40) | 1 },
        'a thousand million changes ahead' => sub ($stamp) { $stamp + (1 << 30) },
    );
    for my $way (sort keys %ways) {
        everywhere(403, 'good', "$way: before");
        $redis->xadd('billing:changes', '*', 'kind', 'account', $forged->('good', $ways{$way}));
        # What stands behind it in the stream has been followed, so it has, too.
        $world->must('account', 'set', 'bad', '--plan', 'pro');
        everywhere(200, 'bad', "$way: what comes after it arrives");
        everywhere(403, 'good', "$way: A44: it does not decide");
        $world->must('account', 'set', 'good', '--plan', 'pro');
        everywhere(200, 'good', "$way: the next change does");
        $world->must('account', 'set', $_, '--plan', 'free') for qw(good bad);
        everywhere(403, $_, "$way: and the one after it") for qw(good bad);
    }

    # In the cache, for an account that no host holds: not published, so that it is not in the stream either.
    $world->sql(q{SELECT billing.ensure_accounts('{cold}')});
    wait_for(sub { $redis->hexists('billing:account:{cold}', 'run') }, 5, 'Redis has it');
    for my $host ($one, $two) {
        is $host->{process}->stop('QUIT', 20), 0, 'a host forgets what it holds';
        $host->start;
    }
    my %fields = $forged->('cold', $ways{'of an epoch to come'});
    $redis->hset('billing:account:{cold}', 'stamp', $fields{stamp}, 'body', $fields{body});
    everywhere(403, 'cold', 'A44: nor does the cache');

    my ($document) = map { $_->{d} } $world->sql('SELECT billing.catalog_document() AS d');
    my $stamp = sprintf '%016x', 9 << 40;
    $redis->xadd('billing:changes', '*', 'kind', 'catalog', 'stamp', $stamp, 'body',
        $document =~ s/"stamp":"\w+"/"stamp":"$stamp"/r =~ s/("no":$free,.*?"features":)\[[^]]*\]/$1\[0,1,2,3,4,5,6,7\]/r);
    $world->must('account', 'set', 'bad', '--plan', 'pro');
    everywhere(200, 'bad', 'what comes after a forged catalog arrives');
    everywhere(403, 'good', 'A44: the catalog does not decide');
    my $catalog = $world->sample_catalog;
    push $catalog->{plans}{free}{features}->@*, 'svg_export';
    $world->apply_catalog($catalog);
    everywhere(200, 'good', 'the true one does');
};
done_testing;
