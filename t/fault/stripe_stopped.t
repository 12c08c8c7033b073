# Stripe in trouble is nobody's trouble but a checkout's: with Stripe stopped in its tracks (connections are accepted, nothing is
# answered) checkouts are refused in bounded time and all other requests of the same workers go on at the speed of a paired run; the same
# for a closed port, failures and rate limits. Events are taken meanwhile and applied afterwards. Nothing that Stripe says and no secret
# is seen in an answer or a log. Without a key the locations say so. C10, W1 of the invariants; W2, W3 (tries that do not count), O3.
use v5.36;
use Billing::Client qw(requests);
use Billing::Journey qw(problem);
use Billing::Test;
use Digest::SHA qw(hmac_sha256_hex);
use List::Util qw(max);
use Time::HiRes qw(time);

my @demo = (Authorization => 'Bearer demo-token');
my $locations = <<'END';
    billing_account $user;
    location /open/ { return 204; }
    location /warm/ { billing on; billing_quota requests; proxy_pass http://app; }
    location /export/ { billing on; billing_feature asset_download; proxy_pass http://app; }
    location = /billing/checkout { billing_checkout; }
    location = /billing/portal { billing_portal; }
    location = /billing/webhook { billing_webhook; }
END
my $canary = 'sk_test_canary0a1b2c3d4e5f';
my $world = world(stripe => {key => $canary}, locations => $locations);
my $host = $world->host;
my $stripe = $world->stripe;
my @shown;    # every answer of checkout and portal

sub ask($path, $account) {
    my $answer = $host->post($path, '{"plan":"starter"}', Authorization => "Bearer test:$account", 'Content-Type' => 'application/json');
    push @shown, $answer->body;
    return $answer;
}

# A refusal that says when to come again.
sub is_away($answer, $what) {
    is $answer->status, 503, "C10: $what: 503";
    cmp_ok $answer->header('Retry-After') // 0, '>', 0, 'with when to come again';
    is $answer->header('Content-Type'), 'application/problem+json', 'as a problem document';
    return;
}

is $host->get('/warm/x', @demo)->status, 200, 'an account';
$world->must('account', 'set', 'demo', '--plan', 'agency');
wait_for(sub { $host->get('/export/x', @demo)->status == 200 }, 5, 'unlimited requests');
$host->get_many(64, 8, '/warm/x', @demo);    # both workers hold the account and tokens
is ask('/billing/checkout', 'buyer')->status, 200, 'all well: a checkout';
is ask('/billing/portal', 'buyer')->status, 200, 'and a portal';

# Requests of others, while checkouts hang in the same workers: the time for all.
sub measure($what) {
    my $began = time;
    my @open = $host->get_many(600, 8, '/open/x');
    my @warm = $host->get_many(300, 8, '/warm/x', @demo);
    my $took = time - $began;
    is grep({ $_->status == 204 } @open), 600, "$what: all plain requests are answered";
    is grep({ $_->status == 200 } @warm), 300, "$what: all gated requests pass";
    return $took;
}

# Checkouts and portals by raw connections, sent and left waiting.
sub hang(@accounts) {
    return map {
        my $path = /^buyer/ ? '/billing/portal' : '/billing/checkout';
        my $socket = $host->connect;
        print $socket "POST $path HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer test:$_\r\nContent-Type: application/json\r\n"
            . "Content-Length: 18\r\nConnection: close\r\n\r\n{\"plan\":\"starter\"}";
        $socket;
    } @accounts;
}

subtest 'stopped' => sub {
    my @ratios;
    for my $round (1, 2) {
        my $paired = measure("round $round, all well");
        $stripe->pause;
        my $began = time;
        my @waiting = hang(map({ "stranger-$round-$_" } 1 .. 19), 'buyer');
        push @ratios, measure("round $round, Stripe stopped") / $paired;
        my @answers = map { local $/; <$_> // '' } @waiting;
        my $took = time - $began;
        push @shown, @answers;
        is grep({ m{^HTTP/1.1 503 .*^Retry-After: \d+.*"code":"STRIPE_UNAVAILABLE"}ms } @answers), 20, 'C10: checkouts and portals: 503';
        cmp_ok $took, '<', 15 * Billing::Process::patience(), sprintf 'C10: in bounded time (%.1f s)', $took;
        $stripe->resume;
    }
    my ($best) = sort { $a <=> $b } @ratios;
    cmp_ok $best, '<', 1.5, sprintf 'others flow at the speed of the paired run (stopped/paired: %s)', join ' ', map { sprintf '%.2f', $_ } @ratios;
    cmp_ok max(@ratios), '<', 4, 'in every round: no answer waited for a time-out';

    wait_for(sub { ask('/billing/checkout', 'stranger-1-1')->status == 200 }, 20, 'who comes again gets a session');
    is grep({ ($_->{metadata}{account} // '') eq 'stranger-1-1' } $stripe->all('customer')), 1, 'C4: and is one customer, not two';
    is grep({ ($_->{client_reference_id} // '') eq 'stranger-1-1' && $_->{status} eq 'open' } $stripe->all('checkout.session')), 1,
        'C5: with one session';
};

subtest 'events while it is stopped' => sub {
    my ($session) = grep { $_->{client_reference_id} eq 'buyer' } $stripe->all('checkout.session');
    $stripe->hold;
    $stripe->pay($session->{id});
    my @bodies = map { $stripe->body($_) } grep { $_->{type} =~ /^(?:checkout|customer\.subscription)/ } $stripe->events;
    $stripe->pause;
    my @answers = map {
        my $time = int time;
        my $signature = "t=$time,v1=" . hmac_sha256_hex("$time.$_", $world->webhook_secret);
        $host->post('/billing/webhook', $_, 'Content-Type' => 'application/json', 'Stripe-Signature' => $signature);
    } @bodies;
    is_deeply [map { $_->status } @answers], [(200) x @bodies], 'W2: they are acknowledged';
    cmp_ok max(map { $_->seconds } @answers), '<', 1, 'W2: at once';
    my $row = sub { ($world->sql('SELECT max(waits) AS waits, max(failures) AS failures FROM billing.webhook_events'))[0] };
    wait_for(sub { $row->()->{waits} }, 30, 'the jobs give up for now');
    is $row->()->{failures}, 0, 'W3: a try that could not reach Stripe does not count';
    is $host->get('/export/x', Authorization => 'Bearer test:buyer')->status, 403, 'nothing is applied that Stripe has not confirmed';
    $stripe->resume;
    $world->sql(q{UPDATE billing.webhook_events SET next_attempt_at = now() WHERE status = 'received'});
    wait_for(sub { $host->get('/export/x', Authorization => 'Bearer test:buyer')->status == 200 }, 15, 'the plan');
    pass 'and applied when it is back';
    $stripe->release;
    $stripe->wait_delivered;
};

subtest 'a closed port' => sub {
    $stripe->close_port;
    my $began = time;
    is_away(ask('/billing/checkout', 'nobody-home'), 'a checkout');
    is_away(ask('/billing/portal', 'buyer'), 'a portal');
    cmp_ok time - $began, '<', 15 * Billing::Process::patience(), 'in bounded time';
    $stripe->open_port;
    wait_for(sub { ask('/billing/checkout', 'nobody-home')->status == 200 }, 20, 'and afterwards');
    pass 'afterwards a session';
};

subtest 'failures' => sub {
    my $text = 'canary-of-stripe';
    $stripe->clear_calls;
    $stripe->fault(status => 500, count => 0, message => "$text $canary");
    is_away(ask('/billing/checkout', 'unlucky'), 'failing');
    is_away(ask('/billing/portal', 'buyer'), 'failing');
    my @calls = $stripe->calls(method => 'POST', path => '/v1/customers');
    cmp_ok scalar @calls, '>', 1, 'C10: it is tried again';
    is keys %{{map { $_->{headers}{'idempotency-key'} => 1 } @calls}}, 1, 'C10: under one idempotency key';
    $stripe->clear_faults;

    $stripe->fault(status => 429, count => 0, retry_after => 7, message => $text);
    my $limited = ask('/billing/checkout', 'unlucky');
    is_away($limited, 'limited');
    $stripe->clear_faults;

    $stripe->fault(status => 500, count => 1, message => $text);
    is ask('/billing/checkout', 'unlucky')->status, 200, 'C10: one failure is not seen';
    $stripe->fault(drop => 1, after => 1, count => 1, path => '/v1/customers');
    is ask('/billing/checkout', 'unlucky-2')->status, 200, 'nor an answer that is lost on the way';
    is grep({ ($_->{metadata}{account} // '') eq 'unlucky-2' } $stripe->all('customer')), 1, 'C4: and it made one customer';

    for my $status (400, 401, 402, 403, 404) {
        $stripe->fault(status => $status, count => 0, message => $text, path => '/v1/checkout/sessions');
        my $refused = ask('/billing/checkout', "refused-$status");
        cmp_ok $refused->status, '>=', 500, "C10: refused with $status: a failure of ours";
        ok problem($refused)->{title}, 'in our words';
        $stripe->clear_faults;
        is ask('/billing/checkout', "refused-$status")->status, 200, 'which is over with its cause';
    }
    $stripe->fault(garbage => '<html>', count => 0);
    cmp_ok ask('/billing/checkout', 'garbage')->status, '>=', 500, 'C10: what is no answer of Stripe';
    $stripe->clear_faults;

    is grep({ /\Q$text\E/ } @shown), 0, 'C10: nothing that Stripe says is shown to a client';
    is $host->log_lines(qr/\Q$text\E/), 0, 'or written to the log';
};

subtest 'no secret' => sub {
    my @places = ($host->log_lines, @shown, map { Billing::Process::slurp($_) } glob $host->directory . '/*.log');
    my $secret = $world->webhook_secret;
    is grep({ /\Q$canary\E/ } @places), 0, 'O3: the key is in no answer and no log';
    is grep({ /\Q$secret\E/ } @places), 0, "O3: nor the webhook's secret";
    is $host->log_lines(qr{/c/pay/|/p/session/}), 0, 'nor the address of a session';
};

subtest 'no key' => sub {
    my $keyless = world(billing => 'billing_public_url http://127.0.0.1;', locations => $locations);
    my $bare = $keyless->host;
    for my $path (qw(/billing/checkout /billing/portal /billing/webhook)) {
        my $answer = $bare->post($path, '{"plan":"starter"}', @demo, 'Content-Type' => 'application/json');
        is $answer->status, 503, "C10: $path";
        is_deeply [@{problem($answer)}{qw(title error code)}], ['billing not configured', 'billing not configured', 'BILLING_NOT_CONFIGURED'],
            'says why';
    }
    is $bare->get('/warm/x', @demo)->status, 200, 'the gate works without';
};
done_testing;
