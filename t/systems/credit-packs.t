# The example credit-packs does what its application asks for, from its configuration alone: a pack is bought by its price, by nobody but who
# has logged in, brings what the catalog says whatever the browser writes, once, when it is paid, and is spent one by one. C1 C2 C3 C4 C6 W2 W5
# W10 G12 G13 O6.
use v5.36;
use Billing::Example;
use Billing::Journey qw(answer_of problem);
use Billing::Nginx ();
use Billing::Process qw(new_directory);
use Billing::Test;
use Billing::Token;

my %env = (STRIPE_PRICE_SINGLE_FLIGHT => 'price_1SingleFlight', STRIPE_PRICE_THREE_FLIGHTS => 'price_1ThreeFlights', APP_URL => 'https://app.example.com');
local @ENV{keys %env} = values %env;
my $provider = Billing::Token->new('RS256', kid => 'one');
my $keys = new_directory() . '/keys.json';
Billing::Nginx::write_file($keys, Billing::Token::jwks($provider));
my $example = Billing::Example->new('credit-packs', env => \%env, webhook => '/api/billing/webhook',
    replace => {'https://clerk.example.com/.well-known/jwks.json' => $keys});
my ($world, $host, $stripe) = ($example->world, $example->host, $example->world->stripe);
my $json = JSON::PP->new->canonical;

sub token($user) { $provider->token({sub => $user, email => "$user\@mail.example", iss => 'https://clerk.example.com', exp => time + 600}) }
sub as($user) { (Authorization => 'Bearer ' . token($user)) }
sub buy($user, $body) { $host->post('/api/billing/checkout', $json->encode($body), 'Content-Type' => 'application/json', defined $user ? as($user) : ()) }
sub flights($user) { ($host->get('/api/billing/status', as($user))->json->{credits} // {})->{flight}{remaining} // 0 }
sub fly($user) { $host->post('/api/flights', '{}', as($user)) }
sub sessions($user) { grep { $_->{client_reference_id} eq $user } $stripe->all('checkout.session') }

subtest 'what its README shows' => sub {
    is $example->walk_readme(TOKEN => token('reader')), 5, 'is all there';
};

subtest 'C1: a pack' => sub {
    my $answer = buy(ann => {priceId => 'price_1SingleFlight'});
    my ($session) = sessions('ann');
    is $answer->status . ' ' . $answer->header('Location'), "303 $session->{url}", '303 to Stripe, though JSON was sent';
    is_deeply [@$session{qw(mode amount_total currency)}], ['payment', 7900, 'usd'], 'is paid once, $79';
    is_deeply [@$session{qw(success_url cancel_url)}], ['https://app.example.com/dashboard?session_id={CHECKOUT_SESSION_ID}', 'https://app.example.com/pricing'],
        'O6, A12: and leads to the pages of APP_URL';
    my %metadata = (clerkUserId => 'ann', productType => 'flight', creditQty => '1');
    is_deeply $session->{metadata}, {%metadata, price => 'price_1SingleFlight', quantity => '1'}, 'C6: metadata: account, creditQty as text, productType';
    my ($call) = grep { ($_->{params}{client_reference_id} // '') eq 'ann' } $stripe->calls(path => '/v1/checkout/sessions');
    is_deeply $call->{params}{payment_intent_data}{metadata}, \%metadata, 'C6: of the payment too';
    is flights('ann'), 0, 'C8: nothing yet';
    is answer_of(fly('ann')), '402 INSUFFICIENT_CREDITS', 'and nothing to spend';

    $stripe->pay($session->{id});
    wait_for(sub { flights('ann') == 1 }, 10, 'the credit is there');
    my ($event) = grep { $_->{data}{object}{id} eq $session->{id} } $stripe->events('checkout.session.completed');
    is_deeply [map { "$_->{status} $_->{body}" } $stripe->deliver($event, times => 2)], [('200 {"received":true,"duplicate":true}') x 2], 'W2: the event again';
    $example->settled;
    is flights('ann'), 1, 'W5: changes nothing';
};

subtest 'C2 C3: who may buy what' => sub {
    is answer_of(buy(bob => {priceId => 'price_of_somebody_else'})), '400 UNKNOWN_PLAN', 'an invalid price';
    is answer_of(buy(bob => {})), '400 UNKNOWN_PLAN', 'none';
    is answer_of(buy(undef, {priceId => 'price_1SingleFlight'})), '401 ACCOUNT_REQUIRED', 'nobody';
    is answer_of($host->post('/api/billing/checkout', '{}', Authorization => 'Bearer ' . Billing::Token->new('RS256', kid => 'one')->token({sub => 'bob', exp => time + 60}))),
        '401 INVALID_TOKEN', 'somebody whom the provider does not know';
    is scalar(sessions('bob')), 0, 'and nobody has asked Stripe';
};

subtest 'C2: no quantity of the browser is believed' => sub {
    is buy(eve => {priceId => 'price_1ThreeFlights', quantity => 100, creditQty => 1000, amount => 1, metadata => {creditQty => 1000}})->status, 303, 'a checkout with many wishes';
    my ($session) = sessions('eve');
    is_deeply [@$session{qw(amount_total)}, $session->{metadata}{creditQty}], [14900, '3'], 'is one of three, for $149';
    $stripe->pay($session->{id});
    wait_for(sub { flights('eve') == 3 }, 10, 'three credits');
    is join(' ', map { fly('eve')->status } 1 .. 4), '200 200 200 402', 'G12: are spent one by one';
};

subtest 'C4: one customer' => sub {
    my @customers = grep { ($_->{metadata}{clerkUserId} // '') eq 'ann' } $stripe->all('customer');
    is scalar(@customers), 1, 'is made at the first checkout';
    is $customers[0]{email}, 'ann@mail.example', 'with the address that the provider tells';
    is buy(ann => {priceId => 'price_1ThreeFlights'})->status, 303, 'the second one';
    is((sessions('ann'))[-1]{customer}, $customers[0]{id}, 'uses it again');
    is scalar(grep { ($_->{metadata}{clerkUserId} // '') eq 'ann' } $stripe->all('customer')), 1, 'and makes none';
};

subtest 'W5: only when it is paid' => sub {
    buy(fay => {priceId => 'price_1SingleFlight'});
    my ($session) = sessions('fay');
    $stripe->pay($session->{id}, delayed => 1);
    $example->settled;
    is flights('fay'), 0, 'completed, and the money is on its way: nothing';
    $stripe->settle_later($session->{id}, 1);
    wait_for(sub { flights('fay') == 1 }, 10, 'the money is there, and so is the credit');
    buy(gil => {priceId => 'price_1SingleFlight'});
    my ($other) = sessions('gil');
    $stripe->pay($other->{id}, delayed => 1);
    $stripe->settle_later($other->{id}, 0);
    $example->settled;
    is flights('gil'), 0, 'money that never comes brings nothing';
};

subtest 'G13: a flight that fails' => sub {
    is flights('fay'), 1, 'one credit';
    $world->app->stop;
    is fly('fay')->status, 502, 'the application is away';
    wait_for(sub { flights('fay') == 1 }, 10, 'the credit is back');
    is_deeply [map { $_->{quantity} } $world->sql(q{SELECT l.quantity FROM billing.credit_ledger l JOIN billing.accounts a ON a.id = l.account_id
        WHERE a.external_id = 'fay' AND l.action = 'refund'})], [1], 'once';
};

done_testing;
