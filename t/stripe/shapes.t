# The promise: what the stand-in answers and tells has exactly the fields that Stripe's own types give it, in API version
# 2026-02-25.clover and in the older ones that a webhook endpoint may be registered with. The TypeScript compiler is the judge, over the
# types of npm stripe of each version: a field that is missing or of another kind is a complaint; in the first version one too many as
# well (older versions show at Stripe, too, what was only added since).
use v5.36;
use Billing::Process qw(build root new_directory wait_for);
use Billing::Stripe;
use JSON::PP ();
use Test::More;

my $json = JSON::PP->new->utf8->canonical;    # keeps true and false as they are
my $stripe = Billing::Stripe->new(catalog => root() . '/conf/catalog.json');
my $exact = '2026-02-25.clover';
my %package = (
    '2026-02-25.clover' => 'stripe', '2025-03-31.basil' => 'stripe-2025-03-31.basil', '2024-09-30.acacia' => 'stripe-2024-09-30.acacia',
    '2022-11-15' => 'stripe-2022-11-15',
);
my %type = (
    customer => 'Customer', product => 'Product', price => 'Price', 'checkout.session' => 'Checkout.Session',
    subscription => 'Subscription',
    invoice => 'Invoice', invoice_payment => 'InvoicePayment', payment_intent => 'PaymentIntent', payment_method => 'PaymentMethod',
    charge => 'Charge', refund => 'Refund', dispute => 'Dispute', 'billing_portal.session' => 'BillingPortal.Session',
    'entitlements.active_entitlement' => 'Entitlements.ActiveEntitlement',
    'entitlements.active_entitlement_summary' => 'Entitlements.ActiveEntitlementSummary',
    'billing_portal.configuration' => 'BillingPortal.Configuration', 'billing.meter_event' => 'Billing.MeterEvent', item => 'LineItem',
);

# A year in the life of a few customers, so that every kind of object and event exists in several states.
sub post($path, $params) {
    my $answer = $stripe->api(POST => $path, $params);
    die "$path: " . $answer->body if $answer->status != 200;
    return $answer->json;
}

sub checkout($customer, $price, %more) {
    return post('/v1/checkout/sessions', {customer => $customer, success_url => 'http://127.0.0.1/s?id={CHECKOUT_SESSION_ID}',
        line_items => [{price => $price, quantity => 1}], %more});
}

my $customer = post('/v1/customers', {name => 'Ann', email => 'ann@example.com', metadata => {account => 'a'},
    address => {city => 'Berlin', country => 'DE'}})->{id};
my $session = checkout($customer, 'price_pro_monthly', mode => 'subscription', subscription_data => {metadata => {account => 'a'}},
    tax_id_collection => {enabled => 'true'},
    customer_update => {name => 'auto', address => 'auto'}, automatic_tax => {enabled => 'true'}, locale => 'de',
        client_reference_id => 'a', billing_address_collection => 'required');
my $open = $session->{id};
$stripe->pay($open, later => 'declines');
my ($subscription) = $stripe->all('subscription');
$stripe->change_plan($subscription->{id}, 'price_agency_monthly');
$stripe->end_period($subscription);
$stripe->advance(20 * 86400);
my $pack = checkout($customer, 'price_logo_pack_10', mode => 'payment', payment_intent_data => {metadata => {pack => 'logo_10'}});
$stripe->pay($pack->{id});
$stripe->refund($pack->{id}, amount => 400);
$stripe->fail_refund($stripe->refund($pack->{id}, amount => 100)->{id});
$stripe->entitle($customer, map { "feature_$_" } 1 .. 12);
$stripe->close_dispute($stripe->dispute($pack->{id})->{id}, 'won');
my $delayed = checkout($customer, 'price_logo_pack_10', mode => 'payment');
$stripe->pay($delayed->{id}, delayed => 1);
$stripe->settle_later($delayed->{id}, 0);
my $trial = checkout($customer, 'price_starter_monthly', mode => 'subscription', subscription_data => {trial_period_days => 7,
    billing_mode => {type => 'classic'}});
$stripe->pay($trial->{id});
my ($trialing) = grep { $_->{status} eq 'trialing' } $stripe->all('subscription');
$stripe->cancel($trialing->{id});
checkout($customer, 'price_starter_monthly', mode => 'subscription');
post('/v1/billing_portal/sessions', {customer => $customer, return_url => 'http://127.0.0.1/back',
    flow_data => {type => 'subscription_cancel', subscription_cancel => {subscription => $stripe->subscribe($customer,
        price => 'price_starter_monthly')->{id}}}});
$stripe->meter('overage');

# name => [objects] of a version.
sub objects($version) {
    my %all;
    my $add = sub ($name, $object) {
        my $type = $type{$object->{object} // ''} or return push $all{"no type for $name"}->@*, $name;
        return if $type eq 'InvoicePayment' && $version lt '2025-03-31' || $type =~ /^Entitlements/ && $version lt '2024';    # there was no such thing
        delete $object->{subscription} if $type eq 'Invoice' && $version ge '2025-03-31'
            && !defined $object->{subscription};    # as in Stripe's own examples
        push $all{list}->@*, {name => $name, type => $type, value => $object};
    };
    if ($version eq $exact) {
        for my $path (qw(customers products prices checkout/sessions invoices invoice_payments payment_intents charges refunds),
            "subscriptions?status=all",
            'billing_portal/configurations', "checkout/sessions/$open/line_items", "entitlements/active_entitlements?customer=$customer") {
            my $list = $json->decode($stripe->api(GET => "/v1/$path")->body);
            $add->("GET /v1/$path", $_) for $list->{data}->@*;
        }
        my ($kind) = map { $_->{id} } $stripe->all('payment_method');
        $add->("a $_->[0]", $json->decode($stripe->api(GET => "/v1/$_->[0]/$_->[1]")->body))
            for ['payment_methods', $kind], ['disputes', ($stripe->all('dispute'))[0]{id}];
        $add->('portal session', $json->decode($stripe->api(POST => '/v1/billing_portal/sessions', {customer => $customer})->body));
        $add->('meter event', $json->decode($stripe->api(POST => '/v1/billing/meter_events', {event_name => 'overage',
            payload => {stripe_customer_id => $customer, value => 3}})->body));
    }
    for my $event ($stripe->events) {
        $add->("event $event->{type}", $json->decode($stripe->body($event, api_version => $version))->{data}{object});
    }
    return %all;
}

my $folder = build() . '/stripe-types';
my %running;
for my $version (sort keys %package) {
    my %all = objects($version);
    is_deeply [sort keys %all], ['list'], "$version: every object has a type to compare with";
    cmp_ok scalar $all{list}->@*, '>', 60, "$version: there are objects";
    push $all{list}->@*, {name => 'probe', type => 'Subscription', value => {id => 1, object => 'subscription'}};
    my $directory = new_directory();
    open my $out, '>:raw', "$directory/objects.json" or die $!;
    print $out $json->encode($all{list});
    close $out;
    $running{$version} = Billing::Process->start(name => "node ($version)", log => "$directory/out",
        command => ['sh', '-c', 'exec node "$0" "$1" "$2" "$3" < "$4"', root() . '/t/stripe/typecheck.js', $folder, $package{$version},
            $version eq $exact ? 'exact' : 'more', "$directory/objects.json"]);
    wait_for(sub { 2 > grep { $_->alive } values %running }, 60, 'a place for the next compiler');
}
for my $version (sort keys %running) {
    my $probe = qr/^probe: /;
    is $running{$version}->wait_exit(60), 0, "$version: the compiler ran";
    my %seen;
    my @all = split /\n/, $running{$version}->log_text;
    ok scalar(grep { $_ =~ $probe } @all), "$version: it complains of an object that is none";
    my @complaints = grep { $_ !~ $probe && !$seen{s/^event \S+ //r}++ } @all;
    ok !@complaints, "$version: no complaint" or diag join "\n", @complaints[0 .. ($#complaints > 30 ? 30 : $#complaints)];
}
is $stripe->log_text, '', 'the stand-in had nothing to complain about';

done_testing;
