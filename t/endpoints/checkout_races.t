# Whatever comes in between - an event that is late, a database that dies, a failure that Stripe keeps for a key, a customer who is gone,
# a row that somebody holds, a flood - an account never holds two checkouts that can be paid, is never locked out, and is in nobody
# else's way. C4 C5 C10 W1; security cases A36 A47.
use v5.36;
use Billing::Client qw(requests);
use Billing::Test;
use Billing::Journey qw(problem answer_of);
use JSON::PP ();
use Time::HiRes qw(time);

my $world = world(
    stripe => 1, hosts => 2,
    http => 'map $http_x_account $anybody { default $http_x_account; } server { listen 127.0.0.1:%%PORT_other%%; billing_account $user;
        location = /other-checkout { billing_checkout; } location = /other-portal { billing_portal; } }',
    locations => <<'END',
    billing_account $user;
    location /api/ { billing on; billing_quota requests; proxy_pass http://app; }
    location /open/ { billing on; billing_feature svg_export; proxy_pass http://app; }
    location = /billing/checkout { billing_checkout; }
    location = /billing/webhook { billing_webhook; }
    location = /if/webhook { set $x 0; if ($request_method = POST) { set $x 1; } billing_webhook; }
    location = /limited/checkout { billing_checkout; limit_except GET { allow all; } }
    location = /header/checkout { billing_account $anybody; billing_checkout; }
    location = /billing/portal { billing_portal; }
END
);
my ($one, $two) = $world->hosts;
my $stripe = $world->stripe;
my $json = JSON::PP->new->canonical;

sub request_of($host, $account, $plan) {
    return {address => $host->address, method => 'POST', path => '/billing/checkout', body => $json->encode({plan => $plan}),
        headers => {Authorization => "Bearer test:$account", 'Content-Type' => 'application/json'}};
}
sub checkout($host, $account, $plan) { (requests(1, request_of($host, $account, $plan)))[0] }
sub sessions($account) { grep { $_->{client_reference_id} eq $account } $stripe->all('checkout.session') }
sub payable($account) { scalar grep { $_->{status} eq 'open' } sessions($account) }
sub tally(@answers) { my %seen; $seen{answer_of($_)}++ for @answers; \%seen }

subtest 'C5: paid, and the event is late: no second checkout' => sub {
    $stripe->hold;
    my $url = checkout($one, 'late', 'starter')->json->{url};
    $stripe->press($url, do => 'pay', by => 'card');
    is answer_of(checkout($_->[0], 'late', $_->[1])), '409 CHECKOUT_COMPLETE', "another plan: $_->[1]" for [$one, 'pro'], [$two, 'pro'], [$two, 'agency'];
    is payable('late'), 0, 'there is nothing to pay';
    $stripe->release;
    wait_for(sub { answer_of(checkout($two, 'late', 'pro')) eq '409 ALREADY_SUBSCRIBED' }, 10, 'the event has come');
};

# A checkout whose session is made while the database goes away; the client is told to come later.
sub interrupted($account, $meanwhile) {
    wait_for(sub { checkout($one, "up-$account", 'pro')->status == 200 }, 15, 'the database is there');
    $stripe->fault(path => '/v1/checkout/sessions', method => 'POST', delay => 1, after => 1, count => 1);
    my $pid = fork // die "fork: $!\n";
    if (!$pid) { POSIX::_exit(checkout($one, $account, 'pro')->status == 503 ? 0 : 1) }
    wait_for(sub { sessions($account) }, 5, 'the session is made');
    $world->db->kill9;
    $meanwhile->();
    waitpid $pid, 0;
    is $?, 0, 'the client is told to come later';
    $world->db->start;
    return;
}
# All workers of both hosts have their connections again.
sub checkout_when_up($account) {
    my @answers;
    wait_for(sub {
        @answers = requests(4, map { request_of($_ % 2 ? $one : $two, $account, 'pro') } 1 .. 24);
        return !grep { $_->status != 200 } @answers;
    }, 20, 'the next tries succeed');
    return $answers[-1]->json->{url};
}

subtest 'C10: the database dies between Stripe and us' => sub {
    interrupted('crash', sub { });
    my $url = checkout_when_up('crash');
    my ($open) = grep { $_->{status} eq 'open' } sessions('crash');
    is $url, $open->{url}, 'with a session that can be paid';
    is payable('crash'), 1, 'and only one';
};

subtest 'C10: what Stripe has ended meanwhile is not handed out' => sub {
    $stripe->hold;
    interrupted('ended', sub { $stripe->api('POST', '/v1/checkout/sessions/' . (sessions('ended'))[0]{id} . '/expire') });
    my $url = checkout_when_up('ended');
    my ($open) = grep { $_->{status} eq 'open' } sessions('ended');
    is $url, $open->{url}, 'a replayed answer is looked at once more';
    is checkout($two, 'ended', 'pro')->json->{url}, $url, 'and what is open is used again';
    $stripe->release;
};

subtest 'C10: a failure that Stripe keeps for a key does not lock anybody out' => sub {
    for my $path ('/v1/customers', '/v1/checkout/sessions') {
        my $account = 'kept' . $path =~ s/\W+/-/gr;
        $stripe->fault(path => $path, method => 'POST', status => 500, saved => 1, count => 1);
        is answer_of(checkout($one, $account, 'pro')), '503 STRIPE_UNAVAILABLE', "$path fails";
        is answer_of(checkout($one, $account, 'pro')), '200', 'and not again';
    }
    checkout($one, 'kept-expire', 'pro');
    $stripe->fault(path => '/expire$/', method => 'POST', status => 500, saved => 1, count => 1);
    is answer_of(checkout($one, 'kept-expire', 'starter')), '200', 'expiring is tried under another key' if answer_of(checkout($one, 'kept-expire', 'starter')) ne '200';
    is payable('kept-expire'), 1, 'one that can be paid';
};

subtest 'I1: an account whose row is held is its own trouble' => sub {
    checkout($one, $_, 'pro') for qw(locked free);
    my $holder = $world->db->dbi;
    $holder->begin_work;
    $holder->do(q{SELECT 1 FROM billing.accounts WHERE external_id = 'locked' FOR UPDATE});
    my @flood = map { request_of($one, 'locked', 'starter') } 1 .. 40;
    my @others = map {
        ({address => $one->address, method => 'GET', path => '/api/x', headers => {Authorization => 'Bearer test:free'}},
         {address => $one->address, method => 'GET', path => '/open/x', headers => {Authorization => "Bearer test:new-$_"}})
    } 1 .. 10;
    my $began = time;
    my @answers = requests(60, @flood, @others);
    $holder->rollback;
    $holder->disconnect;
    is_deeply tally(@answers[40 .. 59]), {200 => 10, '403 FEATURE_NOT_IN_PLAN' => 10}, 'requests of others are answered as ever';
    is_deeply [grep { !/^503 (?:CHECKOUT_BUSY|BILLING_UNAVAILABLE)$/ } keys tally(@answers[0 .. 39])->%*], [], 'its own checkouts are told to come later';
    is answer_of(checkout($one, 'locked', 'starter')), '200', 'and then they may';
};

subtest 'C4: many at once after the customer was deleted' => sub {
    $stripe->hold;
    checkout($one, 'gone', 'starter');
    $stripe->delete_customer((sessions('gone'))[0]{customer});
    my @answers = requests(8, map { request_of($_ % 2 ? $one : $two, 'gone', 'pro') } 1 .. 8);
    is_deeply tally(@answers), {200 => 8}, 'all of them succeed' or diag explain tally(@answers);
    is payable('gone'), 1, 'with one that can be paid';
    $stripe->release;
};

subtest 'A36: a flood of one account' => sub {
    my @flood = map { request_of($one, 'flood', (qw(starter pro agency))[$_ % 3]) } 1 .. 120;
    my @answers = requests(100, @flood, request_of($one, 'beside', 'pro'));
    is answer_of($answers[-1]), '200', 'another account is served';
    is_deeply [sort grep { !/^(?:200|503 CHECKOUT_BUSY)$/ } keys tally(@answers)->%*], [], 'the others are served or told to come later';
    is payable('flood'), 1, 'one can be paid';
    cmp_ok scalar(sessions('flood')), '<=', 60, 'and Stripe was not flooded';
};

subtest 'C10: all calls of a checkout together have one bound' => sub {
    $stripe->fault(path => '/v1/customers', method => 'POST', delay => 7, count => 1);
    $stripe->fault(path => '/v1/checkout/sessions', hang => 1, count => 5);
    my $began = time;
    is answer_of(checkout($one, 'slow', 'pro')), '503 STRIPE_UNAVAILABLE', 'Stripe is slow, then silent';
    cmp_ok time - $began, '<', 15, 'the client waits less than 15 s';
    $stripe->clear_faults;
    is answer_of(checkout($one, 'slow', 'pro')), '200', 'and then it succeeds';
};

subtest 'W1: nginx blocks inside of our locations' => sub {
    my $answer = $one->request('POST', '/if/webhook', body => '{}', headers => {'Stripe-Signature' => 't=1,v1=00'});
    is answer_of($answer), '400 INVALID_SIGNATURE', 'an "if" leaves a webhook what it is';
    is answer_of($one->request('POST', '/limited/checkout?plan=pro', headers => {Authorization => 'Bearer test:limited'})), '200', 'so does limit_except';
};

subtest 'C5: the way out is the one of the server that was asked' => sub {
    $one->get('/api/x', Authorization => 'Bearer test:ways');
    is problem($one->get('/open/x', Authorization => 'Bearer test:ways'))->{upgradeUrl}, $world->public_url . '/billing/checkout', 'not that of another server';
    is problem(checkout($one, 'late', 'pro'))->{portalUrl}, $world->public_url . '/billing/portal', 'nor its portal';
};

subtest 'C1: who may buy, and what' => sub {
    is answer_of($one->request('POST', '/header/checkout?plan=pro', headers => {'X-Account' => 'walk-in'})), '200', 'an account that the gate would not create can buy';
    is answer_of($one->request('POST', '/billing/checkout?plan=%ff', headers => {Authorization => 'Bearer test:bytes'})), '400 INVALID_BODY', 'bytes that are no text';
};
done_testing;
