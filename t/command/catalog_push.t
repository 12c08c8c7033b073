# What the catalog sells is made at Stripe once, with the portal around it, found again ever after, and can be bought from then on: a
# checkout takes the price that was made. A dry run makes nothing; a live key wants a word; what is not as the catalog has it is told. O1, C2.
use v5.36;
use Billing::Test;
use Billing::Client qw(request);
use JSON::PP qw(encode_json);
use Storable qw(dclone);

my $world = world(stripe => {portal => 0}, locations => 'billing_account $user;
    location = /billing/checkout { billing_checkout; }
    location = /billing/portal { billing_portal; }
    location = /billing/webhook { billing_webhook; }');
my $stripe = $world->stripe;
my $json = JSON::PP->new->utf8->canonical->boolean_values(0, 1);
my @stripe = ('--stripe-api', $stripe->url);
local $ENV{STRIPE_SECRET_KEY} = $stripe->key;

# The sample, of whose prices only one has an id.
my $catalog = $world->sample_catalog;
delete $_->{id} for map { values $_->{price}->%* } $catalog->{plans}->@{qw(starter pro)};
delete $catalog->{packs}{logo_10}{price}{id};
$catalog->{plans}{pro}{description} = 'All that one needs';

sub push_it(@arguments) { $world->command('catalog', 'push', $world->catalog_file($catalog), @stripe, @arguments) }
sub pushed(@arguments) {
    my $said = push_it('--json', @arguments);
    is $said->{code}, 0, 'exit code 0' or diag $said->{err};
    return $json->decode($said->{out});
}
sub made($told, $done) { [sort map { $_->{id} =~ /^price_/ ? $_->{what} =~ s/,.*//r : $_->{what} } grep { $_->{done} eq $done } $told->{objects}->@*] }
sub prices() { ($world->sql(q{SELECT jsonb_object_agg(plan_key || ' ' || interval, price_id) AS ids FROM billing.plan_prices JOIN billing.plans USING (plan_no)
    WHERE plan_prices.active}))[0]{ids} }
sub checkout($account, $plan) {
    return request($world->host->address, 'POST', '/billing/checkout', body => encode_json({plan => $plan}),
        headers => {'Content-Type' => 'application/json', Authorization => "Bearer test:$account"});
}
sub posts() { scalar $stripe->calls(method => 'POST') }

my @new = ('10 logos', 'Pro', 'Starter', 'packs.logo_10.price', 'plans.pro.price.month', 'plans.pro.price.year', 'plans.starter.price.month',
    q{the customer portal's configuration});

subtest 'before' => sub {
    $world->sql("DELETE FROM billing.$_") for qw(plan_prices packs);
    $world->must('catalog', 'apply', $world->catalog_file($catalog));
    is checkout('ann', 'pro')->status, 400, 'C2: a price without an id cannot be bought';
    my $before = posts();
    my $told = pushed('--dry-run');
    is_deeply made($told, 'created'), \@new, 'O1: --dry-run tells what would be made';
    is posts(), $before, 'and makes nothing';
    is $json->decode(prices())->{'pro month'}, undef, 'nor changes the catalog';
};

subtest 'pushed' => sub {
    my $told = pushed('--headline', 'Example Ltd');
    is_deeply made($told, 'created'), \@new, 'O1: products, prices, and the portal';
    is_deeply made($told, 'found'), ['plans.agency.price.month'], 'what has an id is found';
    my ($pro) = grep { $_->{id} eq 'billing_plan_pro' } $stripe->all('product');
    is_deeply [@$pro{qw(name description)}, $pro->{metadata}{plan}], ['Pro', 'All that one needs', 'pro'], 'O1: with description and metadata';
    my %at = map { $_->{lookup_key} => $_ } grep { $_->{lookup_key} } $stripe->all('price');
    is_deeply {map { $_ => "$at{$_}{unit_amount} $at{$_}{currency} " . ($at{$_}{recurring}{interval} // 'once') } keys %at}, {
        billing_plan_starter_month => '2900 usd month', billing_plan_pro_month => '7900 usd month', billing_plan_pro_year => '79000 usd year',
        billing_pack_logo_10 => '1000 usd once',
    }, 'O1: prices with lookup keys';
    my $ids = $json->decode(prices());
    is_deeply [@$ids{'starter month', 'pro month', 'pro year'}], [map { $at{"billing_plan_$_"}{id} } qw(starter_month pro_month pro_year)],
        'O1: whose ids are written back';
    my ($portal) = grep { $_->{id} eq $told->{portal_configuration} } $stripe->all('billing_portal.configuration');
    my $features = $portal->{features};
    is $portal->{business_profile}{headline}, 'Example Ltd', 'O1: the portal: headline';
    is_deeply [@{$features->{subscription_cancel}}{qw(enabled mode)}, $features->{subscription_cancel}{cancellation_reason}{enabled}], [1, 'at_period_end', 1],
        'cancel at the end of the period, with a reason';
    is_deeply [map { $_->{product} } $features->{subscription_update}{products}->@*],
        ['billing_plan_starter', 'billing_plan_pro', ($stripe->object('price_agency_monthly'))->{product}], 'change between the prices of the catalog';
    is $features->{subscription_update}{proration_behavior}, 'create_prorations', 'with prorations';
    ok $features->{$_}{enabled}, $_ for qw(invoice_history payment_method_update);

    wait_for(sub { checkout('ann', 'pro')->status == 200 }, 10, 'C2: it can be bought now');
    my ($session) = $stripe->all('checkout.session');
    $stripe->pay($session->{id});
    wait_for(sub { $world->account('ann')->{plan} eq 'pro' }, 10, 'and gives the plan');
};

subtest 'again' => sub {
    my $before = posts();
    my $told = pushed('--headline', 'Example Ltd');
    is_deeply [$told->{changed}, made($told, 'created'), made($told, 'changed')], [0, [], []], 'O1: nothing is made twice';
    is posts(), $before, 'nothing is sent';
    like push_it('--headline', 'Example Ltd')->{out}, qr/^nothing to change at Stripe$/m, 'which is said';
    my $ids = prices();
    is $json->decode($world->must('catalog', 'apply', $world->catalog_file($catalog), '--json'))->{changed}, 0, 'the file without ids is applied';
    is prices(), $ids, 'and keeps those that were made';
    $world->sql('UPDATE billing.plan_prices SET price_id = NULL');    # as in another database
    $world->sql(q{UPDATE billing.plan_prices SET price_id = 'price_agency_monthly' WHERE amount = 19900});
    is_deeply made(pushed('--headline', 'Example Ltd'), 'created'), [], 'without them they are found by their lookup keys';
    is prices(), $ids, 'the same';
};

subtest 'changed' => sub {
    my $old = $json->decode(prices())->{'pro month'};
    $catalog->{plans}{pro}{price}{month}{amount} = 8900;
    $catalog->{plans}{pro}{name} = 'Professional';
    my $told = pushed();
    is_deeply made($told, 'created'), ['plans.pro.price.month'], 'another amount is another price';
    is_deeply made($told, 'changed'), ['Professional', q{the customer portal's configuration}], 'another name the same product';
    my $new = $json->decode(prices())->{'pro month'};
    is $stripe->object($new)->{unit_amount}, 8900, 'it is what is sold now';
    is_deeply [@{$stripe->object($old)}{qw(active lookup_key)}], [1, undef], 'whoever has bought at the old one keeps it';
    is $world->account('ann')->{plan}, 'pro', 'and the plan';
    $catalog->{plans}{pro}{name} = 'Pro';
    pushed();
    is $stripe->object('billing_plan_pro')->{name}, 'Pro', 'there and back within a day';
};

subtest 'refused' => sub {
    my $right = dclone($catalog);
    my @wrong = (
        ['a product' => sub ($c) { $c->{plans}{pro}{price}{month}{id} = 'prod_Q1' }, qr/plans\.pro\.price\.month\.id: "prod_Q1" is a Stripe product; write the id of one of its prices/],
        ['an id of nothing' => sub ($c) { $c->{plans}{pro}{price}{month}{id} = 'price_none' }, qr/plans\.pro\.price\.month\.id: Stripe does not know price_none/],
        ['another amount' => sub ($c) { $c->{plans}{agency}{price}{month}{amount} = 1 }, qr/price_agency_monthly costs 19900 usd at Stripe/],
        ['another interval' => sub ($c) { $c->{plans}{agency}{price} = {year => $c->{plans}{agency}{price}{month}} }, qr/is paid each 1 month at Stripe/],
        ['no text' => sub ($c) { $c->{plans}{pro}{description} = 5 }, qr/plans\.pro\.description: must be a text/],
    );
    for my $case (@wrong) {
        my ($what, $change, $like) = @$case;
        my $before = posts();
        $change->($catalog);
        my $said = push_it();
        is $said->{code}, 1, "C2: $what";
        like $said->{err}, $like, 'says what and where';
        is posts(), $before, 'makes nothing' if $what ne 'another amount';
        $catalog = dclone($right);
    }
    local $ENV{STRIPE_SECRET_KEY} = 'sk_live_' . 'x' x 24;
    my $live = $world->command('catalog', 'push', $world->catalog_file($catalog), '--stripe-api', 'https://127.0.0.1:1');
    is $live->{code}, 2, 'a live key';
    like $live->{err}, qr/write --live/, 'wants --live';
    is $world->command('catalog', 'push', $world->catalog_file($catalog), '--stripe-api', 'https://127.0.0.1:1', '--live')->{code}, 3, 'with which it goes to Stripe';
};

subtest 'two at a time' => sub {
    $catalog->{plans}{team} = {%{$catalog->{plans}{starter}}, name => 'Team', price => {month => {amount => 100, currency => 'usd'}}};
    my $file = $world->catalog_file($catalog);
    $stripe->fault(path => '/v1/products', delay => 0.5, after => 1);
    my @children = map { fork // die || do { my $said = $world->command('catalog', 'push', $file, @stripe); POSIX::_exit($said->{code}) } } 1 .. 2;
    waitpid $_, 0 for @children;
    is scalar(grep { ($_->{metadata}{plan} // '') eq 'team' } $stripe->all('product')), 1, 'make one product';
    is scalar(grep { ($_->{metadata}{plan} // '') eq 'team' } $stripe->all('price')), 1, 'and one price';
};
done_testing;
