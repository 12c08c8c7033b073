# Promise (G11, G18): a location that makes things of a stock reserves their places before the application is asked, and its answer
# decides whether they are counted; one that removes them gives places back when they are gone. Never more than the limit, on any number
# of hosts, whoever dies in between; and after a downgrade nothing but a create is refused. Levels are read from PostgreSQL.
use v5.36;
use Billing::Process qw(new_directory wait_for);
use POSIX ();
use Billing::Test;

my $catalog = Billing::Test->sample_catalog;
$catalog->{stock} = {projects => {}, 'team-seats' => {}};
$catalog->{plans}{free}{stock} = {projects => 3, 'team-seats' => 1};
$catalog->{plans}{starter}{stock} = {projects => 4};
$catalog->{plans}{pro}{stock} = {projects => 10, 'team-seats' => 5};
$catalog->{plans}{agency}{stock} = {projects => undef, 'team-seats' => 50};
my $token = 'tok_' . join '', map { ('a' .. 'z', 0 .. 9)[rand 36] } 1 .. 32;
my $secret = new_directory() . '/token';
Billing::Nginx::write_file($secret, "$token\n");
chmod 0600, $secret;
my $world = world(hosts => 2, catalog => $catalog, stripe => 1, locations => <<'END' . "location /internal/ { billing_credits_api token=file:$secret; }");
    billing on;
    billing_account $user;
    location /create/ { billing_stock projects create; proxy_pass http://app; }
    location /two/ { billing_stock projects create 2; proxy_pass http://app; }
    location /seat/ { billing_stock team-seats create; proxy_pass http://app; }
    location /delete/ { billing_stock projects delete method=POST; proxy_pass http://app; }
    location /delete2/ { billing_stock projects delete 2 method=POST; proxy_pass http://app; }
    location /move/ { billing_stock projects delete method=POST; billing_stock team-seats create; proxy_pass http://app; }
    location /all/ { billing_quota requests; billing_credits logo 3; billing_stock projects create; billing_stock team-seats create; proxy_pass http://app; }
    location /dead/ { billing_stock projects create; proxy_pass http://127.0.0.1:1; }
    location /inner/ { billing_stock projects create; rewrite ^/inner/(.*)$ /create/$1 last; }
    location /mirror/ { mirror /shadow; billing_stock projects create; proxy_pass http://app; }
    location = /shadow { internal; billing_stock projects create 2; proxy_pass http://app; }
    location /moody/ { billing_paid_status 201; billing_stock projects create; proxy_pass http://app; }
    location /seen/ { billing observe; billing_stock projects create 5; proxy_pass http://app; }
    location /long/ { billing_recheck 1s; billing_stock projects create; proxy_pass http://app; }
    location /other/ { billing_quota requests; proxy_pass http://app; }
    location /page/ { billing_codes stock=409; billing_stock projects create; proxy_pass http://app; }
    location /items/ { billing_stock projects create method=POST method=PUT; billing_stock projects delete; proxy_pass http://app; }
    location /check/ { auth_request /may; proxy_pass http://app; }
    location = /may { billing_check; billing_stock projects create; }
    location /upgrade { billing_checkout; }
    location = /metrics { billing_metrics; }
END
my ($host, $other) = $world->hosts;
my $n = 0;
sub newcomer() { return 's' . ++$n }
sub as($account) { return (Authorization => "Bearer test:$account") }
sub level($account, $stock = 'projects') {
    my ($row) = $world->sql(q{SELECT current || '+' || reserved AS l FROM billing.stock_levels JOIN billing.stocks USING (stock_no)
        JOIN billing.accounts a ON a.id = account_id WHERE external_id = ? AND stock_key = ?}, $account, $stock);
    return $row ? $row->{l} : 'none';
}
sub held() { return ($world->sql('SELECT count(*) AS n FROM billing.stock_holds'))[0]{n} }
sub settles($account, $wanted, $what, $stock = 'projects') {
    ok eval { wait_for(sub { !held() && level($account, $stock) eq $wanted }, 10, $what) }, "$what: $wanted" or diag level($account, $stock), ' held ', held();
    return;
}
sub create($account, $times = 1) { return map { $host->post('/create/x', '', as($account))->status } 1 .. $times }

# --- what is counted and what is not
sub cell($what, $path, $status, $left) {
    my $account = newcomer();
    is $host->post($path, '', as($account))->status, $status, "$what: $status";
    settles($account, $left, $what);
    return $account;
}
cell('G11: a create', '/create/x', 200, '1+0');
cell('G11: of two at once', '/two/x', 200, '2+0');
cell('G11: a 5xx of the application', '/create/status/500', 500, '0+0');
cell('G11: a 4xx', '/create/status/409', 409, '0+0');
cell('an application that is not there', '/dead/x', 502, '0+0');
cell('an application that hangs up', '/create/abort', 502, '0+0');
cell('a redirect to a location that makes the same', '/inner/x', 200, '1+0');
cell('a mirror makes nothing', '/mirror/x', 200, '1+0');
cell('billing_paid_status: made', '/moody/status/201', 201, '1+0');
cell('not made', '/moody/status/200', 200, '0+0');
cell('a long answer, asked about again', '/long/slow/3', 200, '1+0');
cell('auth_request', '/check/x', 200, '1+0');
cell('of what fails', '/check/status/500', 500, '0+0');
my $options = newcomer();
is $host->get('/create/x', as($options))->status, 200, 'a GET makes nothing';
is $host->request('OPTIONS', '/create/x', headers => {as($options)})->status, 200, 'OPTIONS makes nothing';
is level($options), 'none', 'nothing at all';

# --- delete
my $a = newcomer();
is_deeply [create($a, 3)], [200, 200, 200], 'G11: three of three';
settles($a, '3+0', 'are there');
is $host->post('/delete/status/500', '', as($a))->status, 500, 'a delete that fails';
is $host->post('/create/x', '', as($a))->status, 402, 'G11: gives nothing back';
is $host->post('/delete/x', '', as($a))->status, 200, 'one that succeeds';
settles($a, '2+0', 'G11: does');
is $host->request($_, '/items/x', headers => {as($a)})->status, 200, $_ for qw(GET PATCH DELETE);
settles($a, '1+0', 'of which one removes');
is $host->request(PUT => '/items/x', headers => {as($a)})->status, 200, 'another';
settles($a, '2+0', 'is made');
is $other->post('/create/x', '', as($a))->status, 200, 'G11: its place may be used again, on any host';
$host->post('/delete2/x', '', as($a)) for 1 .. 2;
settles($a, '0+0', 'never below zero');
my $moved = newcomer();
create($moved, 2);
is $host->post('/move/x', '', as($moved))->status, 200, 'one is removed, another made';
settles($moved, '1+0', 'here');
is level($moved, 'team-seats'), '1+0', 'and there';
is $host->post('/move/x', '', as($moved))->status, 402, 'G18: where that cannot be made';
settles($moved, '1+0', 'G18: nothing is removed');

# --- clients that leave
sub leave($account, $path) {
    my $socket = $host->connect;
    print {$socket} "POST $path HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nAuthorization: Bearer test:$account\r\n\r\n";
    ok eval { wait_for(sub { $world->app->count($path) == 1 }, 10, 'asked') }, 'the application is asked';
    return close $socket;
}
my $gone = newcomer();
leave($gone, '/create/slow/3');
settles($gone, '1+0', 'what its client did not wait for may be there, and is counted');
leave($gone, '/move/slow/3');
settles($gone, '1+0', 'which is made', 'team-seats');
is level($gone), '1+0', 'G11: what may not have been removed is not given back';

# --- the refusal
my $full = newcomer();
create($full, 3);
my $refused = $host->post('/create/x', '', as($full));
is $refused->status, 402, 'G11: 402';
is_deeply $refused->json, {type => 'https://iana.org/assignments/http-problem-types#quota-exceeded', title => 'Limit reached', status => 402,
    detail => '1 projects needed, there are 3 of 3', error => 'Limit reached', code => 'LIMIT_PROJECTS', stock => 'projects', limit => 3, current => 3, remaining => 0,
    required => 1, plan => 'free', needsUpgrade => 1, requiredPlan => 'starter', upgradeUrl => $world->public_url . '/upgrade'}, 'G11, G19: the body says what there is and what would do';
is_deeply [$refused->header('RateLimit'), $refused->header('Retry-After')], [undef, undef], 'waiting does not help';
is $host->post('/two/x', '', as($full))->json->{requiredPlan}, 'pro', 'for two a higher plan';
$host->post('/seat/x', '', as($full));
is $host->post('/seat/x', '', as($full))->json->{code}, 'LIMIT_TEAM_SEATS', 'each stock by its name';
is $host->post('/page/x', '', as($full))->status, 409, 'billing_codes';
is $host->post('/seen/x', '', as($full))->status, 200, 'observed: let through';
is $host->get('/other/x', as($full))->status, 200, 'G11: whatever makes nothing goes on';
settles($full, '3+0', 'and nothing was counted');

# --- all or nothing
my $all = newcomer();
my $used = sub { ($world->sql(q{SELECT coalesce(sum(q.used), 0) AS used FROM billing.quota_periods q JOIN billing.accounts a ON a.id = account_id WHERE external_id = ?}, $all))[0]{used} };
my $logos = sub { ($world->sql(q{SELECT remaining FROM billing.credit_balances JOIN billing.credit_types USING (credit_no) JOIN billing.accounts a ON a.id = account_id
    WHERE external_id = ? AND credit_key = 'logo'}, $all))[0]{remaining} };
is $host->post('/all/x', '', as($all))->status, 200, 'G18: a quota, credits and two stocks';
is $host->post('/all/x', '', as($all))->json->{code}, 'LIMIT_TEAM_SEATS', 'G18: one of them is full';
settles($all, '1+0', 'G18: nothing of the other stock');
is $logos->(), 1, 'G18: no credits';
$world->must('account', 'set', $all, '--stock', 'team-seats=5');
is $host->post('/all/x', '', as($all))->json->{code}, 'INSUFFICIENT_CREDITS', 'G18: an exception takes effect at once; then credits are short';
settles($all, '1+0', 'G18: the places that were reserved are free');
is level($all, 'team-seats'), '1+0', 'of both';
ok eval { wait_for(sub { $used->() == 1 }, 10, 'reported') }, 'G18: nor of the quota';

# --- the application knows better
sub stated($current) {
    my $answer = $host->request('POST', '/internal/stock', body => JSON::PP::encode_json({account => $full, stock => 'projects', current => $current}),
        headers => {'Content-Type' => 'application/json', Authorization => "Bearer $token"});
    return $answer->json;
}
is_deeply stated(2), {success => 1, current => 2, reserved => 0, limit => 3, remaining => 1}, 'G11, C15: the application states how many there are';
is $other->post('/create/x', '', as($full))->status, 200, 'so one more is made, on any host';
settles($full, '3+0', 'and counted');
is stated(undef)->{current}, 3, 'C15: told';
is stated(8)->{remaining}, 0, 'more than the limit may be there';
is $host->post('/create/x', '', as($full))->json->{current}, 8, 'G11: of which a refusal tells';

# --- the host's own account
my $metrics = $host->get('/metrics')->body;
my %count = $metrics =~ /^billing_stock_total\{state="(\w+)"\} (\d+)$/mg;
is $count{reserved}, $count{made} + $count{given_back}, 'O2: every place that was reserved was used or given back';
is $count{removed}, 5, 'O2: deletes' or diag $metrics;
like $metrics, qr/^billing_decisions_total\{decision="deny",reason="stock"\} [1-9]/m, 'O2: refusals';

# --- many at once, on two hosts
my $crowd = newcomer();
create($crowd);
$world->must('account', 'set', $crowd, '--plan', 'pro');
my %status;
my @children = map {
    my $one = $_;
    pipe my $from, my $to;
    my $pid = fork // die;
    if (!$pid) {
        my @told = map { ($one % 2 ? $host : $other)->post('/create/x', '', as($crowd))->status } 1 .. 3;
        print {$to} "@told";
        close $to;
        POSIX::_exit(0);
    }
    close $to;
    [$pid, $from];
} 1 .. 10;
for my $child (@children) {
    my $told = do { local $/; readline $child->[1] };
    waitpid $child->[0], 0;
    $status{$_}++ for split ' ', $told;
}
is_deeply \%status, {200 => 9, 402 => 21}, 'G11: of thirty creates nine find the nine places that are left';
settles($crowd, '10+0', 'G11: ten are there');

# --- a downgrade
$world->must('account', 'set', $crowd, '--plan', 'free');
my $below;
ok eval { wait_for(sub { ($below = $host->post('/create/x', '', as($crowd)))->json->{plan} eq 'free' }, 10, 'downgraded') }, 'a downgrade';
is_deeply [$below->status, $below->json->@{qw(limit current remaining required requiredPlan)}], [402, 3, 10, 0, 1, 'agency'], 'G11: refuses creates, and says how many there are';
is $host->get('/other/x', as($crowd))->status, 200, 'G11: and nothing else';
is level($crowd), '10+0', 'G11: nothing is deleted';
is $host->post('/delete2/x', '', as($crowd))->status, 200, 'G11: deletes are counted above the limit';
settles($crowd, '8+0', 'all the same');

# --- who dies
my $victim = newcomer();
my $socket = $host->connect;
print {$socket} "POST /two/slow/6 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nAuthorization: Bearer test:$victim\r\n\r\n";
ok eval { wait_for(sub { level($victim) eq '0+2' }, 10, 'reserved') }, 'while the application works, places are reserved';
is $other->post('/two/x', '', as($victim))->status, 402, 'G11: which count';
$host->kill9_workers;
ok eval { wait_for(sub { $host->post('/create/x', '', as($victim))->status == 200 }, 20, 'new workers') }, 'its worker is killed; others come';
$world->sql(q{UPDATE billing.stock_holds SET expires_at = now() RETURNING 1});
settles($victim, '1+0', 'G11: what nobody told of is free when its time is over');

# --- PostgreSQL away
my $cut = newcomer();
is_deeply [create($cut, 2)], [200, 200], 'all is well';
settles($cut, '2+0', 'two');
$world->db->pause;
is $host->post('/create/x', '', as($cut))->status, 503, 'without PostgreSQL nothing is made, and nobody is told of a limit';
is $host->post('/delete/x', '', as($cut))->status, 200, 'G11: what is removed is removed';
$world->db->resume;
ok eval { wait_for(sub { $host->post('/create/status/500', '', as($cut))->status == 500 }, 20, 'back') }, 'it is back';
settles($cut, '1+0', 'G11: and is told of it');

done_testing;
