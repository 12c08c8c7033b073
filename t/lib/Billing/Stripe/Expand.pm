# expand[]=customer, data.latest_invoice, line_items ...: ids replaced by the objects they name, and parts shown that are left out
# otherwise.
package Billing::Stripe::Expand;
use v5.36;
use Billing::Stripe::Error qw(refuse);
use Billing::Stripe::Invoices ();
use Billing::Stripe::Objects ();

my $deepest = 4;

# What is left out unless asked for.
my %included = (
    'checkout.session line_items' => sub ($account, $object) { ("/v1/checkout/sessions/$object->{id}/line_items", $object->{_items}->@*) },
    'invoice payments' => sub ($account, $object) { ('/v1/invoice_payments', Billing::Stripe::Invoices::payments_of($account, $object)) },
    'customer subscriptions' => sub ($account, $object) {
        my @of_customer = grep { $_->{customer} eq $object->{id} && $_->{status} ne 'canceled' } reverse $account->all('subscription');
        ("/v1/customers/$object->{id}/subscriptions", @of_customer);
    },
    'charge refunds' => sub ($account, $object) {
        ("/v1/charges/$object->{id}/refunds", grep { $_->{charge} eq $object->{id} } reverse $account->all('refund'));
    },
);

# A copy of the object with the paths expanded.
sub expand($account, $object, @paths) {
    for my $path (@paths) {
        my @names = split /\./, $path;
        refuse("You cannot expand more than $deepest levels of a property. Property: $path", param => 'expand') if @names > $deepest;
        $object = along($account, $object, $path, @names);
    }
    return $object;
}

sub along($account, $object, $path, $name, @rest) {
    my %copy = %$object;
    if (($object->{object} // '') eq 'list') {
        refuse("This property cannot be expanded ($path). You may want to try expanding 'data.$path' instead.", param => 'expand')
            if $name ne 'data' || !@rest;
        $copy{data} = [map { along($account, $_, $path, @rest) } $object->{data}->@*];
        return \%copy;
    }
    my $type = $object->{object} // '';
    if (my $parts = $included{"$type $name"}) {
        $copy{$name} //= Billing::Stripe::Objects::list_of($parts->($account, $object));
    } elsif (exists $object->{$name} && !ref $object->{$name}) {
        $copy{$name} = named($account, $object, $name, $path);
    } elsif (ref($object->{$name} // '') ne 'HASH') {
        refuse("This property cannot be expanded ($path).", param => 'expand');
    }
    $copy{$name} = along($account, $copy{$name}, $path, @rest) if @rest && ref $copy{$name};
    return \%copy;
}

sub named($account, $object, $name, $path) {
    my $id = $object->{$name} // return undef;
    my $other = $account->{objects}{$id};
    refuse("This property cannot be expanded ($path).", param => 'expand') if !$other || $name =~ /^(?:id|object)$/;
    return $other->{deleted} ? {id => $id, object => $other->{object}, deleted => Mojo::JSON::true} : $other;
}

1;
