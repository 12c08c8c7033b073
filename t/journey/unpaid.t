# The third promise: a renewal that fails takes away what the operator says and no more, from its first failure on, and paying mends it
# on every host within a second. Under "maintenance" changes are refused and reading goes on; under "grace" everything goes on until
# the grace is over, by the hosts' own clock, without an event. G5 G6 G7, W9, W8 (ends both), N1, C5.
# The stand-in's clock runs ahead of ours in the first world; in the second one clock moves for all processes.
use v5.36;
use Billing::Clock;
use Billing::Journey qw(problem everywhere within_a_second);
use Billing::Test;
use JSON::PP qw(decode_json);

my @demo = (Authorization => 'Bearer demo-token');
my $locations = <<'END';
    billing on;
    billing_account $user;
    add_header X-Decision $billing_decision always;
    location /plain/ { proxy_pass http://app; }
    location /export/ { billing_feature asset_download; proxy_pass http://app; }
    location = /billing/checkout { billing_checkout redirect; }
    location = /billing/portal { billing_portal redirect; }
    location = /billing/webhook { billing_webhook; }
END

# Where a POST to a location that answers with 303 leads.
sub led_to($world, $path, $body = '{}') {
    my $answer = $world->host->post($path, $body, @demo, 'Content-Type' => 'application/json');
    die "$path: " . $answer->status . ' ' . $answer->body . "\n" if $answer->status != 303;
    return $answer->header('Location');
}

# Pays with a card that will fail at the renewal; returns the subscription.
sub subscribed($world) {
    is $world->host->get('/plain/x', @demo)->status, 200, 'an account';
    my $session = led_to($world, '/billing/checkout', '{"plan":"starter"}');
    is $world->stripe->press($session, do => 'pay', by => 'later')->status, 303, 'pays';
    within_a_second($world, 'and has the plan', 200, GET => '/export/x');
    return ($world->stripe->all('subscription'))[0];
}

sub settled($world) {
    $world->stripe->wait_delivered;
    wait_for(sub { !$world->sql(q{SELECT 1 FROM billing.webhook_events WHERE status IN ('received', 'processing')}) }, 20,
        'all events are processed');
    return;
}

sub account($world) {
    return ($world->sql(q{SELECT p.plan_key AS plan, a.status, a.maintenance, extract(epoch FROM a.grace_until)::bigint AS grace_until
        FROM billing.accounts a JOIN billing.plans p USING (plan_no) WHERE external_id = 'demo'}))[0];
}

# What the front end was told of failed payments, oldest first.
sub failures($world) {
    return map { decode_json($_->{payload}) } $world->sql(q{SELECT payload FROM billing.outbox
        WHERE topic = 'subscription:payment-failed' ORDER BY id});
}

subtest 'maintenance' => sub {
    my $world = world(hosts => 2, stripe => 1, billing => 'billing_payment_failed maintenance;', locations => $locations);
    my $stripe = $world->stripe;
    my $subscription = subscribed($world);

    $stripe->end_period($subscription);
    within_a_second($world, 'W9: the renewal fails: changes', '402 MAINTENANCE', POST => '/plain/x');
    everywhere($world, 'G5: reading goes on', 200, GET => '/plain/x');
    everywhere($world, 'G5: what the plan has too', 200, GET => '/export/x');
    settled($world);
    is_deeply [@{account($world)}{qw(plan status maintenance)}], [qw(starter past_due payment)], 'W9: past due, held for the payment';
    my $invoice = $stripe->object($stripe->object($subscription->{id})->{latest_invoice});
    my @told = failures($world);
    is_deeply [map { "$_->{tier} $_->{status} $_->{attemptCount}" } @told], ['starter past_due 1'], 'N1: told once';
    like $told[0]{nextRetryDate}, qr/^\d{4}-\d\d-\d\dT/, 'N1: with the next try';

    is problem($world->host(1)->post('/plain/x', '', @demo))->{portalUrl}, $world->public_url . '/billing/portal',
        'the refusal says where to pay';
    like led_to($world, '/billing/portal'), qr{/p/session/}, 'G5: which stays open';
    like led_to($world, '/billing/checkout', '{"plan":"pro"}'), qr{/p/session/}, 'C5: and a checkout leads there';

    $stripe->advance(to => $invoice->{next_payment_attempt});
    settled($world);
    is_deeply [map { $_->{attemptCount} } failures($world)], [1, 2], 'W9: Stripe tries again, in vain: told once more';
    everywhere($world, 'W9: which changes nothing', '402 MAINTENANCE', POST => '/plain/x');

    is $stripe->press(led_to($world, '/billing/portal'), do => 'card')->status, 303, 'a good card in the portal';
    within_a_second($world, 'W8: paying mends it', 200, POST => '/plain/x');
    settled($world);
    is_deeply account($world), {plan => 'starter', status => 'active', maintenance => 'none', grace_until => undef}, 'W8: nothing is left of it';

    $stripe->settings(after_retries => 'unpaid');
    $stripe->new_card($subscription->{customer}, declines => 1);
    $stripe->end_period($subscription);
    within_a_second($world, 'the next renewal fails too', '402 MAINTENANCE', POST => '/plain/x');
    $stripe->advance(20 * 86400);
    within_a_second($world, 'G7: Stripe gives up: unpaid gives no access', '402 SUBSCRIPTION_INACTIVE', GET => '/plain/x');
    is $stripe->press(led_to($world, '/billing/portal'), do => 'card')->status, 303, 'a good card, late';
    within_a_second($world, 'W8: mends that as well', 200, POST => '/plain/x');

    $world->must('account', 'set', 'demo', '--maintenance', 'operator');
    within_a_second($world, 'G5: an operator closes it', '402 MAINTENANCE', POST => '/plain/x');
    $stripe->end_period($subscription);
    settled($world);
    everywhere($world, 'G5: a renewal that is paid does not open what the operator closed', '402 MAINTENANCE', POST => '/plain/x');
    $stripe->cancel_now($subscription->{id});
    settled($world);
    is_deeply [@{account($world)}{qw(plan status maintenance)}], [qw(free active operator)], 'nor does the end';
    is $stripe->log_text, '', 'the stand-in had nothing to complain about';
};

subtest 'grace' => sub {
    my ($hour, $day) = (3600, 86400);
    my $clock = Billing::Clock->new;
    # Stripe tells this endpoint in an old layout, W11.
    my $world = world(clock => $clock, stripe => {webhook => {api_version => '2022-11-15'}},
        billing => 'billing_payment_failed grace 1d;', locations => $locations);
    my ($host, $stripe) = ($world->host, $world->stripe);
    my $decides = sub ($wanted, $what, $method = 'GET') {
        is $host->request($method, '/plain/x', headers => {@demo})->header('X-Decision'), $wanted, $what;
    };
    my $subscription = subscribed($world);
    my ($end) = map { $_->{current_period_end} } $subscription->{items}{data}->@*;

    $clock->advance($end - $clock->now + $hour / 2);
    is $stripe->object($subscription->{id})->{status}, 'active', 'the period is over, the renewal not yet charged';
    settled($world);
    $decides->('allow', 'nobody is locked out at the turn of a period');

    $clock->advance($hour / 2 + 60);
    is $stripe->object($subscription->{id})->{status}, 'past_due', 'the renewal fails';
    settled($world);
    wait_for(sub { $host->get('/plain/x', @demo)->header('X-Decision') eq 'allow_grace' }, 5, 'the host knows') ;
    $decides->('allow_grace', 'W9: reading goes on, marked');
    $decides->('allow_grace', 'W9: and so do changes', 'POST');
    everywhere($world, 'and what the plan has', 200, GET => '/export/x');
    my $account = account($world);
    is_deeply [@$account{qw(plan status maintenance)}], [qw(starter past_due none)], 'W9: past due, nothing held';
    my $failed = $end + $hour;
    cmp_ok abs($account->{grace_until} - $failed - $day), '<', 90, 'W9: the grace begins at the first failure';

    $clock->advance($failed + $day - 120 - $clock->now);
    $decides->('allow_grace', 'until it is over');
    $clock->advance(240);
    everywhere($world, 'G7: then access ends, without an event', '402 SUBSCRIPTION_INACTIVE', GET => '/plain/x');
    everywhere($world, 'for changes too', '402 SUBSCRIPTION_INACTIVE', POST => '/plain/x');
    is problem($host->get('/plain/x', @demo))->{portalUrl}, $world->public_url . '/billing/portal', 'and is told where to pay';
    is account($world)->{grace_until}, $account->{grace_until}, 'nothing was written for that';

    $clock->advance(3 * $day);
    $stripe->now;
    settled($world);
    is_deeply [map { $_->{attemptCount} } failures($world)], [1, 2], 'Stripe tries again, in vain';
    is account($world)->{grace_until}, $account->{grace_until}, 'W9: which gives no new grace';
    everywhere($world, 'and no access', '402 SUBSCRIPTION_INACTIVE', GET => '/plain/x');

    is $stripe->press(led_to($world, '/billing/portal'), do => 'card')->status, 303, 'a good card in the portal';
    within_a_second($world, 'W8: paying mends it', 200, GET => '/plain/x');
    settled($world);
    $decides->('allow', 'W8: without a mark');
    is_deeply account($world), {plan => 'starter', status => 'active', maintenance => 'none', grace_until => undef}, 'W8: nothing is left of it';
    is $stripe->log_text, '', 'the stand-in had nothing to complain about';
};

done_testing;
