# The promise: the portal lets a customer do what Stripe's does (cancel and keep, another plan, another card), by a short-lived address,
# within its configuration, for nobody else's subscriptions; and all of it is told by events.
use v5.36;
use Billing::Process qw(root);
use Billing::Stripe;
use Test::More;

my $stripe = Billing::Stripe->new(catalog => root() . '/conf/catalog.json');

sub post($path, %params) {
    my $answer = $stripe->api(POST => "/v1/$path", \%params);
    die "$path: " . $answer->body . "\n" if $answer->status != 200;
    return $answer->json;
}

sub customer() { post('customers', email => 'ann@example.com')->{id} }
sub subscription($id) { $stripe->api(GET => "/v1/subscriptions/$id")->json }
sub told() { $stripe->told }

my $customer = customer();
my $id = $stripe->subscribe($customer, price => 'price_pro_monthly', billing_mode => 'flexible')->{id};
my $session = post('billing_portal/sessions', customer => $customer, return_url => 'http://127.0.0.1:1/settings');

subtest 'the page' => sub {
    like $session->{url}, qr{^\Q@{[$stripe->url]}\E/p/session/test_\w+$}, 'has an address that is a secret';
    is $session->{return_url}, 'http://127.0.0.1:1/settings', 'and a way back';
    my $page = $stripe->visit($session->{url});
    is $page->status, 200, 'opens';
    is $page->header('Cache-Control'), 'no-store', 'is kept nowhere';
    like $page->body, qr/Pro.*USD 79\.00 \/ month, active, renews on \d{4}-\d\d-\d\d/s, 'shows the subscription';
    like $page->body, qr{<a href="http://127.0.0.1:1/settings">}, 'and the way back';
    is $stripe->visit("$session->{url}x")->status, 404, 'another secret shows nothing';
};

subtest 'cancel and keep' => sub {
    told();
    my $done = $stripe->press($session->{url}, do => 'cancel', subscription => $id);
    is $done->status, 303, 'cancel';
    is_deeply [map { defined $_ ? 1 : 0 } @{subscription($id)}{qw(cancel_at ended_at)}], [1, 0], 'takes effect later';
    like $stripe->visit($session->{url})->body, qr/ends on \d{4}/, 'as is shown';
    is_deeply [told()], ['customer.subscription.updated'], 'and told';
    $stripe->press($session->{url}, do => 'keep', subscription => $id);
    is subscription($id)->{cancel_at}, undef, 'keep';
};

subtest 'another plan' => sub {
    told();
    is $stripe->press($session->{url}, do => 'change', subscription => $id, price => 'price_agency_monthly')->status, 303, 'is chosen';
    is subscription($id)->{items}{data}[0]{price}{id}, 'price_agency_monthly', 'and had';
    my %told = map { $_ => 1 } told();
    ok $told{'customer.subscription.updated'} && $told{'invoice.paid'}, 'with events';
    is $stripe->press($session->{url}, do => 'change', subscription => $id, price => 'price_none')->status, 400,
        'one that is not there is refused';
};

subtest 'another card' => sub {
    my $behind = $stripe->subscribe($customer, price => 'price_starter_monthly', card => 'declines')->{id};
    $stripe->end_period({id => $behind});
    is subscription($behind)->{status}, 'past_due', 'when a payment has failed';
    my $open = post('billing_portal/sessions', customer => $customer);
    told();
    is $stripe->press($open->{url}, do => 'card')->status, 303, 'a new card';
    is subscription($behind)->{status}, 'active', 'pays what is open';
    ok scalar(grep { $_ eq 'invoice.paid' } told()), 'as is told';
    $stripe->press($open->{url}, do => 'bad_card');
    $stripe->end_period({id => $behind});
    is subscription($behind)->{status}, 'past_due', 'a bad one fails at the next renewal';
    $stripe->cancel_now($behind);
};

subtest 'limits' => sub {
    my $other = $stripe->subscribe(customer(), price => 'price_pro_monthly')->{id};
    my $mine = post('billing_portal/sessions', customer => $customer);
    is $stripe->press($mine->{url}, do => 'cancel', subscription => $other)->status, 400, "nobody else's subscription";
    is subscription($other)->{cancel_at}, undef, 'is canceled';
    unlike $stripe->visit($mine->{url})->body, qr/\Q$other\E/, 'or shown';
    $stripe->advance(290);
    is $stripe->visit($mine->{url})->status, 200, 'the address works for some minutes';
    $stripe->advance(290);
    is $stripe->visit($mine->{url})->status, 200, 'from the last use';
    $stripe->advance(310);
    is $stripe->visit($mine->{url})->status, 404, 'and then no more';
    my $bare = $stripe->portal_configuration(without => ['subscription_update', 'payment_method_update'],
        default_return_url => 'http://127.0.0.1:1/home');
    my $limited = post('billing_portal/sessions', customer => $customer, configuration => $bare->{id});
    is $limited->{return_url}, 'http://127.0.0.1:1/home', 'a configuration has a way back of its own';
    my $page = $stripe->visit($limited->{url})->body;
    unlike $page, qr/value="(?:change|card)"/, 'and leaves out what it does not allow';
    like $page, qr/value="cancel"/, 'but not the rest';
};

subtest 'straight to something' => sub {
    my $flow = post('billing_portal/sessions', customer => $customer, flow_data => {type => 'subscription_cancel',
        subscription_cancel => {subscription => $id},
        after_completion => {type => 'redirect', redirect => {return_url => 'http://127.0.0.1:1/bye'}}});
    is $flow->{flow}{subscription_cancel}{subscription}, $id, 'is answered with the flow';
    my $page = $stripe->visit($flow->{url})->body;
    like $page, qr/value="cancel"/, 'the page asks for that';
    unlike $page, qr/value="(?:change|card)"/, 'and nothing else';
    my $done = $stripe->press($flow->{url}, do => 'cancel', subscription => $id);
    is $done->header('Location'), 'http://127.0.0.1:1/bye', 'and then goes where it should';
};

is $stripe->log_text, '', 'the stand-in had nothing to complain about';
done_testing;
