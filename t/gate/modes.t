# Observing decides, counts and logs as the gate does and refuses nothing; which methods write and which states of a subscription let a
# paid plan be used is the operator's to say; and a refusal comes in the form that its client understands. G4 G7 G19 G20 G27.
use v5.36;
use Billing::Test;
use Billing::Journey qw(answer_of problem);

my $world = world(stripe => 1, server => 'listen 127.0.0.1:%%PORT_h2%% http2;', locations => <<'END');
    billing_account $user;
    add_header X-Decision "$billing_decision $billing_reason" always;
    location /on/ { billing on; billing_quota requests; proxy_pass http://app; }
    location /observed/ { billing observe; billing_quota requests; proxy_pass http://app; }
    location /observed/feature/ { billing observe; billing_feature white_label; proxy_pass http://app; }
    location /plain/ { billing on; proxy_pass http://app; }
    location /search/ { billing on; billing_read_methods GET POST; proxy_pass http://app; }
    location /strict/ { billing on; billing_live_status active trialing; proxy_pass http://app; }
    location /loose/ { billing on; billing_live_status active trialing past_due unpaid; proxy_pass http://app; }
    location = /billing/checkout { billing_checkout; }
    location = /billing/portal { billing_portal; }
END
my $host = $world->host;
sub as($account) { (Authorization => "Bearer test:$account") }
sub ask($method, $path, $account, %headers) { $host->request($method, $path, headers => {$account ? as($account) : (), %headers}) }
sub used($account) {
    $host->reload;    # reports what has been spent
    my ($row) = $world->sql('SELECT coalesce(sum(q.used), 0) AS n FROM billing.quota_periods q JOIN billing.accounts a ON a.id = q.account_id WHERE a.external_id = ?', $account);
    return $row->{n};
}

subtest 'G20: observe' => sub {
    is ask('GET', '/observed/x', 'o')->header('X-Decision'), 'allow ', 'what is allowed is allowed';
    ask('GET', '/on/x', 'o') for 2 .. 20;
    is answer_of(ask('GET', '/on/x', 'o')), '402 LIMIT_REQUESTS', 'the gate refuses the twenty-first';
    my $mark = $host->mark;
    my $answer = ask('GET', '/observed/x', 'o');
    is $answer->status, 200, 'observed it passes';
    is $answer->header('X-Decision'), 'would_deny LIMIT_REQUESTS', 'and the variables tell what would have been';
    ok $host->wait_log(qr/\[info\].*would be refused with 402 LIMIT_REQUESTS/, 5, $mark), 'and so does the log';
    is ask('GET', '/observed/feature/x', 'o')->header('X-Decision'), 'would_deny FEATURE_NOT_IN_PLAN', 'a feature';
    is ask('GET', '/observed/x', undef)->header('X-Decision'), 'would_deny ACCOUNT_REQUIRED', 'nobody';
    is ask('GET', '/observed/x', 'a b')->header('X-Decision'), 'would_deny INVALID_ACCOUNT', 'a nonsense';
    is used('o'), 20, 'what would be refused takes nothing, what is allowed pays';
};

subtest 'G4: which methods write' => sub {
    ask('GET', '/plain/x', 'w');
    $world->must('account', 'set', 'w', '--writes', 'off');
    wait_for(sub { ask('POST', '/plain/x', 'w')->status == 403 }, 5, 'the switch is off');
    is answer_of(ask($_->[0], '/plain/x', 'w')), $_->[1], "$_->[0] by default" for
        ['GET', '200'], ['HEAD', '200'], ['OPTIONS', '200'], ['PUT', '403 WRITE_DISABLED'], ['DELETE', '403 WRITE_DISABLED'],
        ['PROPFIND', '403 WRITE_DISABLED'], ['BREW', '403 WRITE_DISABLED'];
    is answer_of(ask('GET', '/plain/x', 'w', 'X-HTTP-Method-Override' => 'GET')), '200', 'A22: by its real method';
    is answer_of(ask('POST', '/plain/x', 'w', 'X-HTTP-Method-Override' => 'GET')), '403 WRITE_DISABLED', 'A22: and no other';
    is answer_of(ask('POST', '/search/x', 'w')), '200', 'a search by POST, where the operator says so';
    is answer_of(ask('PUT', '/search/x', 'w')), '403 WRITE_DISABLED', 'and nothing else there';
};

subtest 'G7: which states let a paid plan be used' => sub {
    ask('GET', '/plain/x', 's');
    my %wanted = (
        past_due => ['200', '402 SUBSCRIPTION_INACTIVE', '200'], trialing => ['200', '200', '200'],
        unpaid => ['402 SUBSCRIPTION_INACTIVE', '402 SUBSCRIPTION_INACTIVE', '200'], active => ['200', '200', '200'],
    );
    for my $status (qw(past_due trialing unpaid active)) {
        $world->must('account', 'set', 's', '--plan', 'pro', '--status', $status, '--grace-until', '2099-01-01T00:00:00Z');
        wait_for(sub { answer_of(ask('GET', '/strict/x', 's')) eq $wanted{$status}[1] }, 5, "$status is known");
        is_deeply [map { answer_of(ask('GET', $_, 's')) } '/plain/x', '/strict/x', '/loose/x'], $wanted{$status}, $status;
    }
};

subtest 'G19: a page for browsers, the document for programs' => sub {
    my $browser = 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8';
    my $page = ask('GET', '/on/x', 'o', Accept => $browser);
    is $page->status, 402, 'refused all the same';
    is $page->header('Content-Type'), 'text/html; charset=utf-8', 'with a page';
    is $page->header('Vary'), 'Accept', 'which caches know to depend on Accept';
    like $page->header('Content-Security-Policy'), qr/default-src 'none'/, 'that loads nothing';
    like $page->body, qr{<h1>Limit reached</h1>.*<form method="post" action="\Q@{[$world->public_url]}\E/billing/checkout"><input type="hidden" name="plan" value="starter">}s, 'and has the way out';
    is ask('GET', '/on/x', 'o', Accept => $_)->header('Content-Type'), 'application/problem+json', "the document for $_" for '*/*', 'application/json', 'text/plain';
    is ask('HEAD', '/on/x', 'o', Accept => $browser)->body, '', 'HEAD has no body';
};

subtest 'G27: gRPC calls are refused in their own way' => sub {
    my $curl = sub (@more) { my $address = $host->address('h2'); scalar qx(curl -sS -i --http2-prior-knowledge @more http://$address/on/x 2>&1) };
    my @grpc = ("-H 'content-type: application/grpc+proto'", "-H 'te: trailers'", '-X POST', "--data-binary ''");
    my $refused = $curl->(@grpc, "-H 'authorization: Bearer test:o'");
    like $refused, qr{^HTTP/2 200\b}, 'status 200';
    like $refused, qr{^content-type: application/grpc\r$}m, 'its content type';
    like $refused, qr{^grpc-status: 8\r$}m, 'RESOURCE_EXHAUSTED';
    like $refused, qr{^grpc-message: 1 requests needed, 0 of 20 left\r$}m, 'and why';
    like $refused, qr{\r\n\r\n\z}, 'no body: the header is the trailer';
    like $curl->(@grpc), qr{^grpc-status: 16\r$}m, 'nobody is UNAUTHENTICATED';
    like $curl->("-H 'authorization: Bearer test:o'"), qr{^HTTP/2 402.*application/problem\+json}s, 'others on HTTP/2 get the document';
    is used('o'), 20, 'and nothing was taken';
};
done_testing;
