# Promise: a location that costs credits takes them exactly, durably, before the application is asked, and what its client gets in the
# end decides whether they are kept: G12, G13, G18, K1-K5; whoever dies in between, and whatever cannot be reached. Balances are read
# from PostgreSQL.
use v5.36;
use Billing::Process qw(patience wait_for);
use Billing::Test;
use Time::HiRes qw(time);

my $catalog = Billing::Test->sample_catalog;
$catalog->{plans}{free}{credits} = {logo => 10, mockup => 4};
my $world = world(hosts => 2, catalog => $catalog, stripe => 1, locations => <<'END');
    billing on;
    billing_account $user;
    location /logo/ { billing_credits logo 2; proxy_pass http://app; }
    location /dear/ { billing_credits logo 11; proxy_pass http://app; }
    location /video/ { billing_credits video 1; proxy_pass http://app; }
    location /any/ { billing_credits logo $arg_n; proxy_pass http://app; }
    location /both/ { billing_quota requests; billing_credits logo 3; billing_credits mockup 2; proxy_pass http://app; }
    location /dead/ { billing_credits logo 2; proxy_pass http://127.0.0.1:1; }
    location /inner/ { billing_credits logo 2; rewrite ^/inner/(.*)$ /logo/$1 last; }
    location /more/ { billing_credits logo 1; error_page 418 = @more; proxy_intercept_errors on; proxy_pass http://app; }
    location @more { billing_credits logo 3; rewrite ^ /ok break; proxy_pass http://app; }
    location /includes/ { ssi on; ssi_types *; return 200 '<!--# include virtual="/logo/a" --><!--# include virtual="/logo/b" -->'; }
    location /ssi/ { ssi on; ssi_types application/json; billing_credits logo 1; proxy_pass http://app; }
    location /mirror/ { mirror /shadow; billing_credits logo 2; proxy_pass http://app; }
    location = /shadow { internal; billing_credits logo 5; proxy_pass http://app; }
    location /check/ { billing_credits logo 2; billing_check; }
    location /seen/ { billing observe; billing_credits logo 11; proxy_pass http://app; }
    location /page/ { billing_credits logo 11; error_page 402 = @page; proxy_pass http://app; }
    location @page { billing off; rewrite ^ /sorry break; proxy_pass http://app; }
    location /upgrade { billing_checkout; }
    location /worth/ { billing_credits logo 3 settle=$upstream_http_x_billing_cost max=8; proxy_pass http://app; }
    location /tokens/ { billing_quota requests cost=5 settle=$upstream_http_x_billing_cost max=1000; proxy_pass http://app; }
    location /led/ { billing_credits logo 4; billing_quota requests cost=4; error_page 418 = @led; proxy_intercept_errors on; proxy_pass http://app; }
    location @led { set $who $http_x_other; billing_account $who; billing_credits logo 4 settle=$http_x_use; billing_quota requests cost=4 settle=$http_x_use; rewrite ^ /ok break; proxy_pass http://app; }
    location /moody/ { billing_paid_status 2xx 404; billing_credits logo 2; proxy_pass http://app; }
END
my ($host, $other) = $world->hosts;
my $n = 0;
my @who;
sub newcomer() { push @who, 'u' . ++$n; return $who[-1] }
sub as($account) { return (Authorization => "Bearer test:$account") }
sub balance($account, $type = 'logo') {
    my ($row) = $world->sql(q{SELECT remaining || '/' || used AS b FROM billing.credit_balances JOIN billing.credit_types USING (credit_no)
        JOIN billing.accounts a ON a.id = account_id WHERE external_id = ? AND credit_key = ?}, $account, $type);
    return $row ? $row->{b} : 'none';
}
sub held() { return ($world->sql('SELECT count(*) AS n FROM billing.credit_holds'))[0]{n} }
sub settles($account, $wanted, $what, $type = 'logo') {
    ok eval { wait_for(sub { !held() && balance($account, $type) eq $wanted }, 10, $what) }, "$what: $wanted" or diag balance($account, $type), ' held ', held();
    return;
}

# --- what is kept and what is not
sub cell($what, $method, $path, $status, $left, %option) {
    my $account = newcomer();
    my $answer = $host->request($method, $path, headers => {as($account)}, %option);
    is $answer->status, $status, "$what: $status" or diag $answer->body;
    settles($account, $left, $what);
    return $answer;
}
cell('G12: a success', GET => '/logo/x', 200, '8/2');
cell('POST', POST => '/logo/x', 200, '8/2', body => 'a');
cell('G13: a 5xx of the application', GET => '/logo/status/500', 500, '10/0');
cell('G13: a 4xx of the application', GET => '/logo/status/404', 404, '10/0');
cell('a redirect of the application', GET => '/logo/status/302', 302, '8/2');
cell('G13: an application that is not there', GET => '/dead/x', 502, '10/0');
cell('G13: an application that hangs up', GET => '/logo/abort', 502, '10/0');
cell('units from a variable', GET => '/any/x?n=7', 200, '3/7');
cell('a redirect to a location that costs the same', GET => '/inner/x', 200, '8/2');
cell('an error page that is dearer takes the difference', GET => '/more/status/418', 200, '7/3');
cell('two includes of what costs the same pay once', GET => '/includes/x', 200, '8/2');
cell('a mirror takes nothing', GET => '/mirror/x', 200, '8/2');
cell('billing_check, for another proxy', GET => '/check/x', 200, '8/2');
cell('observed, and let through without', GET => '/seen/x', 200, '10/0');
cell('a refusal with a page of its own', GET => '/page/x', 200, '10/0');
cell('billing_paid_status: a 404 is paid for', GET => '/moody/status/404', 404, '8/2');
cell('a 302 is not', GET => '/moody/status/302', 302, '10/0');
cell('G14: the application says that it was less', GET => '/worth/x?used=1', 200, '9/1');
cell('G14: nothing at all', GET => '/worth/x?used=0', 200, '10/0');
cell('G14: more', GET => '/worth/x?used=7', 200, '3/7');
cell('G14: more than can be believed', GET => '/worth/x?used=9', 200, '2/8');
cell('G14: nothing is said', GET => '/worth/x', 200, '7/3');
cell("G14: what is no number ($_)", GET => "/worth/x?used=$_", 200, '7/3') for '%2B5', '1e3', '-1', '9223372036854775808', '1&used=1';
cell('G14: of what failed nothing is charged', GET => '/worth/status/500?used=2', 500, '10/0');
$_->expect_log(qr/the use of (?:logo|requests) was reported/) for $host;
for my $wrong ('', 0, -1, '1e3', '9999999') {
    my $account = newcomer();
    is $host->get("/any/x?n=$wrong", as($account))->status, 400, "units \"$wrong\" are none";
}
my $meagre = newcomer();
is $host->get('/any/x?n=9', as($meagre))->status, 200, 'one unit is left';
my $page = $host->get('/includes/x', as($meagre))->body;
is scalar(() = $page =~ /"code":"INSUFFICIENT_CREDITS"/g), 2, 'K1: of two includes that cost two neither is let through' or diag $page;
my $options = newcomer();
is $host->request('OPTIONS', '/logo/x', headers => {as($options)})->status, 200, 'OPTIONS takes nothing';
is balance($options), 'none', 'and makes no account';

# --- the refusal
my $short = $host->get('/dear/x', as('poor'));
is $short->status, 402, 'G12: 402';
is_deeply $short->json, {type => 'https://iana.org/assignments/http-problem-types#quota-exceeded', title => 'Insufficient credits', status => 402,
    detail => '11 logo credits needed, 10 left', error => 'Insufficient credits', code => 'INSUFFICIENT_CREDITS', creditType => 'logo', remaining => 10,
    required => 11, limit => 10, plan => 'free', needsUpgrade => 1, requiredPlan => 'starter',
    upgradeUrl => $world->public_url . '/upgrade'}, 'G12, G19: the body says what is missing and where to get it';
is $short->header('RateLimit'), undef, 'no quota is told of';
is $host->get('/video/x', as('poor'))->json->{requiredPlan}, 'pro', 'the plan that would do gives enough of the type';
is balance('poor'), '10/0', 'K5: nothing was taken';

# --- all or nothing, beside a quota
my $used = sub ($account) { ($world->sql(q{SELECT coalesce(sum(q.used), 0) AS used FROM billing.quota_periods q JOIN billing.accounts a ON a.id = account_id WHERE external_id = ?}, $account))[0]{used} };
my ($from, $to) = (newcomer(), newcomer());
is $host->get('/led/status/418', as($from), 'X-Other' => $to, 'X-Use' => 6)->status, 200, 'led to another account';
settles($from, '6/4', 'what the first has paid stays');
settles($to, '4/6', 'G14, U3: the report is about the one that it has been led to');
ok eval { wait_for(sub { $used->($from) == 4 && $used->($to) == 6 }, 10, 'used') }, 'of quotas, too' or diag $used->($from), ' ', $used->($to);
my $both = newcomer();
is $host->get('/both/x', as($both))->status, 200, 'G18: a quota and two types';
is $host->get('/both/x', as($both))->status, 200, 'again';
my $third = $host->get('/both/x', as($both));
is $third->status, 402, 'G18: then one of them is short';
is $third->json->{creditType}, 'mockup', 'it is named';
settles($both, '4/6', 'G18: nothing of the other is taken');
is balance($both, 'mockup'), '0/4', 'nor of it';
ok eval { wait_for(sub { $used->($both) == 2 }, 10, 'reported') }, 'G18: nor of the quota';

# --- G14 for quotas: tokens of a language model, say
my $model = newcomer();
my $units = 0;
for my $case (['?used=2', 2], ['', 5], ['?used=0', 0], ['?used=18', 18], ['?used=1000', 1000], ['?used=+1', 5]) {
    is $host->get("/tokens/x$case->[0]", as($model))->status, $units >= 20 ? 402 : 200, "G14: tokens $case->[0] at $units of 20";
    $units += $units >= 20 ? 0 : $case->[1];
    ok eval { wait_for(sub { $used->($model) == $units }, 10, 'reported') }, "G14: $units by now" or diag $used->($model);
}

# --- many at once, on two hosts: exactly as many as there are
my $crowd = newcomer();
is $host->get('/any/x?n=1', as($crowd))->status, 200, 'nine are left';
my %status;
my @children = map {
    my $one = $_;
    pipe my $from, my $to;
    my $pid = fork // die;
    if (!$pid) {
        my @told = map { ($one % 2 ? $host : $other)->get('/logo/x', as($crowd))->status } 1 .. 3;
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
is_deeply \%status, {200 => 4, 402 => 26}, 'K1: of thirty requests for two units each four get theirs from nine';
settles($crowd, '1/9', 'K1: and one unit is left');

# --- who goes away, and who dies
my $gone = newcomer();
my $socket = $host->connect;
print {$socket} "GET /logo/slow/3 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer test:$gone\r\n\r\n";
ok eval { wait_for(sub { balance($gone) eq '8/2' && held() == 1 }, 10, 'taken') }, 'while the application works, the units are held';
close $socket;
settles($gone, '8/2', 'a client that leaves when the application is at work pays');

my $victim = newcomer();
$socket = $host->connect;
print {$socket} "GET /logo/slow/6 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer test:$victim\r\n\r\n";
ok eval { wait_for(sub { held() == 1 }, 10, 'taken') }, 'taken';
$host->kill9_workers;
ok eval { wait_for(sub { $host->get('/logo/x', as($victim))->status == 200 }, 20, 'new workers') }, 'its worker is killed; others come';
is balance($victim), '6/4', 'what it held is held still';
$world->sql(q{UPDATE billing.credit_holds SET expires_at = now() RETURNING 1});
settles($victim, '8/2', 'G13, K4: and goes back when its time is over, once');

# --- somebody holds the balance, as a payment does that is being written down
my $paying = newcomer();
is $host->get('/logo/x', as($paying))->status, 200, 'all is well';
settles($paying, '8/2', 'before');
my $lock = $world->db->dbi;
$lock->begin_work;
$lock->do(q{SELECT 1 FROM billing.credit_balances b JOIN billing.accounts a ON a.id = b.account_id WHERE external_id = $1 FOR UPDATE OF b}, undef, $paying);
pipe my $said, my $say;
my $asker = fork // die;
if (!$asker) {
    print {$say} $host->get('/logo/x', as($paying))->status;
    close $say;
    POSIX::_exit(0);
}
close $say;
ok eval { wait_for(sub { $world->db->log =~ /canceling statement due to lock timeout/ }, 10, 'it has been waited for') }, 'for longer than others should wait';
$lock->rollback;
is scalar(readline $said), 200, 'K5: the request waits on, and is let through';
waitpid $asker, 0;

# --- PostgreSQL away
my $cut = newcomer();
is $host->get('/logo/x', as($cut))->status, 200, 'all is well';
$world->db->pause;
my $begun = time;
my $away = $host->get('/logo/x', as($cut));
is $away->status, 503, 'K5: without PostgreSQL nobody is told that there are no credits';
cmp_ok time - $begun, '<', 20 * patience(), 'soon enough';
is $away->header('Retry-After'), 1, 'and may ask again';
$world->db->resume;
ok eval { wait_for(sub { $host->get('/logo/x', as($cut))->status == 200 }, 20, 'back') }, 'it is back';
settles($cut, '6/4', 'what came too late was never taken, or given back');

# Its connections end in the midst of things; what is unknown is asked for again by its name.
my $broken = newcomer();
my $answers = 0;
for (1 .. 5) {
    my $again = $host->get('/any/x?n=1', as($broken));
    $answers++ if $again->status == 200;
    $world->sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'}) if $_ % 2;
}
settles($broken, 10 - $answers . "/$answers", 'K4: whoever got an answer paid, whoever did not did not');


done_testing;
