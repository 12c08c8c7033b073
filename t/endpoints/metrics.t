# Who looks from outside sees what the gate does: each decision once, under its reason, for all workers of the host whichever of them
# is asked, and never an account's name; and the page is there when PostgreSQL is not. O2, G20, G21, W2.
use v5.36;
use Billing::Metrics ();
use Billing::Process qw(new_directory patience root slurp);
use Billing::Client qw(requests);
use Billing::Test;
use Digest::SHA qw(hmac_sha256_hex);
use JSON::PP ();

my @decisions = qw(billing_decisions_total);
my @lookups = qw(billing_cache_lookups_total);

sub page($host, %headers) {
    my $answer = $host->get('/metrics', %headers);
    die 'metrics: ' . $answer->status . "\n" if $answer->status != 200;
    return Billing::Metrics->parse($answer->body);
}
sub as($account) { (Authorization => "Bearer test:$account") }

my $world = world(
    stripe => 1,
    workers => 2,
    locations => <<'END',
    billing_account $user;
    add_header X-Worker $pid always;
    location = /metrics { billing_metrics; allow 127.0.0.1; deny all; }
    location = /closed { billing_metrics; deny all; }
    location = /billing/checkout { billing_checkout; }
    location = /billing/webhook { billing_webhook; }
    location /plain/ { billing on; proxy_pass http://app; }
    location /api/ { billing on; billing_quota requests; proxy_pass http://app; }
    location /cost/ { billing on; billing_quota requests cost=$arg_cost; proxy_pass http://app; }
    location /export/ { billing on; billing_feature svg_export; proxy_pass http://app; }
    location /agency/ { billing on; billing_plan >=agency; proxy_pass http://app; }
    location /known/ { billing on; billing_unknown_account deny; proxy_pass http://app; }
    location /token/ { billing on; billing_account $billing_jwt_claim_sub; billing_jwt alg=HS256 secret=0123456789abcdef0123456789abcdef; proxy_pass http://app; }
    location /key/ { billing on; billing_account $billing_api_key_account; billing_api_key $http_x_api_key; proxy_pass http://app; }
    location /observed/ { billing observe; billing_plan >=agency; proxy_pass http://app; }
    location /open/ { billing on; billing_on_error allow; proxy_pass http://app; }
END
);
my $host = $world->host;

# An account that is as it should be before anybody asks for it.
sub account($name, @settings) {
    $world->sql('SELECT billing.ensure_accounts(?)', [$name]);
    $world->must('account', 'set', $name, @settings) if @settings;
    return as($name);
}

subtest 'O2: as Prometheus wants it' => sub {
    wait_for(sub { defined page($host)->value('billing_watermark_age_seconds') }, 10, 'the host has heard that it knows all changes');
    my $answer = $host->get('/metrics');
    is $answer->status, 200, 'there is a page';
    is $answer->header('Content-Type'), 'text/plain; version=0.0.4; charset=utf-8', 'of its type';
    is $answer->header('Cache-Control'), 'no-store', 'which nobody keeps';
    my $page = eval { Billing::Metrics->parse($answer->body) };
    ok $page, 'and its form' or diag $@;
    my $file = new_directory() . '/page';
    Billing::Nginx::write_file($file, $answer->body);
    my $said = qx(promtool check metrics < $file 2>&1);
    is "$? $said", '0 ', 'promtool has nothing to say';
    is $page->value('billing_build_info', version => '0.1.0', nginx => qx(nginx -v 2>&1) =~ s{.*nginx/([\d.]+).*}{$1}sr), 1, 'which module in which nginx';

    my %documented = map { $_ => 1 } slurp(root() . '/docs/directives.md') =~ /^### billing_metrics\n(.*?)(?=^##|\z)/ms ? $1 =~ /^\| (`billing_.*?) \|/mg : ();
    is_deeply [sort map { /`(\w+)`/g } keys %documented], [sort keys $page->{type}->%*], 'docs/directives.md names each metric, and no other';

    is $host->request('HEAD', '/metrics')->status . length $host->request('HEAD', '/metrics')->body, '2000', 'HEAD has no body';
    for my $method (qw(POST PUT DELETE)) {
        my $refused = $host->request($method, '/metrics', body => 'x');
        is $refused->status . ' ' . $refused->header('Allow'), '405 GET, HEAD, OPTIONS', "$method is refused";
    }
    is $host->request('OPTIONS', '/metrics')->status, 204, 'OPTIONS';
    is $host->get('/closed')->status, 403, 'deny closes it';
    is_deeply page($host)->since($page, @decisions), {}, 'and none of this is a decision of the gate';
};

subtest 'O2: each way of being refused, and of being let through, is counted once' => sub {
    my $past = '2001-01-01T00:00:00Z';
    my @cases = (
        ['deny no_account', 401, GET => '/plain/x', []],
        ['deny invalid_token', 401, GET => '/token/x', [Authorization => 'Bearer not.a.token']],
        ['deny invalid_key', 401, GET => '/key/x', ['X-Api-Key' => 'nb_unheard_of']],
        ['deny invalid_account', 400, GET => '/plain/x', [as('a b')]],
        ['deny invalid_cost', 400, GET => '/cost/x?cost=-1', [account('cost')]],
        ['deny unknown_account', 403, GET => '/known/x', [as('unheard_of')]],
        ['deny write_disabled', 403, POST => '/plain/x', [account('stopped', '--writes', 'off')]],
        ['deny maintenance', 402, POST => '/plain/x', [account('repair', '--maintenance', 'operator')]],
        ['deny enforced', 402, GET => '/plain/x', [account('enforced', '--status', 'unpaid', '--enforced', 'on', '--grace-until', $past)]],
        ['deny inactive', 402, GET => '/plain/x', [account('inactive', '--plan', 'pro', '--status', 'canceled')]],
        ['deny plan', 403, GET => '/agency/x', [account('small')]],
        ['deny feature', 403, GET => '/export/x', [account('small')]],
        ['deny limit', 402, GET => '/cost/x?cost=21', [account('greedy')]],
        ['would_deny plan', 200, GET => '/observed/x', [account('small')]],
        ['allow none', 200, GET => '/plain/x', [account('good')]],
        ['allow none', 200, GET => '/plain/x', [account('good')]],
        ['allow_grace grace', 200, GET => '/plain/x',
            [account('overdue', '--plan', 'pro', '--status', 'past_due', '--grace-until', '2999-01-01T00:00:00Z')]],
    );
    my $sources = 0;
    for my $case (@cases) {
        my ($what, $status, $method, $path, $headers) = @$case;
        my $before = page($host);
        is $host->request($method, $path, headers => {@$headers})->status, $status, "$what: $status";
        my ($decision, $reason) = split / /, $what;
        my $after = page($host);
        is_deeply $after->since($before, @decisions), {"billing_decisions_total decision=$decision reason=$reason" => 1}, "$what: counted, and nothing else";
        my @from = %{$after->since($before, @lookups)};
        is scalar(@from) . $from[1], '21', "$what: and where the facts came from: $from[0]";
    }
    my $page = page($host);
    is $page->value('billing_unknown_accounts_total'), 1, 'one account was unknown';
    cmp_ok $page->value('billing_cache_lookups_total', source => $_), '>', 0, "facts have come from $_" for qw(shm postgres none);
    unlike join("\n", $page->samples), qr/unheard_of|greedy|small|overdue/, 'no account is named';
    wait_for(sub { page($host)->value('billing_cache_entries') >= 8 }, 10 * patience(), 'accounts in shared memory are counted, some seconds later');
};

subtest 'O2: events, and calls of Stripe' => sub {
    my @families = qw(billing_webhook_events_total billing_webhook_processed_total billing_stripe_requests_total);
    my $number = 0;
    my $send = sub ($body, $secret = $world->webhook_secret) {
        my $time = time;
        return $host->request('POST', '/billing/webhook', body => $body, headers => {'Content-Type' => 'application/json',
            'Stripe-Signature' => "t=$time,v1=" . hmac_sha256_hex("$time.$body", $secret)})->status;
    };
    my $event = sub ($type) {
        return JSON::PP->new->encode({id => 'evt_' . ++$number, object => 'event', type => $type, created => time, livemode => JSON::PP::false,
            api_version => '2026-02-25.clover', data => {object => {id => "sub_$number", object => 'subscription', customer => 'cus_nobody'}}});
    };
    my $before = page($host);
    my $first = $event->('customer.subscription.updated');
    is $send->($first), 200, 'an event';
    is $send->($first), 200, 'the same again';
    is $send->($event->('price.updated')), 200, 'one that is of no use';
    is $send->($event->('price.updated'), 'whsec_other'), 400, 'one that somebody else has signed';
    is $send->('nothing'), 400, 'and what is none';
    wait_for(sub { page($host)->since($before, @families)->{'billing_webhook_processed_total outcome=parked'} }, 10, 'the event is parked');
    is_deeply page($host)->since($before, @families), {
        map({ ("billing_webhook_events_total result=$_" => 1) } qw(received duplicate ignored bad_signature error)),
        'billing_webhook_processed_total outcome=parked' => 1,
    }, 'each is counted';
    is $host->request('POST', '/billing/checkout', body => 'plan=starter', headers => {as('buyer'), 'Content-Type' => 'application/x-www-form-urlencoded'})->status, 303,
        'a checkout';
    is_deeply page($host)->since($before, 'billing_stripe_requests_total'), {'billing_stripe_requests_total outcome=ok' => 2},
        'a customer and a session were made at Stripe';
    wait_for(sub { page($host)->value('billing_webhook_backlog', status => 'parked') == 1 }, 15, 'the parked one is in the backlog');
    is page($host)->value('billing_webhook_backlog', status => 'dead'), 0, 'and none is dead';
};

subtest 'O2: any worker answers for all of them' => sub {
    my (%workers, $passed);
    my $before = page($host);
    wait_for(sub {
        for ($host->get_many(32, 16, '/plain/x', as('good'))) {
            $workers{$_->header('X-Worker')}++;
            $passed += $_->status == 200;
        }
        return keys %workers == 2;
    }, 30, 'both workers have let requests through');
    my %told;
    wait_for(sub {
        for ($host->get_many(8, 8, '/metrics')) {
            $told{$_->header('X-Worker')} = Billing::Metrics->parse($_->body)->since($before, @decisions);
        }
        return keys %told == 2;
    }, 30, 'both workers have been asked');
    is_deeply $told{$_}, {'billing_decisions_total decision=allow reason=none' => $passed}, "worker $_ tells of all $passed" for sort keys %told;
    my $page = page($host);
    is $page->value('billing_workers'), 2, 'there are two';
    for my $backend (qw(postgres redis)) {
        wait_for(sub { page($host)->value('billing_backend_up', backend => $backend) }, 10, "$backend is up");
        is page($host)->value('billing_backend_connected_workers', backend => $backend), 2, "both are connected with $backend";
    }
    my ($gone) = $host->kill9_worker;
    wait_for(sub { page($host)->value('billing_workers') == 2 }, 10, 'who died is not counted, who came is');
    is page($host)->since($before, @decisions)->{'billing_decisions_total decision=allow reason=none'}, $passed, 'what the dead one had counted stays';
};

subtest 'G21, O2: PostgreSQL stands still, the page does not' => sub {
    wait_for(sub { page($host)->value('billing_watermark_age_seconds') < 3 }, 10, 'knowledge is fresh');
    my $before = page($host);
    $world->db->pause;
    is $host->get('/open/x', as('nobody_knows'))->status, 200, 'let through, for nothing is known';
    is $host->get('/plain/x', as('nobody_knows_either'))->status, 503, 'or not';
    my $slowest = 0;
    my $page = wait_for(sub {
        my $answer = $host->get('/metrics');
        $slowest = $answer->seconds if $slowest < $answer->seconds;
        my $now = Billing::Metrics->parse($answer->body);
        return defined $now->value('billing_dirty_accounts') ? undef : $now;
    }, 20, 'what only PostgreSQL can tell is left out');
    cmp_ok $slowest, '<', 2.5 * patience(), 'every answer comes in time';
    is $page->value('billing_webhook_backlog', status => 'dead'), undef, 'no queue is shown';
    is_deeply $page->since($before, @decisions), {
        'billing_decisions_total decision=allow_fallback reason=unavailable' => 1, 'billing_decisions_total decision=deny reason=unavailable' => 1,
    }, 'the rest is, also how it was decided meanwhile';
    cmp_ok $page->value('billing_watermark_age_seconds'), '>', 3, 'and that nothing is heard';
    my $asked = 0;
    wait_for(sub {    # a worker notices by asking
        requests(8, map { {address => $host->address, method => 'GET', path => '/plain/x', headers => {as('nobody-' . ++$asked)}} } 1 .. 8);
        return !page($host)->value('billing_backend_up', backend => 'postgres');
    }, 30, 'PostgreSQL is down');
    is page($host)->value('billing_backend_up', backend => 'redis'), 1, 'and Redis is not';
    $world->db->resume;
    wait_for(sub { defined page($host)->value('billing_dirty_accounts') }, 20, 'back, its queues are there again');
};

subtest 'one host without Redis' => sub {
    my $alone = world(redis => 0, locations => 'location = /metrics { billing_metrics; }');
    my $page = page($alone->host);
    is $page->value('billing_backend_up', backend => 'redis'), undef, 'says nothing of one';
    ok defined $page->value('billing_backend_up', backend => 'postgres'), 'but of PostgreSQL';
};

done_testing;
