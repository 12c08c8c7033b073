# What can be bought is what the catalog sells, whatever the client writes; every answer has the shape that its client asked for;
# nobody ends up with two customers or with two checkouts that can be paid. C1 C2 C3 C4 C5 C6 C8 C9 C10.
use v5.36;
use Billing::Test;
use Billing::Journey qw(problem answer_of);

my $world = world(
    stripe => 1,
    locations => <<'END',
    billing_account $user;
    location /api/ { billing on; billing_quota requests; proxy_pass http://app; }
    location = /billing/checkout { billing_checkout; }
    location = /billing/portal { billing_portal; }
    location = /billing/webhook { billing_webhook; }
    location = /go/checkout { billing_checkout redirect; billing_success_url "/done?id={CHECKOUT_SESSION_ID}"; billing_cancel_url https://shop.example/no; }
    location = /go/portal { billing_portal redirect; }
    location /coded/ { billing_codes unknown_plan=404 no_customer=501 stripe_error=500 no_account=403; location = /coded/checkout { billing_checkout; } location = /coded/portal { billing_portal; } }
    location = /known/checkout { billing_unknown_account deny; billing_checkout; }
    location /gated/ { billing on; billing_plan >=agency; location = /gated/checkout { billing_checkout; } }
END
);
my $host = $world->host;
my $stripe = $world->stripe;
my $json = JSON::PP->new->canonical;

sub as($account) { (Authorization => "Bearer test:$account") }
sub post($path, $account, $body, %headers) {
    return $host->request('POST', $path, body => ref $body ? $json->encode($body) : $body,
        headers => {as($account), 'Content-Type' => ref $body ? 'application/json' : 'application/x-www-form-urlencoded', %headers});
}
sub checkout($account, $body, %headers) { post('/billing/checkout', $account, $body, %headers) }
sub sessions($account) { grep { $_->{client_reference_id} eq $account } $stripe->all('checkout.session') }
sub price_of($session) { $stripe->object($session->{id})->{metadata}{price} }

subtest 'C1: what is bought has several names, and each way of naming it works' => sub {
    my $number = 0;
    for my $case (
        [{plan => 'starter'}, 'price_starter_monthly'], [{tier => 'starter'}, 'price_starter_monthly'],
        [{planKey => 'pro'}, 'price_pro_monthly'], [{plan => 'pro', interval => 'year'}, 'price_pro_yearly'],
        [{plan => 'pro_yearly'}, 'price_pro_yearly'], [{priceId => 'price_agency_monthly'}, 'price_agency_monthly'],
        ['plan=starter', 'price_starter_monthly'], ['tier=pro&interval=year', 'price_pro_yearly'],
    ) {
        my ($body, $price) = @$case;
        my $account = 'name-' . ++$number;
        my $answer = checkout($account, $body);
        is $answer->status, ref $body ? 200 : 303, 'the answer to ' . (ref $body ? $json->encode($body) : "the form $body");
        my ($session) = sessions($account);
        is price_of($session), $price, "buys $price";
        is ref $body ? $answer->json->{url} : $answer->header('Location'), $session->{url}, 'and leads there';
        is $answer->header('Cache-Control'), 'no-store', 'nobody keeps the address';
    }
    is answer_of($host->request('POST', '/billing/checkout?plan=pro_monthly', headers => {as('by-query')})), '200', 'by the query alone';
    is price_of(sessions('by-query')), 'price_pro_monthly', 'buys that';
    is_deeply [sort keys checkout('by-query', {plan => 'pro'})->json->%*], [qw(checkoutUrl url)], 'the address has two names';
};

subtest 'C1: redirect for everybody, and pages of its own' => sub {
    my $answer = post('/go/checkout', 'redirected', {plan => 'starter'});
    is $answer->status, 303, '303, never 302, though JSON was sent';
    my ($session) = sessions('redirected');
    is $session->{success_url}, $world->public_url . '/done?id={CHECKOUT_SESSION_ID}', 'C6: a path is below the public address, the placeholder arrives as it is';
    is $session->{cancel_url}, 'https://shop.example/no', 'a whole address is itself';
    is post('/go/portal', 'redirected', '')->status, 303, 'the portal too';
};

subtest 'C2: nothing but the catalog says what is bought' => sub {
    is answer_of(checkout('curious', {plan => 'gold'})), '400 UNKNOWN_PLAN', 'an unknown plan';
    is answer_of(checkout('curious', {priceId => 'price_of_somebody_else'})), '400 UNKNOWN_PLAN', 'a price that is not in the catalog';
    is answer_of(checkout('curious', {plan => 'free'})), '400 NO_PRICE', 'a plan without a price';
    is answer_of(checkout('curious', {plan => 'starter', interval => 'year'})), '400 UNKNOWN_PLAN', 'an interval that is not sold';
    is answer_of(checkout('curious', {})), '400 UNKNOWN_PLAN', 'nothing named';
    is answer_of(checkout('curious', 'plan=%zz')), '400 INVALID_BODY', 'a broken form';
    is answer_of(post('/billing/checkout', 'curious', '[1]', 'Content-Type' => 'application/json')), '400 INVALID_BODY', 'no object';
    is answer_of(post('/billing/checkout', 'curious', '{"plan":"pro"}', 'Content-Type' => 'text/plain')), '400 INVALID_BODY', 'JSON under another type';
    is scalar(sessions('curious')), 0, 'and Stripe has not been asked';
    checkout('curious', {plan => 'starter', quantity => 50, amount => 1, price => 'price_x', metadata => {plan => 'agency'}});
    my ($session) = sessions('curious');
    is_deeply [$session->{amount_total}, $session->{metadata}], [2900, {account => 'curious', plan => 'starter', price => 'price_starter_monthly', quantity => '1'}],
        'further members change nothing';
};

subtest 'C3: who may' => sub {
    is answer_of($host->request('POST', '/billing/checkout', body => 'plan=pro', headers => {'Content-Type' => 'application/x-www-form-urlencoded'})),
        '401 ACCOUNT_REQUIRED', 'not nobody';
    is answer_of(checkout('a b', {plan => 'pro'})), '400 INVALID_ACCOUNT', 'not a nonsense';
    is answer_of(checkout('victim', 'plan=pro', Origin => 'https://evil.example')), '403 CROSS_SITE', 'A13: not a page of another site';
    is answer_of(post('/billing/portal', 'victim', '', 'Sec-Fetch-Site' => 'cross-site')), '403 CROSS_SITE', 'A13: nor to the portal';
    is answer_of(checkout('victim', 'plan=pro', Origin => $world->public_url)), '303', 'a page of ours';
    is answer_of(post('/known/checkout', 'stranger', {plan => 'pro'})), '403 UNKNOWN_ACCOUNT', 'where strangers are refused, they are';
    is answer_of(post('/gated/checkout', 'small', {plan => 'pro'})), '200', 'a gate around it does not close it';
    for my $method (qw(GET HEAD PUT DELETE)) {
        my $answer = $host->request($method, '/billing/checkout?plan=pro', headers => {as('by-link')});
        is $answer->status . ' ' . $answer->header('Allow'), '405 POST, OPTIONS', "A14: not by $method";
    }
    is scalar(sessions('by-link')), 0, 'which changes nothing';
    is $host->request('OPTIONS', '/billing/checkout')->status, 204, 'OPTIONS is answered';
    is answer_of(post('/billing/checkout', 'long', 'plan=' . 'x' x 70_000)), '413 BODY_TOO_LARGE', 'a long body is not read';
    is answer_of(checkout('long', 'x=' . 'y' x 50_000 . '&plan=pro')), '303', 'one that goes through a file is';
};

subtest 'C3: maintenance and the kill switch do not close it' => sub {
    $host->get('/api/x', as('held'));
    $world->must('account', 'set', 'held', '--maintenance', 'payment', '--writes', 'off');
    wait_for(sub { $host->request('POST', '/api/x', headers => {as('held')})->status == 403 }, 5, 'writing is refused');
    is answer_of(checkout('held', {plan => 'pro'})), '200', 'who owes can pay';
};

subtest 'C4 C5: one customer, one session that can be paid' => sub {
    my $first = checkout('buyer', {plan => 'starter'})->json->{url};
    is checkout('buyer', {plan => 'starter'})->json->{url}, $first, 'the same again: the open session';
    my $second = checkout('buyer', {plan => 'pro'})->json->{url};
    isnt $second, $first, 'another plan: another session';
    is_deeply [map { $_->{status} } sessions('buyer')], [qw(expired open)], 'and the first one cannot be paid any more';
    my ($account) = $world->sql(q{SELECT stripe_customer_id FROM billing.accounts WHERE external_id = 'buyer'});
    my @customers = grep { $_->{metadata}{account} eq 'buyer' } $stripe->all('customer');
    is_deeply [map { $_->{id} } @customers], [$account->{stripe_customer_id}], 'C4: one customer, which is linked';
    is_deeply [map { $_->{status} } $world->sql(q{SELECT c.status FROM billing.checkout_sessions c JOIN billing.accounts a ON a.id = c.account_id
        WHERE a.external_id = 'buyer' ORDER BY c.created_at})], [qw(expired open)], 'PostgreSQL knows the same';

    my ($open) = grep { $_->{status} eq 'open' } sessions('buyer');
    $stripe->pay($open->{id});
    wait_for(sub { answer_of(checkout('buyer', {plan => 'agency'})) eq '409 ALREADY_SUBSCRIBED' }, 10, 'the subscription is known');
    my $answer = problem(checkout('buyer', {plan => 'agency'}));
    is_deeply [@$answer{qw(currentTier currentStatus portalUrl)}], ['pro', 'active', $world->public_url . '/billing/portal'], 'C5: 409 tells what there is and where';
    like checkout('buyer', 'plan=agency')->header('Location'), qr{/p/session/}, 'C5: a form is led to the portal';
    is answer_of(checkout('buyer', {plan => 'logo_10'})), '200', 'C5: a pack can always be bought';
    my ($pack) = grep { $_->{mode} eq 'payment' } sessions('buyer');
    is_deeply $pack->{metadata}, {account => 'buyer', credit => 'logo', creditQty => '10', price => 'price_logo_pack_10', quantity => '1'}, 'C6: with its quantity as text';
};

subtest 'C4: a customer that is gone at Stripe is made anew' => sub {
    $stripe->retry(0);
    $stripe->hold;
    checkout('forgotten', {plan => 'starter'});
    my ($session) = sessions('forgotten');
    $stripe->delete_customer($session->{customer});
    is answer_of(checkout('forgotten', {plan => 'pro'})), '200', 'the checkout goes on';
    my ($now) = grep { $_->{status} eq 'open' } sessions('forgotten');
    isnt $now->{customer}, $session->{customer}, 'with another customer';
    $stripe->release;
    $stripe->retry(1);
};

subtest 'C9: the portal' => sub {
    is answer_of(post('/billing/portal', 'new-here', '')), '404 NO_CUSTOMER', 'who has bought nothing has none';
    checkout('portly', {plan => 'starter'});
    my $answer = post('/billing/portal', 'portly', {});
    is_deeply [sort keys $answer->json->%*], [qw(portalUrl url)], 'the address';
    like post('/billing/portal', 'portly', '')->header('Location') // '', qr{^http}, 'a form is led there';
};

subtest 'C10: what Stripe says stays between us' => sub {
    for my $case ([401, 502, 'STRIPE_REFUSED'], [500, 503, 'STRIPE_UNAVAILABLE'], [429, 503, 'STRIPE_UNAVAILABLE'], [403, 502, 'STRIPE_REFUSED']) {
        my ($theirs, $ours, $code) = @$case;
        $stripe->fault(path => '/v1/checkout/sessions', status => $theirs, count => 10);
        my $answer = checkout("fault-$theirs", {plan => 'pro'});
        is answer_of($answer), "$ours $code", "HTTP $theirs is told as $ours";
        unlike $answer->body, qr/sk_test|acct_|req_|stripe\.com|@{[$stripe->key]}/i, 'without a word of theirs';
        is !!$answer->header('Retry-After'), $ours == 503, 'Retry-After where waiting helps';
        $stripe->clear_faults;
        is answer_of(checkout("fault-$theirs", {plan => 'pro'})), '200', 'and the next try succeeds';
        is scalar(grep { $_->{status} eq 'open' } sessions("fault-$theirs")), 1, 'with one session';
    }
    $stripe->fault(path => '/v1/checkout/sessions', drop => 1, after => 1, count => 1);
    is answer_of(checkout('dropped', {plan => 'pro'})), '200', 'an answer that was lost is asked for again';
    is scalar(sessions('dropped')), 1, 'under the same key: one session';
};

subtest "G19: statuses of the operator's choice" => sub {
    my $told = sub ($answer, $status, $code, $what) {
        is answer_of($answer), "$status $code", $what;
        is $answer->json->{status}, $status, 'in the body too';
        is $answer->header('Content-Type'), 'application/problem+json', 'which is whole';
    };
    $told->(post('/coded/checkout', 'coded', {plan => 'gold'}), 404, 'UNKNOWN_PLAN', 'an unknown plan');
    $told->(post('/coded/portal', 'nobody-yet', {}), 501, 'NO_CUSTOMER', 'no customer');
    is post('/coded/portal', 'nobody-yet', {})->json->{error}, 'no_customer', 'C9: A: {"error":"no_customer"}';
    $told->($host->request('POST', '/coded/portal'), 403, 'ACCOUNT_REQUIRED', 'nobody');
    for my $case ([401, 'STRIPE_REFUSED'], [500, 'STRIPE_UNAVAILABLE']) {
        $stripe->fault(path => '/v1/checkout/sessions', status => $case->[0], count => 10);
        $told->(post('/coded/checkout', "coded-$case->[0]", {plan => 'pro'}), 500, $case->[1], "HTTP $case->[0] of Stripe");
        $stripe->clear_faults;
    }
    is answer_of(post('/coded/checkout', 'coded', {plan => 'pro', interval => 'month'})), '200', 'and what works is 200';
    is answer_of(checkout('coded', {plan => 'gold'})), '400 UNKNOWN_PLAN', 'elsewhere they are the default ones';
};

done_testing;
