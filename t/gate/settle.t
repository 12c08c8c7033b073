# A request is paid for once, by what its client gets at the end: 2xx and 3xx are charged, a failure takes nothing; internal redirects,
# subrequests and error pages neither charge twice nor walk around the gate. Charges are read from PostgreSQL. G13 (in small), G18, G22.
use v5.36;
use Billing::Test;

my $catalog = Billing::Test->sample_catalog;
$catalog->{quotas}{exports} = {period => 'day'};
$catalog->{plans}{free}{quotas} = {requests => 1000, exports => 10};
my $world = world(catalog => $catalog, locations => <<'END');
    billing on;
    billing_account $user;
    location /api/ { billing_quota requests; proxy_pass http://app; }
    location /dead/ { billing_quota requests; proxy_pass http://127.0.0.1:1; }
    location /cost/ { billing_quota requests cost=$arg_cost; proxy_pass http://app; }
    location /inner/ { billing_quota requests; rewrite ^/inner/(.*)$ /api/$1 last; }
    location /accel/ { billing_quota requests; try_files /nowhere @again; }
    location @again { billing_quota requests; proxy_pass http://app; }
    location /dearer/ { billing_quota requests; error_page 418 = @dear; proxy_intercept_errors on; proxy_pass http://app; }
    location @dear { billing_quota requests cost=5; rewrite ^ /ok break; proxy_pass http://app; }
    location /ssi/ { billing_quota requests; ssi on; ssi_types application/json; proxy_pass http://app; }
    location /upsell/ { billing_feature white_label; error_page 403 = @upsell; proxy_pass http://app; }
    location @upsell { billing_feature white_label; rewrite ^ /upsell break; proxy_pass http://app; }
    location /any/ { satisfy any; allow all; billing_feature white_label; proxy_pass http://app; }
    location /two/ { billing_quota requests; billing_quota exports cost=3; proxy_pass http://app; }
    location /codes/ { billing_codes feature=404; billing_feature white_label; proxy_pass http://app; }
    location /auth/ { auth_request /check; billing_quota requests; proxy_pass http://app; }
    location = /check { billing off; return 204; }
    location /mirror/ { mirror /shadow; billing_quota requests; proxy_pass http://app; }
    location = /shadow { internal; billing_quota requests; proxy_pass http://app; }
    location /after/ { billing_quota requests; post_action @after; proxy_pass http://app; }
    location @after { billing_feature white_label; rewrite ^ /status/$arg_after break; proxy_pass http://app; }
END
my $host = $world->host;
my $user = 0;

# What an account's requests have been charged, once all is reported and no token is out for spending.
sub charged($account, $limit = 'requests') {
    return ($world->sql(q{SELECT coalesce(sum(q.used), 0) AS used FROM billing.quota_periods q JOIN billing.accounts a ON a.id = q.account_id
        JOIN billing.limits l USING (limit_no) WHERE a.external_id = ? AND l.limit_key = ?}, $account, $limit))[0]{used};
}

# Each case has an account of its own: (what, method, path, status, charge). The charges are read at the end, all at once.
my @charges;
sub cell($what, $method, $path, $status, $charge, %option) {
    my $account = 'u' . ++$user;
    my $answer = $host->request($method, $path, headers => {Authorization => "Bearer test:$account"}, %option);
    is $answer->status, $status, "$what: $status" or diag $answer->body;
    push @charges, [$what, $account, $charge];
    return $answer;
}

# Behind each case a marker of known cost: when that is reported, so is all before it.
sub check_charges() {
    for my $case (@charges) {
        my $marker = $host->get('/cost/marker?cost=100', Authorization => "Bearer test:$case->[1]");
        is $marker->status, 200, "$case->[0]: the marker";
    }
    for my $case (@charges) {
        my ($what, $account, $charge) = $case->@*;
        my $used = wait_for(sub { my $used = charged($account); $used >= 100 && $used }, 5, "$what is reported");
        is $used - 100, $charge, "$what: charged $charge";
    }
    return;
}

cell('a success', GET => '/api/x', 200, 1);
cell('HEAD is work too', HEAD => '/api/x', 200, 1);
cell('POST', POST => '/api/x', 200, 1, body => 'a');
cell('OPTIONS is free', OPTIONS => '/api/x', 200, 0);
cell('a 4xx of the application', GET => '/api/status/404', 404, 0);
cell('a 5xx of the application', GET => '/api/status/500', 500, 0);
cell('a redirect of the application', GET => '/api/status/302', 302, 1);
cell('an application that is not there', GET => '/dead/x', 502, 0);
cell('an application that hangs up', GET => '/api/abort', 502, 0);
cell('cost=$variable', GET => '/cost/x?cost=7', 200, 7);
cell("cost $_", GET => "/cost/x?cost=$_", 400, 0) for '', 0, -1, '+5', '1e3', '1.5', '%205', '1000001', '99999999999999999999', '0x10';
cell('a rewrite within the same rules', GET => '/inner/x', 200, 1);
cell('try_files to a named location', GET => '/accel/x', 200, 1);
cell('an error page that is dearer pays the difference', GET => '/dearer/status/418', 200, 5);
cell('an auth_request charges nothing of its own', GET => '/auth/x', 200, 1);
cell('a mirror charges nothing', GET => '/mirror/x', 200, 1);
cell('satisfy any does not open the gate', GET => '/any/x', 403, 0);
cell('billing_codes', GET => '/codes/x', 404, 0);
cell('a success before a post_action that fails', GET => '/after/x?after=500', 200, 1);
cell('a failure before a post_action that succeeds', GET => '/after/status/500?after=200', 500, 0);
my $upsell = cell('a refusal may have a page of its own', GET => '/upsell/x', 200, 0);
is $upsell->json->{path}, '/upsell', 'which is the one configured';

check_charges();

subtest 'G18: several quotas, all or nothing' => sub {
    my @bearer = (Authorization => 'Bearer test:two');
    my @statuses = map { $host->get('/two/x', @bearer)->status } 1 .. 5;
    is_deeply \@statuses, [200, 200, 200, 402, 402], 'three times three of ten exports';
    is $host->get('/two/x', @bearer)->json->{code}, 'LIMIT_EXPORTS', 'the quota that fell short is named';
    wait_for(sub { charged('two', 'exports') == 9 }, 5, 'exports are reported');
    wait_for(sub { charged('two') >= 3 }, 5, 'requests are reported');
    is charged('two'), 3, 'the refused ones took no request either';
};

subtest 'a client that goes away' => sub {
    my $socket = $host->connect;
    print $socket "GET /api/slow/2 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer test:gone\r\n\r\n";
    wait_for(sub { $world->app->count('/api/slow/2') == 1 }, 5, 'the application is asked');
    close $socket;
    $host->wait_log(qr/prematurely closed connection/);
    is $host->get('/cost/marker?cost=100', Authorization => 'Bearer test:gone')->status, 200, 'the marker';
    is wait_for(sub { my $used = charged('gone'); $used >= 100 && $used }, 5, 'reported'), 101, 'once the application was asked, it pays';
};

done_testing;
