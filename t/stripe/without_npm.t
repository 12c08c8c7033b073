# The promise: the demo has a Stripe without npm: the stand-in starts at once, by its own rules alone, and still refuses what it does not
# know; and in the tests it refuses to start without Stripe's schemas.
use v5.36;
use Billing::Process qw(root new_directory);
use Billing::Stripe;
use Test::More;
use Time::HiRes qw(time);

my $begun = time;
my $stripe = Billing::Stripe->new(schemas => 0);
my $took = time - $begun;
cmp_ok $took, '<', 2, sprintf 'starts at once (%.2f s)', $took;
$stripe->catalog(root() . '/conf/catalog.json');

my %plan = (mode => 'subscription', success_url => 'http://127.0.0.1/?s={CHECKOUT_SESSION_ID}',
    line_items => [{price => 'price_pro_monthly', quantity => 1}]);

sub refusal(%more) { $stripe->api(POST => '/v1/checkout/sessions', {%plan, %more})->json->{error} }

is refusal(tier => 'pro')->{code}, 'parameter_unknown', 'an unknown parameter';
is refusal(subscription_data => {tier => 'pro'})->{param}, 'subscription_data[tier]', 'one inside';
is refusal(expires_at => 'soon')->{code}, 'parameter_invalid_integer', 'a mistyped one';
is refusal(mode => 'buy')->{param}, 'mode', 'a value that is none';
is refusal(payment_method_types => ['card'])->{code}, 'parameter_unknown', 'a type of payment';
is refusal(payment_intent_data => {metadata => {a => 1}})->{param}, 'payment_intent_data', 'what does not go together';

my $session = $stripe->api(POST => '/v1/checkout/sessions', \%plan)->json;
is $stripe->press($session->{url}, do => 'pay')->status, 303, 'and the rest works';
is $stripe->api(GET => "/v1/checkout/sessions/$session->{id}")->json->{payment_status}, 'paid', 'to the end';

{
    local $ENV{BILLING_BUILD} = new_directory();
    ok !eval { Billing::Stripe->new; 1 }, 'with schemas missing it does not start';
    like $@, qr{stripe-schemas\.json is missing: run script/stripe-schemas}, 'and says what to do';
}

is $stripe->log_text, '', 'the stand-in had nothing to complain about';
done_testing;
