# The promise: a call that Stripe would refuse is refused here, with Stripe's status, code and parameter. Whoever passes the tests of the
# product against the stand-in sends nothing that API version 2026-02-25.clover does not know.
use v5.36;
use Billing::Process qw(root);
use Billing::Stripe;
use Test::More;

my $stripe = Billing::Stripe->new(catalog => root() . '/conf/catalog.json');
my $ok = 'http://127.0.0.1/done?session={CHECKOUT_SESSION_ID}';
my $now = $stripe->now;

sub refused($what, $answer, %wanted) {
    subtest $what => sub {
        my $error = $answer->json->{error} // {};
        is $answer->status, $wanted{status} // 400, 'status';
        is $error->{type}, $wanted{type} // 'invalid_request_error', 'type';
        is $error->{code}, $wanted{code}, 'code';
        is $error->{param}, $wanted{param}, 'param';
        like $error->{message}, $wanted{message}, 'message' if $wanted{message};
    } or diag $answer->body;
    return;
}

sub made($what, $answer) {
    is $answer->status, 200, $what or diag $answer->body;
    return $answer->json;
}

sub post($path, %params) { $stripe->api(POST => "/v1/$path", \%params) }
sub get($path, %params) { $stripe->api(GET => "/v1/$path", \%params) }

my $customer = made('a customer', post('customers', email => 'ann@example.com', name => 'Ann', metadata => {account => 'a'}));
my $gone = made('one that is deleted', post('customers'));
$stripe->delete_customer($gone->{id});
my %line = (line_items => [{price => 'price_pro_monthly', quantity => 1}]);
my %pack = (mode => 'payment', success_url => $ok, line_items => [{price => 'price_logo_pack_10', quantity => 1}]);
my %plan = (mode => 'subscription', success_url => $ok, %line);

subtest 'parameters that Stripe does not know, or not so' => sub {
    refused('unknown', post('customers', nick => 'x'), code => 'parameter_unknown', param => 'nick',
        message => qr/^Received unknown parameter: nick$/);
    refused('two unknown', post('customers', nick => 'x', aka => 'y'), code => 'parameter_unknown', param => 'aka',
        message => qr/parameters: aka, nick$/);
    refused('unknown inside', post('checkout/sessions', %plan, subscription_data => {tier => 'pro'}), code => 'parameter_unknown',
        param => 'subscription_data[tier]');
    refused('unknown inside a list', post('checkout/sessions', %plan,
        line_items => [{price => 'price_pro_monthly', quantity => 1, amount => 5}]),
        code => 'parameter_unknown', param => 'line_items[0][amount]');
    refused('unknown in a GET', get('customers', name => 'x'), code => 'parameter_unknown', param => 'name');
    refused('unknown in a DELETE', $stripe->api(DELETE => "/v1/customers/$customer->{id}", {force => 'true'}),
        code => 'parameter_unknown', param => 'force');
    refused('text for an integer', post('checkout/sessions', %plan, expires_at => 'soon'), code => 'parameter_invalid_integer',
        param => 'expires_at');
    refused('a fraction for an integer', post('checkout/sessions', %plan, expires_at => $now + 3600.5),
        code => 'parameter_invalid_integer', param => 'expires_at');
    refused('1 for a boolean', post('checkout/sessions', %plan, allow_promotion_codes => 1), param => 'allow_promotion_codes',
        message => qr/Invalid boolean/);
    refused('a hash for text', post('customers', name => {first => 'x'}), param => 'name');
    refused('text for a hash', post('customers', metadata => 'x'), param => 'metadata');
    refused('text for a list', post('checkout/sessions', %plan, line_items => 'price_pro_monthly'), param => 'line_items');
    refused('a value that is none of those', post('checkout/sessions', %plan, billing_address_collection => 'always'),
        param => 'billing_address_collection',
        message => qr/must be one of auto, required/);
    refused('a locale that Checkout does not have', post('checkout/sessions', %plan, locale => 'xx'), param => 'locale');
    refused('an empty value where nothing is unset', post('checkout/sessions', %plan, client_reference_id => ''),
        code => 'parameter_invalid_empty',
        param => 'client_reference_id');
    refused('known to Stripe, not modelled here', post('customers', balance => 5), code => 'not_modelled', param => 'balance');
    made('an empty value unsets', post("customers/$customer->{id}", name => ''));
    made('a list in brackets without numbers', $stripe->api(POST => '/v1/customers', {'preferred_locales[]' => 'de'}));
};

subtest 'what is for sale' => sub {
    my $product = made('a product', post('products', id => 'tea', name => 'Tea', description => 'Hot', metadata => {plan => 'tea'}));
    refused('the same again', post('products', id => 'tea', name => 'Tea'), code => 'resource_already_exists', param => 'id');
    refused('a product without a name', post('products'), code => 'parameter_missing', param => 'name');
    my %price = (product => 'tea', currency => 'usd', unit_amount => 100, recurring => {interval => 'month'}, lookup_key => 'tea');
    my $price = made('a price', post('prices', %price));
    refused('a lookup key that is in use', post('prices', %price), param => 'lookup_key', message => qr/already uses that lookup key/);
    my $other = made('which is handed over when that is said', post('prices', %price, transfer_lookup_key => 'true'));
    is_deeply [map { $_->{id} } get('prices', lookup_keys => ['tea'])->json->{data}->@*], [$other->{id}], 'it finds the new one';
    refused('a price of no product', post('prices', %price, product => 'none'), code => 'resource_missing', param => 'product');
    refused('below nothing', post('prices', %price, unit_amount => -1), code => 'parameter_invalid_integer', param => 'unit_amount');
    my $update = sub (@products) { post('billing_portal/configurations', features => {subscription_update => {enabled => 'true',
        default_allowed_updates => ['price'], products => [@products]}}) };
    my $at = 'features[subscription_update]';
    refused('a portal without features', post('billing_portal/configurations'), code => 'parameter_missing', param => 'features');
    refused('changes between nothing', post('billing_portal/configurations', features => {subscription_update => {enabled => 'true'}}),
        code => 'parameter_missing', param => "${at}[products]");
    refused('a price of another product', $update->({product => 'tea', prices => ['price_pro_monthly']}), param => "${at}[products][0][prices][0]");
    refused('two prices a month', $update->({product => 'tea', prices => [$price->{id}, $other->{id}]}), param => "${at}[products][0][prices][0]");
    refused('eleven products', $update->(map { {product => 'tea', prices => [$price->{id}]} } 1 .. 11), param => "${at}[products]");
    made('as it should be', $update->({product => 'tea', prices => [$price->{id}]}));
    refused('more types of events than twenty', get('events', types => [map { "a.b$_" } 1 .. 21]), param => 'types');
};

subtest 'objects' => sub {
    refused('in the address', get('customers/cus_none'), status => 404, code => 'resource_missing', param => 'id',
        message => qr/^No such customer: 'cus_none'$/);
    refused('in a parameter', post('checkout/sessions', %plan, customer => 'cus_none'), code => 'resource_missing', param => 'customer');
    refused('a deleted customer', post('checkout/sessions', %plan, customer => $gone->{id}), code => 'resource_missing',
        param => 'customer');
    refused('an update of a deleted customer', post("customers/$gone->{id}", name => 'x'), status => 404, code => 'resource_missing',
        param => 'id');
    is get("customers/$gone->{id}")->json->{deleted}, 1, 'a deleted customer can be read as such';
    refused("another kind's id", get("subscriptions/$customer->{id}"), status => 404, code => 'resource_missing', param => 'id');
    refused('an address that is none', get('nothing'), status => 404, message => qr{^Unrecognized request URL \(GET: /v1/nothing\)});
};

subtest 'customers' => sub {
    refused('an address of mail that is none', post('customers', email => 'ann'), code => 'email_invalid', param => 'email');
    refused('a key of metadata too long', post('customers', metadata => {'k' x 41 => 'v'}), param => 'metadata[' . 'k' x 41 . ']');
    refused('a value of metadata too long', post('customers', metadata => {k => 'v' x 501}), param => 'metadata[k]',
        message => qr/up to 500 characters/);
    refused('too many keys of metadata', post('customers', metadata => {map { ("k$_" => 1) } 1 .. 51}), param => 'metadata');
    refused('a key with brackets', $stripe->api(POST => '/v1/customers', {'metadata[a[b]]' => 1}), param => 'metadata[a[b]]');
    my $changed = made('metadata is merged', post("customers/$customer->{id}", metadata => {more => 'x', account => ''}));
    is_deeply $changed->{metadata}, {more => 'x'}, 'and an empty value removes its key';
};

subtest 'checkout: what must be there' => sub {
    refused('mode', post('checkout/sessions', success_url => $ok, %line), code => 'parameter_missing', param => 'mode');
    refused('success_url', post('checkout/sessions', mode => 'subscription', %line), code => 'parameter_missing', param => 'success_url');
    refused('line_items', post('checkout/sessions', mode => 'subscription', success_url => $ok), code => 'parameter_missing',
        param => 'line_items');
    refused('a price', post('checkout/sessions', %plan, line_items => [{quantity => 1}]), code => 'parameter_missing',
        param => 'line_items[0][price]');
    refused('a quantity', post('checkout/sessions', %plan, line_items => [{price => 'price_pro_monthly'}]), code => 'parameter_missing',
        param => 'line_items[0][quantity]');
    refused('one or more of it', post('checkout/sessions', %plan, line_items => [{price => 'price_pro_monthly', quantity => 0}]),
        code => 'parameter_invalid_integer', param => 'line_items[0][quantity]');
    refused('a price that exists', post('checkout/sessions', %plan, line_items => [{price => 'price_none', quantity => 1}]),
        code => 'resource_missing', param => 'line_items[0][price]');
    my ($product) = $stripe->all('product');
    refused('not a product', post('checkout/sessions', %plan, line_items => [{price => $product->{id}, quantity => 1}]),
        code => 'resource_missing', param => 'line_items[0][price]', message => qr/^No such price: 'prod_/);
    $stripe->price(id => 'price_old', amount => 100, interval => 'month');
    $stripe->archive('price_old');
    refused('a price that is for sale', post('checkout/sessions', %plan, line_items => [{price => 'price_old', quantity => 1}]),
        param => 'line_items[0][price]', message => qr/inactive/);
    refused('a recurring price is not paid once', post('checkout/sessions', %plan, mode => 'payment'), param => 'mode',
        message => qr/recurring price/);
    refused('a pack is no subscription', post('checkout/sessions', %pack, mode => 'subscription'), param => 'line_items');
    refused('two intervals', post('checkout/sessions', %plan,
        line_items => [map { {price => $_, quantity => 1} } qw(price_pro_monthly price_pro_yearly)]), param => 'line_items');
    made('a pack on the first invoice', post('checkout/sessions', %plan,
        line_items => [map { {price => $_, quantity => 1} } qw(price_pro_monthly price_logo_pack_10)]));
    refused('a URL', post('checkout/sessions', %plan, success_url => '/done'), code => 'url_invalid', param => 'success_url');
    refused('a URL to go back', post('checkout/sessions', %plan, cancel_url => 'app.example.com'), code => 'url_invalid',
        param => 'cancel_url');
    refused('the placeholder as it is', post('checkout/sessions', %plan, success_url => 'http://127.0.0.1/?s=%7BCHECKOUT_SESSION_ID%7D'),
        param => 'success_url');
};

subtest 'checkout: what does not go together' => sub {
    my %with = (customer => $customer->{id});
    refused('customer and customer_email', post('checkout/sessions', %plan, %with, customer_email => 'a@example.com'), param => 'customer',
        message => qr/only specify one of these parameters: customer, customer_email/);
    refused('customer and customer_creation', post('checkout/sessions', %pack, %with, customer_creation => 'always'), param => 'customer');
    refused('customer_creation and a subscription', post('checkout/sessions', %plan, customer_creation => 'always'),
        param => 'customer_creation');
    refused('customer_update without a customer', post('checkout/sessions', %plan, customer_update => {name => 'auto'}),
        param => 'customer_update');
    refused('tax ids, and the name stays', post('checkout/sessions', %plan, %with, tax_id_collection => {enabled => 'true'}),
        param => undef,
        message => qr/^Tax ID collection requires updating business name on the customer\..*`customer_update\[name\]` to `auto`\.$/);
    refused('the same with never', post('checkout/sessions', %plan, %with, tax_id_collection => {enabled => 'true'},
        customer_update => {name => 'never', address => 'auto'}));
    made('tax ids, and the name follows', post('checkout/sessions', %plan, %with, tax_id_collection => {enabled => 'true'},
        customer_update => {name => 'auto'}));
    made('tax ids without a customer', post('checkout/sessions', %plan, tax_id_collection => {enabled => 'true'}));
    refused('automatic tax for one who lives nowhere', post('checkout/sessions', %plan, %with, automatic_tax => {enabled => 'true'}),
        code => 'customer_tax_location_invalid', param => undef, message => qr/customer_update\[address\]/);
    made('automatic tax, and the address follows', post('checkout/sessions', %plan, %with, automatic_tax => {enabled => 'true'},
        customer_update => {address => 'auto'}));
    my $at_home = post('customers', address => {country => 'DE', city => 'Berlin'})->json;
    made('automatic tax for one who lives somewhere', post('checkout/sessions', %plan, customer => $at_home->{id},
        automatic_tax => {enabled => 'true'}));
    refused('subscription_data and a payment', post('checkout/sessions', %pack, subscription_data => {metadata => {a => 1}}),
        param => 'subscription_data',
        message => qr/can not pass `subscription_data` in `payment` mode/);
    refused('payment_intent_data and a subscription', post('checkout/sessions', %plan, payment_intent_data => {metadata => {a => 1}}),
        param => 'payment_intent_data');
    refused('payment_method_collection and a payment', post('checkout/sessions', %pack, payment_method_collection => 'always'),
        param => 'payment_method_collection');
    refused('invoice_creation and a subscription', post('checkout/sessions', %plan, invoice_creation => {enabled => 'true'}),
        param => 'invoice_creation');
    refused('promotion codes and a discount', post('checkout/sessions', %plan, allow_promotion_codes => 'true',
        discounts => [{coupon => 'x'}]),
        param => 'allow_promotion_codes', message => qr/allow_promotion_codes, discounts/);
    refused('a coupon that is not there', post('checkout/sessions', %plan, discounts => [{coupon => 'x'}]), code => 'resource_missing',
        param => 'discounts[0][coupon]');
    refused('payment_behavior', post('checkout/sessions', %plan, payment_behavior => 'default_incomplete'), code => 'parameter_unknown',
        param => 'payment_behavior');
    refused('payment_method_types', post('checkout/sessions', %plan, payment_method_types => ['card']), code => 'parameter_unknown',
        param => 'payment_method_types');
    refused('a customer of mail that is none', post('checkout/sessions', %plan, customer_email => 'ann'), code => 'email_invalid',
        param => 'customer_email');
    refused('a long client_reference_id', post('checkout/sessions', %plan, client_reference_id => 'x' x 201),
        param => 'client_reference_id');
    refused('long metadata of the subscription', post('checkout/sessions', %plan, subscription_data => {metadata => {k => 'v' x 501}}),
        param => 'subscription_data[metadata][k]');
    refused('long metadata of the payment', post('checkout/sessions', %pack, payment_intent_data => {metadata => {k => 'v' x 501}}),
        param => 'payment_intent_data[metadata][k]');
};

subtest 'checkout: times' => sub {
    refused('expires too soon', post('checkout/sessions', %plan, expires_at => $now + 1700), param => 'expires_at',
        message => qr/30 minutes/);
    refused('expires too late', post('checkout/sessions', %plan, expires_at => $now + 86400 + 60), param => 'expires_at',
        message => qr/24 hours/);
    is made('expires in time', post('checkout/sessions', %plan, expires_at => $now + 3600))->{expires_at}, $now + 3600, 'as asked';
    refused('a trial of no days', post('checkout/sessions', %plan, subscription_data => {trial_period_days => 0}),
        param => 'subscription_data[trial_period_days]');
    refused('a trial too long', post('checkout/sessions', %plan, subscription_data => {trial_period_days => 731}),
        param => 'subscription_data[trial_period_days]');
    refused('a trial that ends too soon', post('checkout/sessions', %plan, subscription_data => {trial_end => $now + 86400}),
        param => 'subscription_data[trial_end]');
    refused('two ends of a trial', post('checkout/sessions', %plan,
        subscription_data => {trial_end => $now + 9 * 86400, trial_period_days => 3}),
        param => 'subscription_data[trial_end]');
    is made('a trial', post('checkout/sessions', %plan, subscription_data => {trial_period_days => 14}))->{amount_total}, 0,
        'costs nothing today';
};

subtest 'portal' => sub {
    refused('no customer', post('billing_portal/sessions'), code => 'parameter_missing', param => 'customer');
    refused('no such customer', post('billing_portal/sessions', customer => 'cus_none'), code => 'resource_missing', param => 'customer');
    refused('a deleted customer', post('billing_portal/sessions', customer => $gone->{id}), code => 'resource_missing',
        param => 'customer');
    refused('two customers', post('billing_portal/sessions', customer => $customer->{id}, customer_account => 'acct_1'),
        param => 'customer');
    refused('a URL that is none', post('billing_portal/sessions', customer => $customer->{id}, return_url => 'back'),
        code => 'url_invalid', param => 'return_url');
    refused('no such configuration', post('billing_portal/sessions', customer => $customer->{id}, configuration => 'bpc_none'),
        code => 'resource_missing', param => 'configuration');
    my $idle = $stripe->portal_configuration(active => 0);
    refused('an inactive configuration', post('billing_portal/sessions', customer => $customer->{id}, configuration => $idle->{id}),
        param => 'configuration');
    my $subscription = $stripe->subscribe($customer->{id}, price => 'price_pro_monthly');
    my $other = $stripe->subscribe(post('customers')->json->{id}, price => 'price_pro_monthly');
    my $portal = sub (%flow) { post('billing_portal/sessions', customer => $customer->{id}, flow_data => \%flow) };
    refused('a flow without a type', $portal->(subscription_cancel => {subscription => $subscription->{id}}),
        code => 'parameter_missing', param => 'flow_data[type]');
    refused('a flow that is none', $portal->(type => 'pay'), param => 'flow_data[type]');
    refused('a flow without its part', $portal->(type => 'subscription_cancel'), code => 'parameter_missing',
        param => 'flow_data[subscription_cancel]');
    refused("another flow's part", $portal->(type => 'payment_method_update', subscription_cancel => {subscription => $subscription->{id}}),
        param => 'flow_data[subscription_cancel]');
    refused("another customer's subscription", $portal->(type => 'subscription_cancel',
        subscription_cancel => {subscription => $other->{id}}),
        code => 'resource_missing', param => 'flow_data[subscription_cancel][subscription]');
    made('a flow', $portal->(type => 'subscription_cancel', subscription_cancel => {subscription => $subscription->{id}}));
    $stripe->cancel($subscription->{id});
    refused('to cancel what is canceled', $portal->(type => 'subscription_cancel',
        subscription_cancel => {subscription => $subscription->{id}}),
        param => 'flow_data[subscription_cancel][subscription]', message => qr/already/);
    my $bare = $stripe->portal_configuration(without => ['subscription_update']);
    refused('what the configuration does not have', post('billing_portal/sessions', customer => $customer->{id},
        configuration => $bare->{id},
        flow_data => {type => 'subscription_update', subscription_update => {subscription => $subscription->{id}}}),
            param => 'configuration');
};

subtest 'lists' => sub {
    refused('too many', get('subscriptions', limit => 101), param => 'limit',
        message => qr/less than or equal to 100 \(it currently is '101'\)/);
    refused('too few', get('subscriptions', limit => 0), param => 'limit');
    refused('after nothing', get('customers', starting_after => 'cus_none'), code => 'resource_missing', param => 'starting_after');
    refused('both ways', get('customers', starting_after => $customer->{id}, ending_before => $customer->{id}), param => 'starting_after');
    refused('a status that is none', get('subscriptions', status => 'cancelled'), param => 'status');
    refused('what cannot be expanded', get("customers/$customer->{id}", expand => ['email']), param => 'expand');
    refused('two ways to name a type', get('events', type => 'customer.created', types => ['customer.updated']), param => 'type');
};

subtest 'subscriptions' => sub {
    my $subscription = $stripe->subscribe($customer->{id}, price => 'price_pro_monthly');
    my $path = "subscriptions/$subscription->{id}";
    refused('to cancel in two ways', post($path, cancel_at => $now + 9e5, cancel_at_period_end => 'true'), param => 'cancel_at');
    refused('to cancel in the past', post($path, cancel_at => $now - 5), param => 'cancel_at');
    refused('an item that is not its own', post($path, items => [{id => 'si_none', price => 'price_starter_monthly'}]),
        code => 'resource_missing', param => 'items[0][id]');
    refused('a price paid once', post($path, items => [{price => 'price_logo_pack_10'}]), param => 'items[0][price]',
        message => qr/type=one_time/);
    refused('the same price twice', post($path, items => [{price => 'price_pro_monthly'}]), param => 'items[0][price]');
    refused('the only item away', post($path, items => [{id => $subscription->{items}{data}[0]{id}, deleted => 'true'}]));
    made('the end', $stripe->api(DELETE => "/v1/$path"));
    refused('the end twice', $stripe->api(DELETE => "/v1/$path"), status => 404, code => 'resource_missing', param => 'id');
    refused('a change after the end', post($path, cancel_at_period_end => 'true'), param => 'cancel_at_period_end',
        message => qr/^A canceled subscription/);
};

subtest 'meter events' => sub {
    $stripe->meter('overage');
    my %event = (event_name => 'overage', payload => {stripe_customer_id => $customer->{id}, value => '25'});
    refused('no name', post('billing/meter_events', payload => {value => 1}), code => 'parameter_missing', param => 'event_name');
    refused('no such meter', post('billing/meter_events', %event, event_name => 'x'), code => 'resource_missing', param => 'event_name');
    refused('no value', post('billing/meter_events', %event, payload => {stripe_customer_id => 'x'}), code => 'parameter_missing',
        param => 'payload[value]');
    refused('half a value', post('billing/meter_events', %event, payload => {stripe_customer_id => 'x', value => '1.5'}),
        param => 'payload[value]');
    refused('too old', post('billing/meter_events', %event, timestamp => $now - 36 * 86400), param => 'timestamp');
    refused('too early', post('billing/meter_events', %event, timestamp => $now + 400), param => 'timestamp');
    made('an event', post('billing/meter_events', %event, identifier => 'one'));
    refused('the same once more', post('billing/meter_events', %event, identifier => 'one'), param => 'identifier',
        message => qr/already exists with identifier one/);
    is $stripe->meter_sum('overage', $customer->{id}), 25, 'is counted once';
    $stripe->advance(86401);
    made('a day later it is not recognised', post('billing/meter_events', %event, identifier => 'one'));
};

is $stripe->log_text, '', 'the stand-in had nothing to complain about';
my $bare = Billing::Stripe->new(portal => 0);
refused('no configuration of the portal has been saved', $bare->api(POST => '/v1/billing_portal/sessions',
    {customer => $bare->api(POST => '/v1/customers')->json->{id}}),
    message => qr/default configuration has not been created/);

done_testing;
