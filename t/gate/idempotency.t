# Promise (G17): of an account's requests to one route that carry the same Idempotency-Key one is charged, however often and to whichever
# host they are sent; while it is under way others are told so, and once it came to nothing the key is free. Charges are read from
# PostgreSQL.
use v5.36;
use Billing::Process qw(patience wait_for);
use Billing::Test;
use POSIX ();

my $catalog = Billing::Test->sample_catalog;
$catalog->{plans}{free}{credits} = {logo => 10};
$catalog->{plans}{free}{stock} = {brands => 2};
my $world = world(hosts => 2, catalog => $catalog, stripe => 1, locations => <<'END');
    billing on;
    billing_account $user;
    billing_idempotency_key $http_idempotency_key;
    location /logo/ { client_max_body_size 4m; billing_credits logo 2; proxy_pass http://app; }
    location /quota/ { billing_quota requests; proxy_pass http://app; }
    location /both/ { billing_quota requests; billing_credits logo 3; proxy_pass http://app; }
    location /brand/ { billing_stock brands create; proxy_pass http://app; }
    location /dear/ { billing_credits logo 11; proxy_pass http://app; }
    location /inner/ { rewrite ^/inner/(.*)$ /logo/$1 last; }
    location /other/ { billing_credits logo 2; billing_idempotency_key off; proxy_pass http://app; }
    location /seen/ { billing observe; billing_credits logo 11; proxy_pass http://app; }
    location /short/ { billing_idempotency_key $arg_key window=1s; billing_credits logo 2; proxy_pass http://app; }
    location /parts/ { ssi on; ssi_types *; return 200 '<!--# include virtual="/logo/a" --><!--# include virtual="/logo/b" -->'; }
    location /codes/ { billing_codes key_outstanding=425 key_misused=400; billing_credits logo 2; proxy_pass http://app; }
    location /fails/ { billing_credits logo 2; proxy_intercept_errors on; error_page 500 = @dearer; proxy_pass http://app; }
    location @dearer { billing_credits logo 3; billing_paid_status 500; proxy_pass http://app; }
    location /cost/ { billing_credits logo $http_x_units; proxy_pass http://app; }
    location = /check { billing_credits logo 2; billing_check; }
    location /small/ { client_max_body_size 10; billing_credits logo 2; proxy_pass http://app; }
END
my ($host, $other) = $world->hosts;
my $n = 0;
sub newcomer() { return 'k' . ++$n }
sub as($account, $key) { return (Authorization => "Bearer test:$account", defined $key ? ('Idempotency-Key' => $key) : ()) }
sub balance($account) {
    my ($row) = $world->sql(q{SELECT remaining || '/' || used AS b FROM billing.credit_balances JOIN billing.credit_types USING (credit_no)
        JOIN billing.accounts a ON a.id = account_id WHERE external_id = ? AND credit_key = 'logo'}, $account);
    return $row ? $row->{b} : 'none';
}
sub open_keys() { return ($world->sql(q{SELECT (SELECT count(*) FROM billing.idempotency_keys WHERE NOT done) + (SELECT count(*) FROM billing.credit_holds) AS n}))[0]{n} }
sub settles($account, $wanted, $what) {
    ok eval { wait_for(sub { !open_keys() && balance($account) eq $wanted }, 10, $what) }, "$what: $wanted" or diag balance($account), ' open ', open_keys();
    return;
}
sub post($on, $account, $key, $path, $body = '{"a":1}') { return $on->post($path, $body, as($account, $key), 'Content-Type' => 'application/json') }

# --- once, wherever it is repeated
my $one = newcomer();
my $first = post($host, $one, 'key-1', '/logo/x?n=1');
is $first->status, 200, 'G17: a request with a key';
is $first->json->{body}, '{"a":1}', 'the application gets its body';
settles($one, '8/2', 'G17: is charged');
is post($_, $one, 'key-1', '/logo/x?n=1')->status, 200, 'G17: repeated it is let through' for $host, $other, $host;
is $world->app->count('/logo/x'), 4, 'to the application, which knows what it has done';
settles($one, '8/2', 'G17: and charged no more');
is post($host, $one, undef, '/logo/x?n=1')->status, 200, 'without a key';
is post($host, $one, '', '/logo/x?n=1')->status, 200, 'or with an empty one';
settles($one, '4/6', 'each is charged');

# --- what makes it another request
my $misused = post($other, $one, 'key-1', '/logo/x?n=1', '{"a":2}');
is $misused->status, 422, 'G17: another body under the same key';
is $misused->header('Content-Type'), 'application/problem+json', 'G19: a problem document';
is $misused->json->{code}, 'IDEMPOTENCY_KEY_REUSED', 'which says why';
is post($host, $one, 'key-1', '/logo/x?n=2')->status, 422, 'another query';
is $host->post('/logo/x?n=1', '{"a":1}', as($one, 'key-1'), 'Content-Type' => 'text/plain')->status, 422, 'another type';
is post($host, $one, 'key-1', '/logo/y?n=1')->status, 200, 'G17: a key belongs to a route';
settles($one, '2/8', 'of another it is charged anew');
is $host->get('/logo/x?n=1', as($one, 'key-1'))->status, 200, 'and another method is another route';
settles($one, '0/10', 'charged anew');
my $two = newcomer();
is post($host, $two, 'key-1', '/logo/x?n=1')->status, 200, 'of another account';
settles($two, '8/2', 'it is charged to that one');
is post($host, $one, 'key-1', '/logo/x?n=1')->status, 200, 'G17: who has nothing left may repeat what is paid';
is post($host, $one, 'key-2', '/logo/x?n=1')->status, 402, 'and nothing else';
settles($one, '0/10', 'a refusal takes nothing');

# --- large bodies, on disk or in memory
my $large = newcomer();
for my $size (40_000, 2_000_000) {
    my $body = 'x' x $size;
    is post($host, $large, "large-$size", '/logo/big', $body)->status, 200, "a body of $size bytes";
    settles($large, 10 - 2 * (1 + ($size > 40_000)) . '/' . 2 * (1 + ($size > 40_000)), 'is charged');
    is post($other, $large, "large-$size", '/logo/big', $body)->status, 200, 'once';
    is post($other, $large, "large-$size", '/logo/big', $body . 'x')->status, 422, 'a longer one is another';
}
is post($other, $large, 'large-40000', '/logo/big', 'y' . 'x' x 39_999)->status, 422, 'and one that differs in a byte';
is post($other, $large, 'large-2000000', '/logo/big', 'x' x 1_999_999 . 'y')->status, 422, 'and so is one on disk that differs in its last byte';
is post($host, $large, 'too-large', '/small/x', 'x' x 11)->status, 413, 'what nginx does not take is not claimed';
settles($large, '6/4', 'nor charged');

# --- free again
my $free = newcomer();
is post($host, $free, 'f', '/logo/status/500')->status, 500, 'the application fails';
settles($free, '10/0', 'nothing is charged');
is post($other, $free, 'f', '/logo/status/500', 'anything else')->status, 500, 'G17: and the key is free';
settles($free, '10/0', 'again');
is post($host, $free, 'f', '/dear/x')->status, 402, 'a refused request';
ok eval { wait_for(sub { !($world->sql('SELECT count(*) AS n FROM billing.idempotency_keys k JOIN billing.accounts a ON a.id = account_id WHERE external_id = ?', $free))[0]{n} }, 10, 'freed') },
    'G17: frees its key';
is post($host, $free, 'f', '/seen/x')->status, 200, 'observed';
settles($free, '10/0', 'costs nothing, and claims nothing');

# --- while it is under way
my $slow = newcomer();
my $socket = $host->connect;
print {$socket} "POST /codes/slow/2 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer test:$slow\r\nIdempotency-Key: s\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
ok eval { wait_for(sub { balance($slow) eq '8/2' }, 10, 'taken') }, 'while the application works';
my $busy = post($other, $slow, 's', '/codes/slow/2');
is $busy->status, 425, 'G17: the same request elsewhere is told so, with the status that billing_codes says';
is $busy->json->{code}, 'REQUEST_OUTSTANDING', 'and why';
is post($other, $slow, 's', '/codes/slow/2', 'no')->status, 400, 'another one, that the key is not its own';
like scalar(readline $socket), qr{^HTTP/1.1 200 }, 'it is answered';
close $socket;
settles($slow, '8/2', 'G17: and charged once');

my $crowd = newcomer();
my @children = map {
    my $on = $_ % 2 ? $host : $other;
    pipe my $from, my $to or die;
    my $pid = fork // die;
    if (!$pid) {
        print {$to} join ' ', map { post($on, $crowd, "crowd-$_", '/logo/x')->status } 1 .. 3;
        close $to;
        POSIX::_exit(0);
    }
    close $to;
    [$pid, $from];
} 1 .. 8;
my %status;
for my $child (@children) {
    my $told = do { local $/; readline $child->[1] };
    waitpid $child->[0], 0;
    $status{$_}++ for split ' ', $told;
}
is $status{200} + ($status{409} // 0), 24, 'G17: of eight clients that send the same three requests to two hosts each is let through or told to wait';
settles($crowd, '4/6', 'G17: three are charged');

# --- whoever dies
my $victim = newcomer();
$socket = $host->connect;
print {$socket} "GET /logo/slow/3 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer test:$victim\r\nIdempotency-Key: v\r\n\r\n";
ok eval { wait_for(sub { balance($victim) eq '8/2' }, 10, 'taken') }, 'taken';
$host->kill9_workers;
is $other->get('/logo/slow/3', as($victim, 'v'))->status, 409, 'its worker is killed: nobody knows what came of it';
$world->sql(q{UPDATE billing.credit_holds SET expires_at = now() RETURNING 1});
$world->sql(q{UPDATE billing.idempotency_keys SET expires_at = now() WHERE NOT done RETURNING 1});
ok eval { wait_for(sub { balance($victim) eq '10/0' }, 10, 'swept') }, 'G13: its units come back when its time is over';
ok eval { wait_for(sub { $host->get('/logo/x', as($victim, 'w'))->status == 200 }, 20, 'new workers') }, 'others have come';
is $other->get('/logo/slow/3', as($victim, 'v'))->status, 200, 'G17: and the key is free';
settles($victim, '6/4', 'each is charged');
my $kept = newcomer();
is $host->get('/logo/x', as($kept, 'v'))->status, 200, 'one more';
settles($kept, '8/2', 'charged');
$world->sql(q{UPDATE billing.idempotency_keys SET done = false, expires_at = now() WHERE account_id = (SELECT id FROM billing.accounts WHERE external_id = ?) RETURNING 1}, $kept);
is $other->get('/logo/x', as($kept, 'v'))->status, 200, 'the word on its key was lost with its worker';
settles($kept, '8/2', 'G17: the ledger knows that it is paid');

# --- quotas, stock, all together
my $quota = newcomer();
is $host->get('/quota/x', as($quota, 'q'))->status, 200, 'a quota';
my $used = sub { ($world->sql(q{SELECT coalesce(sum(used), 0) AS n FROM billing.quota_periods JOIN billing.accounts a ON a.id = account_id WHERE external_id = ?}, $quota))[0]{n} };
ok eval { wait_for(sub { !open_keys() && $used->() == 1 }, 10, 'charged') }, 'is charged';
my $repeated = $other->get('/quota/x', as($quota, 'q'));
is $repeated->status, 200, 'G17: repeated on another host';
is $repeated->header('RateLimit'), undef, 'it is not metered';
is $host->get('/quota/y', as($quota, 'q'))->status, 200, 'another';
ok eval { wait_for(sub { !open_keys() && $used->() == 2 }, 10, 'charged') }, 'G17: two are charged';
my $all = newcomer();
is $host->get('/both/x', as($all, 'b'))->status, 200, 'quota and credits';
settles($all, '7/3', 'are charged');
is $other->get('/both/x', as($all, 'b'))->status, 200, 'G17: repeated';
settles($all, '7/3', 'no more');
my $maker = newcomer();
sub level() { return join '', map { "$_->{current}+$_->{reserved}" } $world->sql('SELECT current, reserved FROM billing.stock_levels JOIN billing.accounts a ON a.id = account_id WHERE external_id = ?', $maker) }
is post($host, $maker, 'm', '/brand/x')->status, 200, 'a create';
ok eval { wait_for(sub { !open_keys() && level() eq '1+0' }, 10, 'made') }, 'is counted';
is post($other, $maker, 'm', '/brand/x')->status, 200, 'G17, G11: repeated';
is post($other, $maker, 'n', '/brand/x')->status, 200, 'another';
ok eval { wait_for(sub { !open_keys() && level() eq '2+0' }, 10, 'made') }, 'G17: two are counted';
is post($host, $maker, 'm', '/brand/x')->status, 200, 'G17: at the limit what was made may be repeated';
is post($host, $maker, 'o', '/brand/x')->status, 402, 'and nothing else made';

# --- nginx's own ways
my $inner = newcomer();
is $host->get('/inner/x', as($inner, 'i'))->status, 200, 'led to a location that is keyed';
settles($inner, '8/2', 'charged');
is $other->get('/inner/x', as($inner, 'i'))->status, 200, 'repeated';
settles($inner, '8/2', 'G17: no more');
my $parts = newcomer();
is $host->get('/parts/x', as($parts, 'p'))->status, 200, 'subrequests';
settles($parts, '8/2', 'pay once for all, and claim nothing');
my $fails = newcomer();
is post($host, $fails, 'f', '/fails/status/500')->status, 500, 'G17: led to dearer rules under its own key';
settles($fails, '7/3', 'it pays the difference');
is post($other, $fails, 'f', '/fails/status/500')->status, 500, 'repeated';
settles($fails, '7/3', 'G17: no more');
my $cost = newcomer();
is $host->get('/cost/x', as($cost, 'c'), 'X-Units' => 1)->status, 200, 'a cost that the request tells';
settles($cost, '9/1', 'is charged');
is $other->get('/cost/x', as($cost, 'c'), 'X-Units' => 1)->status, 200, 'repeated';
is $host->get('/cost/x', as($cost, 'c'), 'X-Units' => 9)->status, 422, 'G17: at another cost it is another request';
settles($cost, '9/1', 'no more');
my $asked = newcomer();
is $host->get('/check', as($asked, 'a'), 'X-Original-URI' => "/$_")->status, 200, 'a proxy asks about a request' for 1, 2;
settles($asked, '6/4', 'G17: what a key stands for it does not see, so each is charged');
my $off = newcomer();
is $host->get('/other/x', as($off, 'o'))->status, 200, 'switched off';
is $host->get('/other/x', as($off, 'o'))->status, 200, 'a key means nothing';
settles($off, '6/4', 'each is charged');
my $short = newcomer();
is $host->get('/short/x?key=1', as($short, undef))->status, 200, 'a key of another place';
settles($short, '8/2', 'charged');
ok eval { wait_for(sub { $host->get('/short/x?key=1', as($short, undef)); balance($short) ne '8/2' }, 10, 'over') }, 'G17: after its window a key is new';

# --- what is no key
for my $key ('x' x 256, "a b", "\xc3\xa4") {
    my $answer = $host->get('/logo/x', as(newcomer(), $key));
    is $answer->status, 400, 'G17: no key';
    is $answer->json->{code}, 'INVALID_IDEMPOTENCY_KEY', 'is refused';
}
is $host->get('/logo/x', as(newcomer(), 'x' x 255))->status, 200, 'the longest one';

# --- PostgreSQL away
my $cut = newcomer();
is $host->get('/quota/x', as($cut, 'c1'))->status, 200, 'all is well';
ok eval { wait_for(sub { !open_keys() }, 10, 'told') }, 'told';
$world->db->pause;
is $host->get('/quota/x', as($cut, 'c2'))->status, 503, 'without PostgreSQL nobody knows a key';
$world->db->resume;
ok eval { wait_for(sub { $host->get('/quota/x', as($cut, 'c2'))->status == 200 }, 20, 'back') }, 'and when it is back the key is free';

done_testing;
