# /v1/billing_portal: sessions and configurations, and what a customer can do in the portal.
package Billing::Stripe::Portal;
use v5.36;
use Billing::Stripe::Common qw(expandable paging retrieve page check_url metadata merge_metadata);
use Billing::Stripe::Customers ();
use Billing::Stripe::Error qw(refuse missing_parameter exclusive no_such);
use Billing::Stripe::Lifecycle ();
use Billing::Stripe::Objects ();
use Billing::Stripe::Schema qw(text integer boolean one_of object array emptyable);
use Mojo::JSON qw(true false);

my $unused_for = 300;    # the address of a session dies when it is not opened in time

my @flows = qw(payment_method_update subscription_cancel subscription_update subscription_update_confirm);

my %create = (
    (map { $_ => text } qw(customer customer_account configuration return_url locale)),
    flow_data => object(
        type => one_of(@flows), subscription_cancel => object(subscription => text), subscription_update => object(subscription => text),
        subscription_update_confirm => object(subscription => text, items => array(object(id => text, price => text, quantity => integer))),
        after_completion => object(type => one_of(qw(hosted_confirmation portal_homepage redirect)),
            redirect => object(return_url => text)),
    ),
);

my @reasons = qw(customer_service low_quality missing_features other switched_service too_complex too_expensive unused);

my %configuration = (
    default_return_url => emptyable(text), metadata => metadata, business_profile => object(headline => emptyable(text)),
    features => object(
        customer_update => object(enabled => boolean,
            allowed_updates => emptyable(array(one_of(qw(address email name phone shipping tax_id))))),
        invoice_history => object(enabled => boolean), payment_method_update => object(enabled => boolean),
        subscription_cancel => object(enabled => boolean, mode => one_of(qw(at_period_end immediately)),
            proration_behavior => one_of(qw(always_invoice create_prorations none)),
            cancellation_reason => object(enabled => boolean, options => emptyable(array(one_of(@reasons))))),
        subscription_update => object(enabled => boolean, proration_behavior => one_of(qw(always_invoice create_prorations none)),
            default_allowed_updates => emptyable(array(one_of(qw(price promotion_code quantity)))),
            products => emptyable(array(object(product => text, prices => array(text))))),
    ),
);

sub routes($class) {
    return (
        ['POST', '/v1/billing_portal/configurations', expandable(%configuration), \&create_configuration],
        ['POST', '/v1/billing_portal/configurations/:id', expandable(%configuration, active => boolean), \&update_configuration],
        ['POST', '/v1/billing_portal/sessions', expandable(%create), \&create],
        ['GET', '/v1/billing_portal/configurations', paging(active => boolean, is_default => boolean), \&list_configurations],
        ['GET', '/v1/billing_portal/configurations/:id', expandable(), retrieve('billing_portal.configuration', 'configuration')],
    );
}

sub list_configurations($account, $params) {
    my @all = grep {
        my $is = $_;
        !grep { defined $params->{$_} && !!$params->{$_} != !!$is->{$_} } qw(active is_default)
    } reverse $account->all('billing_portal.configuration');
    return page($account, '/v1/billing_portal/configurations', $params, @all);
}

sub create_configuration($account, $params) {
    missing_parameter('features') if !$params->{features};
    my $configuration = Billing::Stripe::Objects::portal_configuration($account);
    $configuration->{features}{$_}{enabled} = false for keys $configuration->{features}->%*;
    set_configuration($account, $configuration, $params);
    return $account->add($configuration);
}

sub update_configuration($account, $params, $id) {
    my $configuration = $account->get('billing_portal.configuration', $id, status => 404, param => 'configuration');
    set_configuration($account, $configuration, $params);
    return $configuration;
}

sub set_configuration($account, $configuration, $params) {
    my $features = $params->{features} // {};
    check_update($account, $features->{subscription_update}) if ($features->{subscription_update} // {})->{enabled};
    for my $name (keys %$features) {
        missing_parameter("features[$name][enabled]") if !defined $features->{$name}{enabled};
        $configuration->{features}{$name} = {$configuration->{features}{$name}->%*, $features->{$name}->%*};
    }
    $configuration->{active} = $params->{active} if defined $params->{active};
    $configuration->{default_return_url} = $params->{default_return_url} || undef if defined $params->{default_return_url};
    $configuration->{business_profile}{headline} = $params->{business_profile}{headline} || undef
        if defined(($params->{business_profile} // {})->{headline});
    $configuration->{metadata} = merge_metadata($configuration->{metadata}, $params->{metadata});
    return;
}

# Who may change between prices has to be told between which.
sub check_update($account, $update) {
    my $at = 'features[subscription_update]';
    my $products = $update->{products} || missing_parameter("${at}[products]");
    missing_parameter("${at}[default_allowed_updates]") if !$update->{default_allowed_updates};
    refuse('You may only specify up to 10 products.', param => "${at}[products]") if @$products > 10;
    for my $one (@$products) {
        my $product = $one->{product} // missing_parameter("${at}[products][0][product]");
        no_such('product', $product, param => "${at}[products][0][product]") if !$account->find('product', $product);
        my %interval;
        for my $id (@{$one->{prices} || missing_parameter("${at}[products][0][prices]")}) {
            my $price = $account->get('price', $id, param => "${at}[products][0][prices][0]");
            refuse("The price `$id` does not belong to the product `$product`.", param => "${at}[products][0][prices][0]")
                if $price->{product} ne $product;
            refuse("The price `$id` must be active and recurring.", param => "${at}[products][0][prices][0]")
                if !$price->{active} || !$price->{recurring};
            refuse('Prices of a product must have different billing intervals.', param => "${at}[products][0][prices][0]")
                if $interval{"$price->{recurring}{interval}/$price->{currency}"}++;
        }
    }
    return;
}

sub configuration($account, $id) {
    if (defined $id) {
        my $configuration = $account->get('billing_portal.configuration', $id, param => 'configuration');
        refuse('The configuration is inactive.', param => 'configuration') if !$configuration->{active};
        return $configuration;
    }
    my ($default) = grep { $_->{is_default} } $account->all('billing_portal.configuration');
    my $mode = $account->mode_name;
    return $default // refuse("No configuration provided and your $mode mode default configuration has not been created. Provide a "
        . "configuration or create your default by saving your customer portal settings in $mode mode at "
        . 'https://dashboard.stripe.com/test/settings/billing/portal.');
}

sub create($account, $params) {
    exclusive('customer', 'customer_account') if defined $params->{customer} && defined $params->{customer_account};
    missing_parameter('customer') if !defined $params->{customer};
    my $customer = Billing::Stripe::Customers::living($account, $params->{customer}, param => 'customer');
    check_url($params->{return_url}, 'return_url');
    my $configuration = configuration($account, $params->{configuration});
    my $flow = $params->{flow_data} && flow($account, $params->{flow_data}, $customer, $configuration);
    my $secret = $account->new_id($account->mode_name . '_', 40);
    my $session = Billing::Stripe::Objects::portal_session($account, configuration => $configuration->{id}, customer => $customer->{id},
        return_url => $params->{return_url} // $configuration->{default_return_url}, locale => $params->{locale}, flow => $flow,
        url => "$account->{address}/p/session/$secret");
    @$session{qw(_secret _used)} = ($secret, $account->now);
    return $account->add($session);
}

sub flow($account, $data, $customer, $configuration) {
    my $type = $data->{type} // missing_parameter('flow_data[type]');
    for my $other (grep { $_ ne $type && defined $data->{$_} } @flows) {
        refuse("`flow_data[$other]` can only be set when `flow_data[type]` is `$other`.", param => "flow_data[$other]");
    }
    my %flow = (type => $type, (map { $_ => undef } qw(subscription_cancel subscription_update subscription_update_confirm)),
        after_completion => {type => ($data->{after_completion} // {})->{type} // 'portal_homepage', hosted_confirmation => undef,
            redirect => ($data->{after_completion} // {})->{redirect}});
    return \%flow if $type eq 'payment_method_update';
    my $at = "flow_data[$type]";
    my $id = ($data->{$type} // missing_parameter($at))->{subscription} // missing_parameter("${at}[subscription]");
    my $subscription = $account->find('subscription', $id);
    no_such('subscription', $id, param => "${at}[subscription]") if !$subscription || $subscription->{customer} ne $customer->{id};
    my $feature = $type eq 'subscription_cancel' ? 'subscription_cancel' : 'subscription_update';
    refuse("The configuration does not enable `features[$feature]`.", param => 'configuration')
        if !$configuration->{features}{$feature}{enabled};
    refuse("This subscription cannot be changed because it has ended.", param => "${at}[subscription]")
        if Billing::Stripe::Lifecycle::over($subscription);
    if ($type eq 'subscription_cancel') {
        refuse('This subscription is already set to be canceled.', param => "${at}[subscription]") if $subscription->{cancel_at};
        $flow{$type} = {subscription => $id, retention => undef};
    } elsif ($type eq 'subscription_update') {
        $flow{$type} = {subscription => $id};
    } else {
        my $items = $data->{$type}{items} // missing_parameter("${at}[items]");
        $flow{$type} = {subscription => $id, discounts => undef,
            items => [map { {id => $_->{id}, price => $_->{price}, quantity => $_->{quantity}} } @$items]};
    }
    return \%flow;
}

# The session that an address opens, or undef when it was not opened in time.
sub by_secret($account, $secret) {
    my ($session) = grep { $_->{_secret} eq $secret } $account->all('billing_portal.session');
    return undef if !$session || $account->now > $session->{_used} + $unused_for;
    $session->{_used} = $account->now;
    return $session;
}

# --- what a customer can do there ---

sub cancel($account, $subscription, %option) {
    refuse('This subscription has ended.') if Billing::Stripe::Lifecycle::over($subscription);
    return Billing::Stripe::Lifecycle::end($account, $subscription) if $option{now};
    return Billing::Stripe::Lifecycle::cancel_later($account, $subscription);
}

sub keep($account, $subscription) {
    refuse('This subscription has ended.') if Billing::Stripe::Lifecycle::over($subscription);
    Billing::Stripe::Lifecycle::updated($account, $subscription,
        sub ($) { Billing::Stripe::Lifecycle::unmark_cancellation($subscription) });
    return $subscription;
}

sub change_plan($account, $subscription, $price_id, %option) {
    my ($item) = Billing::Stripe::Lifecycle::items($subscription);
    return Billing::Stripe::Subscriptions::update($account, {
        items => [{id => $item->{id}, price => $price_id, ($option{quantity} ? (quantity => 0 + $option{quantity}) : ())}],
        proration_behavior => $option{prorations} // 'always_invoice',
    }, $subscription->{id});
}

# A new card, for all that will be charged; a subscription that is behind is charged to it at once.
sub new_card($account, $customer, $behaviour = 'succeeds', %option) {
    my $card = Billing::Stripe::Payments::attach_card($account, $customer, $behaviour);
    $account->change($customer, 'customer.updated', sub ($) { $customer->{invoice_settings}{default_payment_method} = $card->{id} });
    for my $subscription ($account->all('subscription')) {
        next if $subscription->{customer} ne $customer->{id} || Billing::Stripe::Lifecycle::over($subscription);
        Billing::Stripe::Lifecycle::updated($account, $subscription, sub ($) { $subscription->{default_payment_method} = $card->{id} });
        next if ($option{pay} // 1) == 0;
        Billing::Stripe::Invoices::pay($account, $_) for Billing::Stripe::Lifecycle::unpaid_invoices($account, $subscription);
    }
    return $card;
}

1;
