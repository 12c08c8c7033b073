# /v1/customers.
package Billing::Stripe::Customers;
use v5.36;
use Billing::Stripe::Common qw(expandable listing page created_within metadata merge_metadata address);
use Billing::Stripe::Error qw(refuse no_such);
use Billing::Stripe::Lifecycle ();
use Billing::Stripe::Objects ();
use Billing::Stripe::Schema qw(text one_of object array emptyable);
use Mojo::JSON qw(true);

my @address_names = qw(city country line1 line2 postal_code state);

my %fields = (
    (map { $_ => emptyable(text) } qw(name email phone description)), metadata => metadata, address => emptyable(address),
    preferred_locales => array(text), tax_exempt => emptyable(one_of(qw(none exempt reverse))),
    invoice_settings => object(default_payment_method => text),
);

sub routes($class) {
    return (
        ['POST', '/v1/customers', expandable(%fields), \&create],
        ['GET', '/v1/customers', listing(email => text), \&list],
        ['GET', '/v1/customers/:id', expandable(), \&retrieve],
        ['POST', '/v1/customers/:id', expandable(%fields), \&update],
        ['DELETE', '/v1/customers/:id', object(), \&remove],
    );
}

# The living customer that a parameter names.
sub living($account, $id, %extra) {
    my $customer = $account->find('customer', $id);
    no_such('customer', $id, %extra) if !$customer || $customer->{deleted};
    return $customer;
}

sub create($account, $params) {
    my $customer = Billing::Stripe::Objects::customer($account);
    set($account, $customer, $params);
    $account->add($customer);
    $account->emit('customer.created', $customer);
    return $customer;
}

sub set($account, $customer, $params) {
    for my $name (qw(name email phone description)) {
        next if !defined $params->{$name};
        refuse("Invalid string: $name is longer than 512 characters", param => $name) if length $params->{$name} > 512;
        refuse("Invalid email address: $params->{email}", code => 'email_invalid', param => 'email')
            if $name eq 'email' && $params->{email} ne '' && $params->{email} !~ /^[^\s@]+@[^\s@]+\.[^\s@]+$/;
        $customer->{$name} = $params->{$name} eq '' ? undef : $params->{$name};
    }
    if (defined(my $address = $params->{address})) {
        $customer->{address} = ref $address ? {map { $_ => length $address->{$_} ? $address->{$_} : undef } @address_names} : undef;
    }
    $customer->{preferred_locales} = $params->{preferred_locales} if $params->{preferred_locales};
    $customer->{tax_exempt} = $params->{tax_exempt} || 'none' if defined $params->{tax_exempt};
    if (my $id = ($params->{invoice_settings} // {})->{default_payment_method}) {
        my $method = $account->get('payment_method', $id, param => 'invoice_settings[default_payment_method]');
        refuse("The customer does not have a payment method with the ID $id. The payment method must be attached to the customer.",
            code => 'resource_missing', param => 'invoice_settings[default_payment_method]')
            if ($method->{customer} // '') ne $customer->{id};
        $customer->{invoice_settings}{default_payment_method} = $id;
    }
    $customer->{metadata} = merge_metadata($customer->{metadata}, $params->{metadata});
    return;
}

sub retrieve($account, $params, $id) {
    my $customer = $account->get('customer', $id, status => 404, param => 'id');
    return $customer->{deleted} ? tombstone($customer) : $customer;
}

sub tombstone($customer) { {id => $customer->{id}, object => 'customer', deleted => true} }

sub update($account, $params, $id) {
    my $customer = living($account, $id, status => 404, param => 'id');
    return $account->change($customer, 'customer.updated', sub ($) { set($account, $customer, $params) });
}

sub list($account, $params) {
    my $email = $params->{email};
    my @all = grep { !$_->{deleted} && (!defined $email || ($_->{email} // '') eq $email) } reverse $account->all('customer');
    return page($account, '/v1/customers', $params, created_within($params, @all));
}

# Deleting a customer ends its subscriptions at once.
sub remove($account, $params, $id) {
    my $customer = living($account, $id, status => 404, param => 'id');
    for my $subscription (grep { $_->{customer} eq $id } $account->all('subscription')) {
        Billing::Stripe::Lifecycle::end($account, $subscription) if !Billing::Stripe::Lifecycle::over($subscription);
    }
    $account->emit('customer.deleted', $customer);
    $customer->{deleted} = true;
    return tombstone($customer);
}

1;
