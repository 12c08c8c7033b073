# /v1/entitlements/active_entitlements: the features that customers have by what they bought. Tests say which, by the control
# interface; the event tells of the first ten of them, as at Stripe.
package Billing::Stripe::Entitlements;
use v5.36;
use Billing::Stripe::Common qw(expandable listing paging retrieve page);
use Billing::Stripe::Error qw(missing_parameter no_such);
use Billing::Stripe::Objects qw(list_of);
use Billing::Stripe::Schema qw(text);
use Mojo::JSON qw(true false);

my $inlined = 10;

sub routes($class) {
    return (
        ['GET', '/v1/entitlements/active_entitlements', paging(customer => text), \&list],
        ['GET', '/v1/entitlements/active_entitlements/:id', expandable(), retrieve('entitlements.active_entitlement')],
    );
}

sub of_customer($account, $id) { @{$account->{entitlements}{$id} // []} }

sub list($account, $params) {
    missing_parameter('customer') if !defined $params->{customer};
    no_such('customer', $params->{customer}, param => 'customer') if !$account->find('customer', $params->{customer});
    return page($account, '/v1/entitlements/active_entitlements', $params, reverse of_customer($account, $params->{customer}));
}

# From now on the customer has exactly the features with these lookup keys.
sub entitle($account, $customer, @keys) {
    my %there = map { $_->{lookup_key} => $_ } of_customer($account, $customer->{id});
    $account->{entitlements}{$customer->{id}} = [map { $there{$_} // $account->add({
        id => $account->new_id('ent_test_61'), object => 'entitlements.active_entitlement', feature => $account->new_id('feat_test_61'),
        livemode => $account->livemode, lookup_key => $_,
    }) } @keys];
    my @all = reverse of_customer($account, $customer->{id});
    my $list = list_of("/v1/customer/$customer->{id}/entitlements", @all > $inlined ? @all[0 .. $inlined - 1] : @all);
    $list->{has_more} = @all > $inlined ? true : false;
    my $summary = {object => 'entitlements.active_entitlement_summary', customer => $customer->{id}, livemode => $account->livemode,
        entitlements => $list};
    $account->emit('entitlements.active_entitlement_summary.updated', $summary);
    return $summary;
}

1;
