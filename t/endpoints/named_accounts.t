# Callers without an identity: where the operator says so, and only there, body or query says which account it is about. Who names none can
# still pay, and what he pays grants nothing to anybody until an import links it. C17 C1 C9 C11; security case A16.
use v5.36;
use Billing::Process qw(new_directory);
use Billing::Nginx ();
use Billing::Test;
use Billing::Journey qw(answer_of);

my $world = world(
    stripe => 1,
    http => 'billing_dev_mode on;',
    locations => <<'END',
    billing_account $user;
    location = /api/checkout { billing_account_from body:user_id query:uid; billing_checkout; }
    location = /api/portal { billing_account_from body:user_id; billing_portal; }
    location = /api/upgrade { billing_account_from body:user_id; billing_upgrade; }
    location /back/ {
        billing_account_from body:user_id token=3f1c0e5b9a7d42c68e90 token=77aa0e5b9a7d42c68e90;
        location = /back/checkout { billing_checkout redirect; }
        location = /back/own { billing_account $user; billing_checkout; }
        location /back/gated/ { billing off; location /back/gated/in/ { billing on; billing_quota requests; proxy_pass http://app; } }
    }
    location = /strict/checkout { billing_unknown_account deny; billing_account_from query:uid; billing_checkout; }
    location = /full/checkout { billing_account_from body:user_id; billing_checkout_session automatic_tax=on billing_address_collection=required trial_period_days=7; billing_checkout; }
    location = /role/checkout { billing_account_from body:user_id; billing_role $http_x_role; billing_checkout; }
    location = /me/status { billing_account_from query:user_id; billing_status; }
    location = /me/entitlements { billing_account_from query:user_id; billing_entitlements quota=requests preview=asset_download; }
    location = /billing/webhook { billing_webhook; }
END
);
my $host = $world->host;
my $stripe = $world->stripe;
my $json = JSON::PP->new->canonical;

sub post($path, $body, %headers) {
    return $host->request('POST', $path, body => ref $body ? $json->encode($body) : $body,
        headers => {'Content-Type' => ref $body ? 'application/json' : 'application/x-www-form-urlencoded', %headers});
}
sub sessions($reference) { grep { $_->{client_reference_id} eq $reference } $stripe->all('checkout.session') }
sub accounts() { join ' ', map { $_->{external_id} } $world->sql('SELECT external_id FROM billing.accounts ORDER BY 1') }

subtest 'C17: the account is whom the body or the query names' => sub {
    my $answer = post('/api/checkout', {tier => 'starter', user_id => 'ann'});
    is answer_of($answer), '200', 'the body';
    my ($session) = sessions('ann');
    is $answer->json->{url}, $session->{url}, 'leads to a session';
    is $session->{metadata}{account}, 'ann', 'of that account';
    is post('/api/checkout', {tier => 'starter', user_id => 'ann'})->json->{url}, $session->{url}, 'C4: the same again is the same session';
    is answer_of(post('/api/checkout?uid=bob%40x', {tier => 'pro'})), '200', 'the query, escaped';
    is scalar(sessions('bob@x')), 1, 'is that account';
    is answer_of(post('/api/checkout', 'tier=pro&user_id=fay')), '303', 'a form';
    is answer_of(post('/api/checkout', {tier => 'pro', user_id => 42})), '200', 'a number is a name too';
    is scalar(sessions('42')), 1, 'as it is written';
    is answer_of(post('/api/portal', {user_id => 'ann'})), '200', 'the portal';
    is answer_of(post('/api/upgrade', {user_id => 'dan', tier => 'pro'})), '200', 'C11: and the upgrade for development';
    is $world->account('dan')->{plan}, 'pro', 'has changed the plan';
    is $host->get('/me/status?user_id=dan')->json->{plan}, 'pro', 'C13: as its documents tell';
    is $host->get('/me/entitlements?user_id=dan')->json->{tier}, 'pro', 'C12: both';
    is answer_of($host->get('/me/entitlements')), '401 ACCOUNT_REQUIRED', 'which are about somebody';
};

subtest 'C17: not two, and no nonsense' => sub {
    is answer_of(post('/api/checkout?uid=bob', {tier => 'pro', user_id => 'ann'})), '403 NOT_YOURS', 'body and query that differ';
    is answer_of(post('/api/checkout', {tier => 'pro', user_id => 'ann', account_id => 'bob'})), '403 NOT_YOURS', 'A16: another name that differs';
    is answer_of(post('/api/checkout', {tier => 'pro', user_id => 'a b'})), '400 INVALID_ACCOUNT', 'what can be no account';
    is answer_of(post('/api/portal', {user_id => 'ann', customer_id => 'cus_of_bob'})), '403 NOT_YOURS', "A16: another's customer";
    is answer_of(post('/api/checkout', 'tier=pro&user_id=ann', Origin => 'https://evil.example')), '403 CROSS_SITE', 'A13: a page of another site';
    is answer_of(post('/api/checkout', 'user_id=ann&user_id=bob&tier=pro')), '400 INVALID_BODY', 'the same name twice';
    is answer_of(post('/strict/checkout?uid=stranger', {tier => 'pro'})), '403 UNKNOWN_ACCOUNT', 'where strangers are refused, they are';
    is answer_of(post('/role/checkout', {tier => 'pro', user_id => 'ann'}, 'X-Role' => 'member')), '403 ROLE_REQUIRED', 'C3: roles are asked for as elsewhere';
    is answer_of(post('/api/portal', {})), '401 ACCOUNT_REQUIRED', 'the portal is somebody\'s';
    is answer_of(post('/api/upgrade', {tier => 'pro'})), '401 ACCOUNT_REQUIRED', 'so is a plan';
};

subtest 'C17: an identity is not asked for there, and elsewhere nothing but it' => sub {
    is answer_of(post('/api/checkout', {tier => 'pro', user_id => 'gil'}, Authorization => 'Bearer test:eve')), '200', 'the body goes before who asks';
    is scalar(sessions('eve')), 0, 'who is not meant';
    is answer_of(post('/back/own', {tier => 'pro', user_id => 'gil'}, Authorization => 'Bearer test:eve')), '403 NOT_YOURS', 'a billing_account further in: the body names nobody';
    is answer_of(post('/back/own', {tier => 'pro', user_id => 'gil'})), '401 ACCOUNT_REQUIRED', 'nor without one';
    is answer_of($host->get('/back/gated/in/x?user_id=gil')), '401 ACCOUNT_REQUIRED', 'never the gate';
    is answer_of($host->get('/back/gated/in/x', Authorization => 'Bearer test:eve')), '200', 'which asks billing_account';
};

subtest 'C17: a token' => sub {
    my $wanted = {tier => 'pro', user_id => 'hal'};
    is answer_of(post('/back/checkout', $wanted)), '401 INVALID_TOKEN', 'without it nobody is believed';
    is answer_of(post('/back/checkout', $wanted, Authorization => 'Bearer 3f1c0e5b9a7d42c68e91')), '401 INVALID_TOKEN', 'nor with another';
    is scalar(sessions('hal')), 0, 'and nothing has happened';
    is answer_of(post('/back/checkout', $wanted, Authorization => "Bearer $_")), '303', 'but with one of them'
        for qw(3f1c0e5b9a7d42c68e90 77aa0e5b9a7d42c68e90);
};

subtest 'C17: nobody can pay, and gets nothing until it is linked' => sub {
    my $before = accounts();
    my $answer = post('/api/checkout', {tier => 'pro'});
    is answer_of($answer), '200', 'a checkout without an account';
    my ($call) = grep { ($_->{params}{client_reference_id} // '') eq 'anon' } $stripe->calls(path => '/v1/checkout/sessions');
    ok !exists $call->{params}{customer}, 'is sent without a customer';
    is_deeply $call->{params}{metadata}, {plan => 'pro', price => 'price_pro_monthly', quantity => 1}, 'and names no account';
    is_deeply $call->{params}{subscription_data}{metadata}, {plan => 'pro'}, 'neither does what it sells';
    my ($session) = sessions('anon');
    is $answer->json->{url}, $session->{url}, 'and leads to its session';
    isnt post('/api/checkout', {tier => 'pro'})->json->{url}, $session->{url}, 'two who name nobody are two';
    is answer_of(post('/full/checkout', {tier => 'pro'})), '200', 'whatever the session is to look like';
    my ($full) = grep { $_->{params}{automatic_tax} && ($_->{params}{client_reference_id} // '') eq 'anon' } $stripe->calls(path => '/v1/checkout/sessions');
    ok !$full->{params}{subscription_data}{trial_period_days}, 'without a trial: nobody knows whether it is his first';
    is answer_of(post('/api/checkout', {tier => 'logo_10'})), '401 ACCOUNT_REQUIRED', 'credits need somebody to go to';
    is answer_of(post('/api/checkout', 'tier=pro')), '303', 'a form is led on';
    is accounts(), $before, 'no account has come into being';

    $stripe->pay($session->{id});
    $stripe->wait_delivered;
    wait_for(sub { !grep { $_->{status} eq 'received' || $_->{status} eq 'processing' } $world->sql('SELECT status FROM billing.webhook_events') }, 10, 'its events are looked at');
    is accounts(), $before, 'paid: still no account';
    is_deeply [$world->sql(q{SELECT FROM billing.subscriptions WHERE status = 'active'})], [], 'and no subscription';
    my $customer = $stripe->object($session->{id})->{customer};
    my $list = new_directory() . '/list.csv';
    Billing::Nginx::write_file($list, "$customer,ivy\n");
    local $ENV{STRIPE_SECRET_KEY} = $stripe->key;
    $world->must("import", "--match", "csv:$list", "--stripe-api", $stripe->url);
    wait_for(sub { $world->account('ivy')->{plan} eq 'pro' }, 10, 'O8: the import gives it to whom it belongs');
};

subtest 'C10: Stripe refuses' => sub {
    $stripe->fault(path => '/v1/checkout/sessions', status => 400);
    is answer_of(post('/api/checkout', {tier => 'pro'})), '500 STRIPE_REFUSED', 'with a safe word';
    $stripe->clear_faults;
};

done_testing;
