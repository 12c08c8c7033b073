# API versions: which exist, and how objects kept in the shape of 2026-02-25.clover look in older ones.
package Billing::Stripe::Versions;
use v5.36;
use Exporter 'import';
use Mojo::JSON qw(encode_json true false);

our @EXPORT_OK = qw(known render);

my @dated = qw(2019-02-11 2019-02-19 2019-03-14 2019-05-16 2019-08-14 2019-09-09 2019-10-08 2019-10-17 2019-11-05 2019-12-03 2020-03-02
    2020-08-27 2022-08-01 2022-11-15 2023-08-16 2023-10-16 2024-04-10 2024-06-20);
my %monthly = (
    acacia => [qw(2024-09-30 2024-10-28 2024-11-20 2024-12-18 2025-01-27 2025-02-24)],
    basil => [qw(2025-03-31 2025-04-30 2025-05-28 2025-06-30 2025-07-30 2025-08-27)],
    clover => [qw(2025-09-30 2025-10-29 2025-11-17 2025-12-15 2026-01-28 2026-02-25)],
    dahlia => [qw(2026-03-25 2026-04-22 2026-05-27 2026-06-24 2026-07-29 2026-08-26)],
    endive => [qw(2026-09-30 2026-10-28)],
);
my %known = map { $_ => 1 } @dated, map { my $name = $_; map { "$_.$name" } $monthly{$name}->@* } keys %monthly;

sub known($version) { $known{$version} ? 1 : 0 }

# --- rendering ---
#
# Removals and moves are versioned: before basil a period stands on the subscription, an invoice names its subscription itself. What was
# only added since is there in every version, as at Stripe.

my %older = (
    price => sub ($account, $copy, $kept) { $copy->{recurring}{aggregate_usage} = undef if $copy->{recurring} },
    plan => sub ($account, $copy, $kept) { $copy->{aggregate_usage} = undef },
    subscription => \&older_subscription, subscription_item => \&older_item, invoice => \&older_invoice, line_item => \&older_line,
    charge => \&with_invoice, payment_intent => \&with_invoice, 'checkout.session' => \&older_session,
);

# Fields that went away with 2023-08-16.
my %gone = (product => ['attributes'], charge => [qw(destination dispute refunds)]);

# A copy for a version, without what is the stand-in's own.
sub render($account, $object, $version) {
    my $before_basil = substr($version, 0, 10) lt '2025-03-31';
    my $walk;
    $walk = sub ($value) {
        return [map { $walk->($_) } @$value] if ref $value eq 'ARRAY';
        return $value if ref $value ne 'HASH';
        return event($account, $value, $version) if ($value->{object} // '') eq 'event' && $value->{_snapshot};
        my %copy = map { $_ => $walk->($value->{$_}) } grep { !/^_/ } keys %$value;
        my $type = $value->{object} // '';
        $older{$type}->($account, \%copy, $value) if $before_basil && $older{$type};
        $copy{$_} //= undef for $version lt '2023-08-16' ? @{$gone{$type} // []} : ();
        return \%copy;
    };
    return $walk->($object);
}

sub older_subscription($account, $copy, $kept) {
    my ($item) = $kept->{items}{data}->@*;
    @$copy{qw(current_period_start current_period_end)} = @$item{qw(current_period_start current_period_end)};
    $copy->{discount} = undef;
    return;
}

sub older_item($account, $copy, $kept) {
    delete @$copy{qw(current_period_start current_period_end)};
    return;
}

sub older_invoice($account, $copy, $kept) {
    my ($payment) = grep { $_->{invoice} eq $kept->{id} } $account->all('invoice_payment');
    my $intent = $payment && $account->find('payment_intent', $payment->{payment}{payment_intent});
    my $details = ($kept->{parent} // {})->{subscription_details};
    @$copy{qw(subscription subscription_details)} = ($details ? $details->{subscription} : undef,
        {metadata => $details ? $details->{metadata} : undef});
    @$copy{qw(payment_intent charge)} = $intent ? @$intent{qw(id latest_charge)} : (undef, undef);
    $copy->{paid} = $kept->{status} eq 'paid' ? true : false;
    $copy->{paid_out_of_band} = $kept->{status} eq 'paid' && $kept->{amount_due} > 0 && !$kept->{amount_paid} ? true : false;
    $copy->{$_} = undef for qw(application_fee_amount discount quote rendering_options tax transfer_data);
    $copy->{total_tax_amounts} = [];
    delete @$copy{qw(parent payments total_taxes amount_overpaid customer_account)};
    return;
}

sub older_line($account, $copy, $kept) {
    my $details = $kept->{parent}{subscription_item_details};
    my $price = $account->find('price', $kept->{pricing}{price_details}{price});
    @$copy{qw(subscription subscription_item proration)} = @$details{qw(subscription subscription_item proration)};
    $copy->{proration_details} = {credited_items => undef};
    $copy->{price} = $price && render($account, $price, '2024-01-01');
    $copy->{plan} = $price && render($account, Billing::Stripe::Objects::plan_of($price), '2024-01-01');
    @$copy{qw(type amount_excluding_tax unit_amount_excluding_tax)} = ('subscription', $kept->{amount},
        $kept->{pricing}{unit_amount_decimal});
    $copy->{$_} = [] for qw(tax_amounts tax_rates);
    delete @$copy{qw(parent pricing taxes subtotal)};
    return;
}

sub with_invoice($account, $copy, $kept) {
    $copy->{invoice} = $kept->{_invoice};
    return;
}

sub older_session($account, $copy, $kept) {
    $copy->{shipping_details} = undef;
    return;
}

# --- events ---

# An event for a version: the object as it was then, and what changed, at the top level.
sub event($account, $event, $version) {
    my $object = render($account, $event->{_snapshot}, $version);
    my %data = (object => $object);
    $data{previous_attributes} = previous(render($account, $event->{_before}, $version), $object)
        if $event->{_before} && $event->{type} =~ /updated$/;
    my %rendered = map { $_ => $event->{$_} } qw(id object type created livemode pending_webhooks request);
    $rendered{account} = $event->{account} if defined $event->{account};
    return {%rendered, api_version => $version, data => \%data};
}

# The old values of what changed; of a hash, only its changed keys.
sub previous($before, $after) {
    my %old;
    for my $name (keys %$before) {
        next if encode_json([$before->{$name}]) eq encode_json([$after->{$name}]);
        my $both = ref $before->{$name} eq 'HASH' && ref $after->{$name} eq 'HASH';
        $old{$name} = $both ? previous($before->{$name}, $after->{$name}) : $before->{$name};
    }
    $old{$_} = undef for grep { !exists $before->{$_} } keys %$after;
    return \%old;
}

1;
