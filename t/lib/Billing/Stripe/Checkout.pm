# /v1/checkout/sessions: what may be asked for, alone and together. Fulfilment does what happens when one is paid.
package Billing::Stripe::Checkout;
use v5.36;
use Billing::Stripe::Common qw(expandable paging listing page created_within metadata merge_metadata check_metadata check_url);
use Billing::Stripe::Customers ();
use Billing::Stripe::Error qw(refuse missing_parameter unknown_parameter exclusive no_such);
use Billing::Stripe::Objects ();
use Billing::Stripe::Schema qw(text integer boolean one_of object array map_of_text);
use List::Util qw(sum0);
use Mojo::JSON qw(true false);

my $day = 86400;
my $auto = one_of(qw(auto never));

my %create = (
    (map { $_ => text } qw(customer customer_email client_reference_id success_url cancel_url locale currency)),
    (map { $_ => boolean } qw(allow_promotion_codes)),
    mode => one_of(qw(payment subscription)), ui_mode => one_of('hosted'), expires_at => integer, metadata => metadata,
    line_items => array(object(price => text, quantity => integer,
        adjustable_quantity => object(enabled => boolean, minimum => integer, maximum => integer))),
    customer_creation => one_of(qw(always if_required)), customer_update => object(name => $auto, address => $auto, shipping => $auto),
    billing_address_collection => one_of(qw(auto required)),
    tax_id_collection => object(enabled => boolean, required => one_of(qw(if_supported never))),
    automatic_tax => object(enabled => boolean), phone_number_collection => object(enabled => boolean),
    payment_method_collection => one_of(qw(always if_required)), submit_type => one_of(qw(auto book donate pay subscribe)),
    discounts => array(object(coupon => text, promotion_code => text)), invoice_creation => object(enabled => boolean),
    subscription_data => object(metadata => map_of_text, description => text, trial_period_days => integer, trial_end => integer,
        billing_mode => object(type => one_of(qw(classic flexible))),
        trial_settings => object(end_behavior => object(missing_payment_method => one_of(qw(cancel create_invoice pause))))),
    payment_intent_data => object(metadata => map_of_text, description => text, receipt_email => text,
        setup_future_usage => one_of(qw(off_session on_session)), statement_descriptor => text, statement_descriptor_suffix => text),
    payment_method_types => array(text),    # only to refuse it in its own words
);

sub routes($class) {
    my $retrieve = sub ($account, $params, $id) { $account->get('checkout.session', $id, status => 404, param => 'session') };
    return (
        ['POST', '/v1/checkout/sessions', expandable(%create), \&create],
        ['GET', '/v1/checkout/sessions', listing(customer => text, subscription => text, payment_intent => text,
            status => one_of(qw(complete expired open))), \&list],
        ['GET', '/v1/checkout/sessions/:id', expandable(), $retrieve],
        ['POST', '/v1/checkout/sessions/:id/expire', expandable(), \&expire],
        ['GET', '/v1/checkout/sessions/:id/line_items', paging(), \&line_items],
    );
}

# --- the rules ---

sub on($params, $name) { $params->{$name} && $params->{$name}{enabled} ? 1 : 0 }

# What may not come together, and what one thing needs of another.
sub check_customer($account, $params) {
    my $mode = $params->{mode};
    if (defined $params->{customer}) {
        exclusive('customer', $_) for grep { defined $params->{$_} } qw(customer_email customer_creation);
        my $customer = Billing::Stripe::Customers::living($account, $params->{customer}, param => 'customer');
        my $update = $params->{customer_update} // {};
        refuse('Tax ID collection requires updating business name on the customer. To enable tax ID collection for an existing customer, '
            . 'please set `customer_update[name]` to `auto`.') if on($params, 'tax_id_collection') && ($update->{name} // 'never') ne 'auto';
        refuse('Automatic tax calculation in Checkout requires a valid address on the Customer. Add a valid address to the Customer or set '
            . "either `customer_update[address]` to 'auto' or `customer_update[shipping]` to 'auto' to save the address entered in Checkout "
            . 'to the Customer.', code => 'customer_tax_location_invalid')
            if on($params, 'automatic_tax') && !($customer->{address} && $customer->{address}{country})
            && !grep { ($update->{$_} // 'never') eq 'auto' } qw(address shipping);
        return $customer;
    }
    refuse('`customer_update` can only be used with `customer`.', param => 'customer_update') if $params->{customer_update};
    refuse("`customer_creation` can only be used in `payment` and `setup` modes.", param => 'customer_creation')
        if defined $params->{customer_creation} && $mode ne 'payment';
    refuse("Invalid email address: $params->{customer_email}", code => 'email_invalid', param => 'customer_email')
        if defined $params->{customer_email} && $params->{customer_email} !~ /^[^\s@]+@[^\s@]+\.[^\s@]+$/;
    return undef;
}

my %only = (
    subscription => [qw(subscription_data payment_method_collection)],
    payment => [qw(payment_intent_data invoice_creation submit_type)],
);

sub check_mode($params) {
    my $mode = $params->{mode};
    my $other = $mode eq 'payment' ? 'subscription' : 'payment';
    for my $name ($only{$other}->@*) {
        refuse("You can not pass `$name` in `$mode` mode.", param => $name) if defined $params->{$name};
    }
    exclusive('allow_promotion_codes', 'discounts') if defined $params->{allow_promotion_codes} && defined $params->{discounts};
    for my $discount (@{$params->{discounts} // []}) {
        my ($name) = grep { defined $discount->{$_} } qw(coupon promotion_code) or next;
        no_such($name =~ tr/_/ /r, $discount->{$name}, param => "discounts[0][$name]");
    }
    return;
}

sub check_addresses($params) {
    missing_parameter('success_url') if !defined $params->{success_url};
    check_url($params->{$_}, $_) for qw(success_url cancel_url);
    refuse('success_url has the placeholder {CHECKOUT_SESSION_ID} percent-encoded: it would not be replaced', param => 'success_url')
        if $params->{success_url} =~ /%7BCHECKOUT_SESSION_ID%7D/i;
    return;
}

sub check_times($account, $params) {
    my $now = $account->now;
    if (defined(my $expires = $params->{expires_at})) {
        refuse('The `expires_at` timestamp must be at least 30 minutes from Checkout Session creation.', param => 'expires_at')
            if $expires < $now + 1800;
        refuse('The `expires_at` timestamp must be less than 24 hours from Checkout Session creation.', param => 'expires_at')
            if $expires > $now + $day;
    }
    my $data = $params->{subscription_data} // return;
    exclusive(map { "subscription_data[$_]" } qw(trial_end trial_period_days))
        if defined $data->{trial_end} && defined $data->{trial_period_days};
    if (defined(my $days = $data->{trial_period_days})) {
        refuse('The minimum number of trial period days is 1.', param => 'subscription_data[trial_period_days]') if $days < 1;
        refuse('The maximum number of trial period days is 730 (2 years).', param => 'subscription_data[trial_period_days]') if $days > 730;
    }
    if (defined(my $end = $data->{trial_end})) {
        refuse('The `trial_end` date has to be at least 2 days in the future.', param => 'subscription_data[trial_end]')
            if $end < $now + 2 * $day;
    }
    return;
}

# What is bought: [[price, quantity], ...].
sub check_items($account, $params) {
    my $mode = $params->{mode};
    missing_parameter('line_items') if !@{$params->{line_items} // []};
    refuse("Only 100 line items are allowed.", param => 'line_items') if $params->{line_items}->@* > 100;
    my (@bought, %currency, %interval);
    my $index = 0;
    for my $item ($params->{line_items}->@*) {
        my $at = 'line_items[' . $index++ . ']';
        missing_parameter("${at}[price]") if !defined $item->{price};
        my $price = $account->get('price', $item->{price}, param => "${at}[price]");
        refuse('The price specified is inactive. This field only accepts active prices.', param => "${at}[price]") if !$price->{active};
        refuse('You specified `payment` mode but passed a recurring price. Either switch to `subscription` mode or use only one-time '
            . 'prices.', param => 'mode') if $mode eq 'payment' && $price->{recurring};
        my $metered = $price->{recurring} && $price->{recurring}{usage_type} eq 'metered';
        refuse("Quantity should not be specified where usage_type is `metered`. Remove `quantity` from `$at`", param => "${at}[quantity]")
            if $metered && defined $item->{quantity};
        refuse("Quantity is required. Add `quantity` to `$at`", code => 'parameter_missing', param => "${at}[quantity]")
            if !$metered && !defined $item->{quantity};
        refuse('This value must be greater than or equal to 1.', code => 'parameter_invalid_integer', param => "${at}[quantity]")
            if !$metered && $item->{quantity} < 1;
        refuse('This value must be less than or equal to 999999.', code => 'parameter_invalid_integer', param => "${at}[quantity]")
            if !$metered && $item->{quantity} > 999_999;
        $currency{$price->{currency}} = 1;
        $interval{"$price->{recurring}{interval_count} $price->{recurring}{interval}"} = 1 if $price->{recurring};
        push @bought, [$price, $metered ? 0 : $item->{quantity}];
    }
    refuse('You must provide at least one recurring price in `subscription` mode when using prices.', param => 'line_items')
        if $mode eq 'subscription' && !%interval;
    refuse('Checkout does not support multiple prices with different billing intervals.', param => 'line_items') if keys %interval > 1;
    refuse('All line items must have the same currency.', param => 'line_items') if keys %currency > 1;
    return @bought;
}

# --- a session ---

sub create($account, $params) {
    unknown_parameter('payment_method_types') if defined $params->{payment_method_types};
    missing_parameter('mode') if !defined $params->{mode};
    check_addresses($params);
    my $customer = check_customer($account, $params);
    check_mode($params);
    check_times($account, $params);
    my @bought = check_items($account, $params);
    check_metadata($params->{metadata});
    check_metadata(($params->{$_} // {})->{metadata}, "${_}[metadata]") for qw(subscription_data payment_intent_data);
    refuse('client_reference_id may have up to 200 characters', param => 'client_reference_id')
        if length($params->{client_reference_id} // '') > 200;
    refuse('Invalid locale', param => 'locale') if ($params->{locale} // 'auto') !~ /^(?:auto|[a-z]{2,3}(?:-[A-Z0-9]{2,3})?)$/;
    my $session = Billing::Stripe::Objects::session($account, fields($account, $params, $customer, @bought));
    $session->{url} = "$account->{address}/c/pay/$session->{id}";
    @$session{qw(_bought _data)} = (\@bought, {subscription => $params->{subscription_data} // {},
        payment => $params->{payment_intent_data} // {},
        customer_update => $params->{customer_update} // {}, billing_mode => billing_mode($account, $params)});
    return $account->add($session);
}

sub fields($account, $params, $customer, @bought) {
    my $subscription = $params->{mode} eq 'subscription';
    my $taxed = on($params, 'automatic_tax');
    my $trial = $subscription && grep { defined } @{$params->{subscription_data} // {}}{qw(trial_end trial_period_days)};
    my @items = map { Billing::Stripe::Objects::line_item($account, @$_, $account->get('product', $_->[0]{product})->{name}) } @bought;
    my $total = sum0 map { $_->{amount_total} } grep { !$trial || !$_->{price}{recurring} } @items;
    return (
        (map { $_ => $params->{$_} } grep { defined $params->{$_} } qw(client_reference_id success_url cancel_url locale mode
            billing_address_collection allow_promotion_codes customer_email submit_type phone_number_collection)),
        metadata => merge_metadata({}, $params->{metadata}), customer => $params->{customer}, currency => $bought[0][0]{currency},
        amount_subtotal => $total, amount_total => $total, expires_at => $params->{expires_at} // $account->now + $day, _items => \@items,
        automatic_tax => {enabled => $taxed ? true : false, liability => $taxed ? {type => 'self'} : undef,
            provider => $taxed ? 'stripe' : undef, status => undef},
        tax_id_collection => {enabled => on($params, 'tax_id_collection') ? true : false,
            required => ($params->{tax_id_collection} // {})->{required} // 'never'},
        customer_creation => $params->{customer} ? undef : $subscription ? 'always' : $params->{customer_creation} // 'if_required',
        payment_method_collection => $params->{payment_method_collection} // ($subscription ? 'always' : 'if_required'),
        customer_details => $customer || $params->{customer_email}
            ? details($customer ? $customer->{email} : $params->{customer_email}, $customer ? $customer->{name} : undef) : undef,
        invoice_creation => $subscription ? undef : {enabled => on($params, 'invoice_creation') ? true : false, invoice_data => {
            (map { $_ => undef } qw(account_tax_ids custom_fields description footer issuer rendering_options)), metadata => {}}},
    );
}

sub details($email, $name) {
    return {(map { $_ => undef } qw(address business_name individual_name phone)), email => $email, name => $name, tax_exempt => 'none',
        tax_ids => []};
}

# Flexible since 2025-09-30.clover, unless the caller or the test says otherwise.
sub billing_mode($account, $params) {
    my $wanted = (($params->{subscription_data} // {})->{billing_mode} // {})->{type};
    return $wanted // $account->setting('billing_mode') // (($account->{request_version} // '9') ge '2025-09-30' ? 'flexible' : 'classic');
}

sub list($account, $params) {
    my @filters = grep { defined $params->{$_} } qw(customer subscription payment_intent status);
    my @all = grep { my $session = $_; !grep { ($session->{$_} // '') ne $params->{$_} } @filters } reverse $account->all('checkout.session');
    return page($account, '/v1/checkout/sessions', $params, created_within($params, @all));
}

sub line_items($account, $params, $id) {
    my $session = $account->get('checkout.session', $id, status => 404, param => 'session');
    return page($account, "/v1/checkout/sessions/$id/line_items", $params, $session->{_items}->@*);
}

sub expire($account, $params, $id) {
    my $session = $account->get('checkout.session', $id, status => 404, param => 'session');
    refuse("Only Checkout Sessions with a status in [\"open\"] can be expired. This Checkout Session has a status of `$session->{status}`.")
        if $session->{status} ne 'open';
    return run_out($account, $session);
}

sub run_out($account, $session) {
    @$session{qw(status url)} = ('expired', undef);
    $session->{expires_at} = $account->now if $session->{expires_at} > $account->now;
    $account->emit('checkout.session.expired', $session);
    return $session;
}

sub next_step($account, $session) {
    return $session->{status} eq 'open' ? ($session->{expires_at}, sub { run_out($account, $session) }) : ();
}

1;
