# Another proxy asks before it passes a request on and gets the same decision, charged the same way: the one of the location that it asks,
# for the method of the request that it asks about. G24.
use v5.36;
use Billing::Test;
use Billing::Journey qw(answer_of);

my $world = world(
    http => <<'END',
    server {    # another proxy, without a gate of its own
        listen 127.0.0.1:%%PORT_other%%;
        location / { auth_request /ask; auth_request_set $plan $upstream_http_x_billing_plan; add_header X-Plan $plan always; proxy_pass http://app; }
        location = /ask {
            internal;
            proxy_pass http://127.0.0.1:%%PORT%%/check;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header X-Original-Method $request_method;
        }
    }
END
    locations => <<'END',
    billing_account $user;
    location = /check { billing on; billing_quota requests; billing_codes limit=403; billing_check; }
    location = /plain { billing on; billing_quota requests; billing_check; }
    location = /branch { billing on; billing_check; if ($arg_a) { set $unused 1; } }
    location /here/ { auth_request /check; proxy_pass http://app; }
END
);
my $host = $world->host;
sub as($account, %more) { (Authorization => "Bearer test:$account", %more) }
sub other($method, $account) { Billing::Client::request($host->address('other'), $method, '/x', headers => {as($account)}) }

subtest 'G24: by auth_request' => sub {
    my $first = other('GET', 'a');
    is_deeply [$first->status, $first->header('X-Plan')], [200, 'free'], 'passed on, with what is known';
    other('GET', 'a') for 2 .. 20;
    is other('GET', 'a')->status, 403, 'the twenty-first is refused';
    is $world->app->count('/x'), 20, 'the application has seen twenty';
    is Billing::Client::request($host->address('other'), 'GET', '/x')->status, 401, 'nobody is refused';
    $world->must('account', 'set', 'w', '--writes', 'off') if other('GET', 'w');
    wait_for(sub { other('POST', 'w')->status == 403 }, 5, 'a write is refused');
    is other('GET', 'w')->status, 200, 'a read is not';
};

subtest 'G24: what writes is not the client\'s to say' => sub {
    my $ask = sub ($method, $path, %more) { $host->request($method, $path, headers => {as('w', %more)})->status };
    is $ask->('GET', '/here/x'), 200, 'a read, asked about by auth_request of the same nginx';
    is $ask->('POST', '/here/x'), 403, 'a write, asked about likewise';
    is $host->get('/here/x')->header('WWW-Authenticate'), 'Bearer', 'nobody is told what would help';
    is $ask->('POST', '/here/x', 'X-Original-Method' => 'GET'), 403, 'whatever the client says';
    is $ask->('GET', '/plain', 'X-Forwarded-Method' => 'POST'), 403, 'a write by the proxy\'s word';
    is $ask->('GET', '/plain', 'X-Forwarded-Method' => 'POST', 'X-Original-Method' => 'GET'), 403, 'beside a field that the proxy has not set';
    is $ask->('GET', '/plain', 'X-Original-Method' => ['GET', 'POST']), 403, 'or one that is there twice';
    is $ask->('GET', '/plain', 'X-Original-Method' => 'BREW'), 403, 'an unknown method writes';
    is $ask->('GET', "/branch$_->[0]", 'X-Original-Method' => $_->[1]), $_->[2], "$_->[1], $_->[3]" for
        ['', 'POST', 403, 'outside of an "if"'], ['?a=1', 'POST', 403, 'inside'], ['?a=1', 'GET', 200, 'inside'];
};

subtest 'G24: asked directly' => sub {
    my $answer = $host->get('/plain', as('d'));
    is_deeply [map { $answer->header($_) } qw(X-Billing-Account X-Billing-Plan X-Billing-Status X-Billing-Decision X-Billing-Remaining)],
        [qw(d free active allow 19)], 'the decision in fields';
    is $host->request('POST', '/plain', body => 'x' x 5000, headers => {as('d')})->status, 200, 'a body is passed over';
    $host->get('/plain', as('d')) for 3 .. 20;
    my $refused = $host->get('/plain', as('d'));
    is_deeply [answer_of($refused), $refused->header('X-Billing-Reason')], ['402 LIMIT_REQUESTS', 'LIMIT_REQUESTS'], 'and the reason';
};
done_testing;
