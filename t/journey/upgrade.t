# The second promise: the gate sells the way out of its own 402. What is paid at Stripe opens every host within a second, by a signed
# event that reached one of them; starting a checkout changes nothing; one account has one customer and one subscription; an event that
# was acknowledged is stored and applied once, whatever dies right after. C1 C2 C3 C4 C5 C8 C9, W1 W2 W3 W4 W5 W6 W7, N1.
use v5.36;
use Billing::Client qw(request requests);
use Billing::Journey qw(problem everywhere within_a_second);
use Billing::Test;
use Digest::SHA qw(hmac_sha256_hex sha256_hex);
use JSON::PP qw(encode_json);

my @demo = (Authorization => 'Bearer demo-token');
sub as($account) { (Authorization => "Bearer test:$account") }

# fsync: what PostgreSQL has acknowledged survives its kill -9.
my $world = world(hosts => 2, stripe => 1, database => {fsync => 1}, locations => <<'END');
    billing on;
    billing_account $user;
    location /api/ { billing_quota requests; proxy_pass http://app; }
    location /export/ { billing_feature asset_download; proxy_pass http://app; }
    location /video/ { billing_feature video_generation; proxy_pass http://app; }
    location = /billing/checkout { billing_checkout; }
    location = /billing/portal { billing_portal; }
    location = /billing/webhook { billing_webhook; }
    location = /billing/second { billing_webhook; billing_webhook_secret whsec_old whsec_new; }
END
my ($one, $two) = $world->hosts;
my $stripe = $world->stripe;

# --- clients ---

sub post_json($url, $body, @headers) {
    my ($address, $path) = $url =~ m{^http://([^/]+)(/.*)$} or die "no address: $url\n";
    return request($address, 'POST', $path, headers => {'Content-Type' => 'application/json', @headers}, body => encode_json($body));
}

sub post_form($url, $body, @headers) {
    my ($address, $path) = $url =~ m{^http://([^/]+)(/.*)$} or die "no address: $url\n";
    return request($address, 'POST', $path, headers => {'Content-Type' => 'application/x-www-form-urlencoded', @headers}, body => $body);
}

sub at($host, $path) { 'http://' . $host->address . $path }

my $checkout = $world->public_url . '/billing/checkout';
my $portal = $world->public_url . '/billing/portal';

# An account comes into being and buys: the address of its session, still to be paid.
sub begun($account, $plan = 'starter') {
    my $answer = post_json($checkout, {plan => $plan}, as($account));
    die "checkout of $account: " . $answer->status . ' ' . $answer->body . "\n" if $answer->status != 200;
    return $answer->json->{url};
}

sub session_of($account) {
    return grep { ($_->{client_reference_id} // '') eq $account } $stripe->all('checkout.session');
}

# --- PostgreSQL ---

sub row($account) {
    return ($world->sql(q{SELECT to_jsonb(a) - 'stripe_customer_id' AS row FROM billing.accounts a WHERE external_id = $1}, $account))[0]{row};
}

sub plan_of($account) {
    return ($world->sql('SELECT p.plan_key FROM billing.accounts a JOIN billing.plans p USING (plan_no) WHERE a.external_id = $1',
        $account))[0]{plan_key};
}

sub count($what) { ($world->sql("SELECT count(*) AS n FROM billing.$what"))[0]{n} }

# All that an event could have changed.
sub everything() {
    return ($world->sql(q{SELECT (SELECT count(*) FROM billing.audit_log) AS audit, (SELECT count(*) FROM billing.outbox) AS outbox,
        (SELECT count(*) FROM billing.credit_ledger) AS ledger, (SELECT count(*) FROM billing.webhook_events) AS events,
        (SELECT jsonb_agg(b ORDER BY b) FROM billing.credit_balances b) AS balances,
        (SELECT jsonb_agg(to_jsonb(a) ORDER BY a.id) FROM billing.accounts a) AS accounts,
        (SELECT jsonb_agg(to_jsonb(s) ORDER BY s) FROM billing.subscriptions s) AS subscriptions}))[0];
}

# Everything that Stripe had to say has arrived and is processed.
sub settled() {
    $stripe->wait_delivered;
    wait_for(sub { !$world->sql(q{SELECT 1 FROM billing.webhook_events WHERE status IN ('received', 'processing')}) }, 20,
        'all events are processed');
    return;
}

# --- the way ---

my $session;

subtest 'refused, and told where to go' => sub {
    my @statuses = map { ($one, $two)[$_ % 2]->get('/api/x', @demo)->status } 1 .. 21;
    is_deeply \@statuses, [(200) x 20, 402], 'a free account has twenty requests';
    for my $host ($one, $two) {
        my $body = problem($host->get('/api/x', @demo));
        is_deeply [@$body{qw(code plan requiredPlan upgradeUrl)}], ['LIMIT_REQUESTS', 'free', 'starter', $checkout],
            "G19: $host->{name}: the plan that would do, and where it is sold";
    }
    my $body = problem($one->get('/export/x', @demo));
    is $body->{requiredPlan}, 'starter', 'G9: so does a feature';
};

subtest 'a checkout, begun' => sub {
    my $before = row('demo');
    my $refused = problem($two->get('/api/x', @demo));
    my $answer = post_json($refused->{upgradeUrl}, {plan => $refused->{requiredPlan}}, @demo);
    is $answer->status, 200, 'C1: POST to the address in the refusal, with the plan in it';
    is $answer->header('Content-Type'), 'application/json', 'is answered with JSON';
    is $answer->header('Cache-Control'), 'no-store', 'that nobody keeps';
    my $url = $answer->json->{url};
    like $url, qr{^\Q@{[$stripe->url]}\E/c/pay/cs_}, 'C1: the address of a session at Stripe';
    is $answer->json->{checkoutUrl}, $url, 'AC-01: also as checkoutUrl';

    ($session) = session_of('demo');
    is_deeply [@$session{qw(mode status client_reference_id)}, $session->{metadata}{account}], ['subscription', 'open', 'demo', 'demo'],
        'C6: a subscription for this account';
    my $lines = $stripe->api(GET => "/v1/checkout/sessions/$session->{id}/line_items")->json;
    is_deeply [map { "$_->{price}{id} $_->{quantity}" } $lines->{data}->@*], ['price_starter_monthly 1'], 'C2: at the price of the catalog';
    is $session->{success_url}, $world->public_url . '/?checkout=success&session_id={CHECKOUT_SESSION_ID}', 'C6: the way back';
    is $session->{cancel_url}, $world->public_url . '/?checkout=canceled', 'C6: and the one without paying';

    my $form = post_form(at($two, '/billing/checkout'), 'plan=starter&interval=month', @demo);
    is $form->status, 303, 'C1: a form is sent on';
    is $form->header('Location'), $url, 'C6: from the other host, to the same session: it is still open';
    is post_json("$checkout?plan=starter_monthly", {}, @demo)->json->{url}, $url, 'C1: the plan may stand in the query';
    is post_json($checkout, {tier => 'starter', price => 'price_agency_monthly', amount => 1, quantity => 1}, @demo)->json->{url}, $url,
        'C2: and is all that a client can choose';
    is scalar(session_of('demo')), 1, 'one session';
    is scalar($stripe->all('customer')), 1, 'C4: one customer';
    is +($stripe->all('customer'))[0]{metadata}{account}, 'demo', 'C4: which names its account';

    everywhere($world, 'C8: nothing has changed', '402 LIMIT_REQUESTS', GET => '/api/x');
    everywhere($world, 'C8: for the feature either', '403 FEATURE_NOT_IN_PLAN', GET => '/export/x');
    is row('demo'), $before, 'C8: nor in the account';

    my $other = post_json($checkout, {plan => 'pro', interval => 'year'}, @demo)->json->{url};
    isnt $other, $url, 'another plan is another session';
    is_deeply [map { $_->{status} } session_of('demo')], ['expired', 'open'], 'C5: and ends the first: nobody holds two that can be paid';
    $url = post_json($checkout, {plan => 'starter'}, @demo)->json->{url};
    ($session) = grep { $_->{status} eq 'open' } session_of('demo');
    is $session->{url}, $url, 'back to the first plan';
};

subtest 'what is no checkout' => sub {
    my $before = session_of('demo');
    is post_json($checkout, {plan => 'starter'})->status, 401, 'C3: nobody';
    is problem(post_json($checkout, {plan => 'starter'}))->{status}, 401, 'told as a problem document';
    my $get = $one->get('/billing/checkout', @demo);
    is $get->status, 405, 'GET';
    like $get->header('Allow'), qr/^POST\b/, 'with what is allowed';
    is post_json($checkout, {plan => $_}, @demo)->status, 400, "C2: no such plan: $_" for 'gold', 'starter_yearly', 'price_other', "starter'";
    is post_json($checkout, {plan => 'free'}, @demo)->status, 400, 'C2: a plan without a price';
    is post_json($checkout, {}, @demo)->status, 400, 'C1: no plan';
    is post_json($checkout, ['starter'], @demo)->status, 400, 'no object';
    is request($one->address, 'POST', '/billing/checkout', headers => {@demo, 'Content-Type' => 'application/json'}, body => '{"plan":')->status,
        400, 'no JSON';
    is post_form($checkout, 'plan=starter', @demo, Origin => 'https://elsewhere.example')->status, 403, 'a form of another site';
    is post_json($checkout, {plan => 'starter'}, as('a b'))->status, 400, 'an id with a space';
    is scalar(session_of('demo')), $before, 'no session was made';
};

subtest 'paid' => sub {
    my $paid = $stripe->press($session->{url}, do => 'pay', by => 'card');
    is $paid->status, 303, 'the customer pays';
    is $paid->header('Location'), $world->public_url . "/?checkout=success&session_id=$session->{id}", 'and is led back';
    within_a_second($world, 'W5: the same request', 200, GET => '/api/x');
    within_a_second($world, 'W6: and the paid feature', 200, GET => '/export/x');
    everywhere($world, 'what the plan lacks stays closed', '403 FEATURE_NOT_IN_PLAN', GET => '/video/x');
    settled();
    my ($endpoint, @others) = do { my %of; $of{$_->{endpoint}}++ for $stripe->deliveries; keys %of };
    ok $endpoint && !@others, 'one host alone was told';
    my $account = $world->account('demo');
    is_deeply [@$account{qw(plan status)}], ['starter', 'active'], 'W5: the account is on the plan';
    is_deeply [map { "$_->{credit_key} $_->{remaining}" } $world->sql('SELECT * FROM billing.credit_balances JOIN billing.credit_types
        USING (credit_no) ORDER BY 1')], ['logo 20', 'mockup 20'], 'W5: with its credits';
    is_deeply [map { $_->{topic} } $world->sql(q{SELECT topic FROM billing.outbox WHERE topic LIKE 'subscription:%' ORDER BY id})],
        ['subscription:activated'], 'N1: which is told once';
    is_deeply [$world->sql(q{SELECT event_id, last_error FROM billing.webhook_events WHERE status NOT IN ('processed', 'ignored')})], [],
        'W3: no event is left over';
};

subtest 'subscribed' => sub {
    for my $host ($one, $two) {
        my $again = post_json(at($host, '/billing/checkout'), {plan => 'pro'}, @demo);
        is $again->status, 409, "C5: $host->{name}: no second subscription";
        is_deeply [@{problem($again)}{qw(currentTier portalUrl)}], ['starter', $portal], 'AC-02: but where the first can be changed';
    }
    my $form = post_form($checkout, 'plan=pro', @demo);
    is $form->status, 303, 'C5: a form is sent';
    like $form->header('Location'), qr{^\Q@{[$stripe->url]}\E/p/session/}, 'to the portal';
    is_deeply [grep { $_->{status} eq 'open' } session_of('demo')], [], 'and no session was made';
};

subtest 'the portal' => sub {
    is post_json($portal, {customer => 'cus_of_somebody_else'}, @demo)->status, 403, "C9: not somebody else's";
    my $answer = post_json($portal, {}, @demo);
    is $answer->status, 200, 'C9: answers';
    is $answer->header('Cache-Control'), 'no-store', 'what nobody keeps';
    is $answer->json->{portalUrl}, $answer->json->{url}, 'AC-21: an address';
    my $page = $stripe->visit($answer->json->{url});
    like $page->body, qr/Starter.*USD 29\.00/s, 'C9: of the own subscription';
    like $page->body, qr/\Q@{[$world->public_url]}\E/, 'with the way back';
    my $form = post_form(at($two, '/billing/portal'), '', @demo);
    is $form->status, 303, 'C9: a form is sent there';
    like $form->header('Location'), qr{/p/session/}, 'by the other host too';
    is post_json($portal, {})->status, 401, 'C3: nobody has none';
    is $one->get('/api/x', as('new'))->status, 200, 'an account that has bought nothing';
    is post_json($portal, {}, as('new'))->status, 404, 'C9: has no customer';
    is $one->get('/billing/portal', @demo)->status, 405, 'GET';
    is scalar($stripe->calls(method => 'POST', path => '/v1/customers')), 1, 'C4: in all of this one customer was made, by one call';

    my $subscription = ($stripe->all('subscription'))[0];
    is $stripe->press($answer->json->{url}, do => 'change', subscription => $subscription->{id}, price => 'price_pro_monthly')->status, 303,
        'a change of plan there';
    within_a_second($world, 'W6: the new plan', 200, GET => '/video/x');
    settled();
};

subtest 'an event, twice' => sub {
    my $before = everything();
    for my $type (qw(checkout.session.completed customer.subscription.created invoice.paid customer.subscription.updated)) {
        my @attempts = $stripe->deliver(($stripe->events($type))[-1], times => 3);
        is_deeply [map { "$_->{status} $_->{body}" } @attempts], [('200 {"received":true,"duplicate":true}') x 3], "AC-07: $type again";
    }
    settled();
    is_deeply everything(), $before, 'W2: no second effect: audit, outbox, ledger, balances and accounts are as before';
};

subtest 'many at once, in any order' => sub {
    $stripe->hold;
    $stripe->press(begun($_), do => 'pay', by => 'card') for 'crowded', 'backwards';
    my @sent = $stripe->release_together(8);
    is_deeply [grep { $_->{status} != 200 } map { $_->{attempts}->@* } @sent], [], 'W2: each delivered eight times at the same time: 200';
    my %first;
    $first{$_->{event}} += grep { $_->{body} !~ /duplicate/ } $_->{attempts}->@* for @sent;
    is_deeply [grep { $_ != 1 } values %first], [], 'and one of the eight is the first';
    within_a_second($world, "W4: $_: the plan", 200, GET => '/export/x', as($_)) for 'crowded', 'backwards';

    $stripe->hold;
    $stripe->change_plan($_->{id}, 'price_pro_monthly') for grep { $_->{items}{data}[0]{price}{id} eq 'price_starter_monthly' }
        $stripe->all('subscription');
    $stripe->release(order => 'reverse');
    within_a_second($world, "W4: $_: the latest state, though told backwards", 200, GET => '/video/x', as($_)) for 'crowded', 'backwards';
    settled();
    is_deeply [map { $_->{n} } $world->sql(q{SELECT count(*) AS n FROM billing.outbox WHERE topic = 'subscription:activated'
        GROUP BY account_id})], [1, 1, 1], 'W2: each account was told once';
};

# --- what is no event, and what is a large one ---

sub signed($body, $secret = $world->webhook_secret, $time = time) { "t=$time,v1=" . hmac_sha256_hex("$time.$body", $secret) }

sub send_event($body, $signature = signed($body), $path = '/billing/webhook') {
    return $one->post($path, $body, 'Content-Type' => 'application/json; charset=utf-8', 'Stripe-Signature' => $signature);
}

# An event of a type that nobody handles, of so many bytes.
sub padded($id, $bytes) {
    my $head = encode_json({id => $id, object => 'event', api_version => '2026-02-25.clover', created => time, livemode => JSON::PP::false,
        type => 'product.updated', data => {object => {id => 'prod_1', object => 'product', metadata => {pad => 'PAD'}}}});
    return $head =~ s/PAD/'x' x ($bytes - length($head) + 3)/er;
}

subtest 'what is not signed by Stripe' => sub {
    my $stored = count('webhook_events');
    my ($event) = $stripe->events('invoice.paid');
    my %wrong = ('another secret' => {secret => 'whsec_another'}, 'a stale timestamp' => {offset => -301}, 'no signature' => {header => undef},
        'another body' => {sign => 'x'}, 'nonsense' => {header => 'v1=1'}, 'v0 alone' => {header => 't=' . time . ',v0=' . 'a' x 64});
    for my $what (sort keys %wrong) {
        my ($attempt) = $stripe->deliver($event, $wrong{$what}->%*);
        is $attempt->{status}, 400, "W1: $what";
        is $attempt->{headers}{'content-type'}, 'application/problem+json', 'told as a problem document';
    }
    is send_event('{"id":')->status, 400, 'W1: signed, but no JSON';
    is send_event('[]')->status, 400, 'W1: signed, but no event';
    my $get = $one->get('/billing/webhook');
    is $get->status, 405, 'W1: GET';
    like $get->header('Allow'), qr/^POST\b/, 'with what is allowed';
    is count('webhook_events'), $stored, 'nothing of it is stored';
    is +(grep { /prod_1|data.*object/ } $one->log_lines), 0, 'or logged';
    my $endpoint = ($stripe->deliveries)[0]{endpoint};
    $stripe->roll_secret($endpoint);
    is +($stripe->deliver($event))[0]{status}, 200, 'W1: one good signature of two will do while a secret is rolled';
    $stripe->roll_secret($endpoint, secret => $world->webhook_secret);
    $stripe->roll_secret($endpoint, end => 1);

    my $body = padded('evt_elsewhere', 300);
    my @statuses = map { send_event($body, signed($body, $_), '/billing/second')->status } 'whsec_old', 'whsec_new', $world->webhook_secret;
    is_deeply \@statuses, [200, 200, 400], 'W1: another location has secrets of its own, of which any will do';
    is send_event($body, signed($body, 'whsec_new'))->status, 400, 'W1: which this one does not know';
};

subtest 'large events' => sub {
    my %sizes = (evt_small => 300, evt_large => 300_000, evt_largest => 512 * 1024);
    for my $id (sort keys %sizes) {
        my $body = padded($id, $sizes{$id});
        is length $body, $sizes{$id}, "$sizes{$id} bytes";
        is send_event($body)->body, '{"received":true}', 'W2: are taken';
        my ($row) = $world->sql('SELECT status, encode(sha256(payload), $2) AS digest FROM billing.webhook_events WHERE event_id = $1', $id, 'hex');
        is_deeply $row, {status => 'ignored', digest => sha256_hex($body)}, 'and kept, byte by byte';
    }
    is send_event(padded('evt_too_large', 512 * 1024 + 1))->status, 413, 'W1: one byte more is not';

    my $in_chunks = sub ($body) {
        my $chunks = join '', map { sprintf "%x\r\n%s\r\n", length, $_ } unpack('(a60000)*', $body), '';
        return $one->post('/billing/webhook', $chunks, 'Transfer-Encoding' => 'chunked', 'Stripe-Signature' => signed($body));
    };
    is $in_chunks->(padded('evt_chunked', 300_000))->body, '{"received":true}', 'W2: in chunks of unknown sum';
    is $in_chunks->(padded('evt_chunked_too_large', 600_000))->status, 413, 'W1: which have the same bound';
    is count(q{webhook_events WHERE event_id LIKE 'evt_%too_large'}), 0, 'nothing too large is stored';
};

subtest 'twenty first checkouts at the same time' => sub {
    my @answers = requests(20, map { {address => ($one, $two)[$_ % 2]->address, method => 'POST', path => '/billing/checkout',
        headers => {as('twenty'), 'Content-Type' => 'application/json'}, body => '{"plan":"pro"}'} } 1 .. 20);
    is_deeply [grep { $_ != 200 } map { $_->status } @answers], [], 'are all answered';
    my %urls = map { ($_->json->{url} // '') => 1 } @answers;
    is keys %urls, 1, 'with one session';
    is grep({ $_->{status} eq 'open' } session_of('twenty')), 1, 'C5: which is the only one that can be paid';
    is grep({ ($_->{metadata}{account} // '') eq 'twenty' } $stripe->all('customer')), 1, 'C4: and one customer';
};

# --- what dies right after the 200 ---

# Pays for an account while the jobs, having taken the event, wait for Stripe's list; returns the ids that were answered with 200.
sub paid_and_stuck($account) {
    my $url = begun($account);
    $stripe->hold;
    $stripe->press($url, do => 'pay', by => 'card');
    $stripe->fault(path => '/v1/subscriptions', hang => 1, count => 0);
    my @sent = $stripe->release;
    wait_for(sub { $stripe->calls(path => '/v1/subscriptions', status => 0) }, 10, 'the jobs ask Stripe');
    return map { $_->{event} } grep { $_->{attempts}[-1]{status} == 200 } @sent;
}

# The time until a lease of the dead runs out is not waited for.
sub lease_over() { $world->sql(q{UPDATE billing.webhook_events SET next_attempt_at = now() WHERE status IN ('received', 'processing')}) }

subtest 'kill -9 of every worker right after the 200' => sub {
    my @acknowledged = paid_and_stuck('worker-dies');
    ok @acknowledged > 3, 'events are acknowledged';
    is plan_of('worker-dies'), 'free', 'and not yet applied';
    $_->kill9_worker for $one, $two, $one, $two;
    $stripe->clear_faults;
    lease_over();
    wait_for(sub { plan_of('worker-dies') eq 'starter' }, 15, 'the plan');
    within_a_second($world, 'W3: the paid feature', 200, GET => '/export/x', as('worker-dies'));
    settled();
    my %stored = map { $_->{event_id} => 1 } $world->sql(q{SELECT event_id FROM billing.webhook_events WHERE status IN ('processed', 'ignored')});
    is_deeply [grep { !$stored{$_} } @acknowledged], [], 'W2: every event that was acknowledged is stored and processed';
    is count(q{outbox o JOIN billing.accounts a ON a.id = o.account_id WHERE topic = 'subscription:activated' AND external_id = 'worker-dies'}), 1,
        'W3: once';
};

subtest 'kill -9 of PostgreSQL right after the 200' => sub {
    my @acknowledged = paid_and_stuck('postgres-dies');
    $world->db->kill9;
    $stripe->clear_faults;
    is send_event(padded('evt_away', 300))->status, 503, 'W2: what cannot be stored is not acknowledged';
    $world->db->start;
    my %stored = map { $_->{event_id} => 1 } $world->sql('SELECT event_id FROM billing.webhook_events');
    ok @acknowledged > 3, 'events were acknowledged';
    is_deeply [grep { !$stored{$_} } @acknowledged], [], 'W2: and all of them are there';
    lease_over();
    wait_for(sub { lease_over(); plan_of('postgres-dies') eq 'starter' }, 20, 'the plan');
    pass 'W3: the plan is there';
    wait_for(sub { !grep { $_->get('/export/x', as('postgres-dies'))->status != 200 } $one, $two }, 15, 'both hosts follow');
    pass 'and both hosts follow';
    wait_for(sub { send_event(padded('evt_away', 300))->status == 200 }, 10, 'events are taken again');
    settled();
    is count(q{outbox o JOIN billing.accounts a ON a.id = o.account_id WHERE topic = 'subscription:activated' AND external_id = 'postgres-dies'}), 1,
        'W3: once';
};

# --- and back ---

subtest 'canceled in the portal' => sub {
    my ($subscription) = grep { $_->{metadata}{account} eq 'demo' } $stripe->all('subscription');
    my $url = wait_for(sub { post_json($portal, {}, @demo)->json->{url} }, 10, 'the portal, of a worker that has PostgreSQL again');
    is $stripe->press($url, do => 'cancel', subscription => $subscription->{id})->status, 303, 'the customer cancels';
    settled();
    ok +($world->sql(q{SELECT cancel_at FROM billing.accounts WHERE external_id = 'demo'}))[0]{cancel_at}, 'AC-23: the end is known';
    everywhere($world, 'until then', 200, GET => '/export/x');
    $stripe->end_period($subscription);
    within_a_second($world, 'W7: at the end: free', '403 FEATURE_NOT_IN_PLAN', GET => '/export/x');
    within_a_second($world, 'W7: with what is left of the month', '402 LIMIT_REQUESTS', GET => '/api/x');
    settled();
    is_deeply [@{$world->account('demo')}{qw(plan status)}], ['free', 'active'], 'W7: the free plan';
    is_deeply [map { $_->{topic} } $world->sql(q{SELECT topic FROM billing.outbox o JOIN billing.accounts a ON a.id = o.account_id
        WHERE external_id = 'demo' AND topic LIKE 'subscription:%' ORDER BY o.id DESC LIMIT 1})], ['subscription:canceled'], 'N1: told';
    my $again = post_json($checkout, {plan => 'starter'}, @demo);
    is $again->status, 200, 'C5: and can be bought again';
    is +(grep { $_->{status} eq 'open' } session_of('demo'))[0]{customer}, $subscription->{customer}, 'C4: by the same customer';
};

is $stripe->log_text, '', 'the stand-in had nothing to complain about';
done_testing;
