# Events as Stripe sends them, made of the stand-in's objects: bodies in which ############ stands for the event's number and @@@@@@@@@@ for
# the time (t/bench/requests.hpp). Every number is another event, of another customer's subscription or invoice.
package Billing::Bench::Events;
use v5.36;
use Billing::Stripe::Objects qw(invoice invoice_line list_of price subscription subscription_item);
use JSON::PP ();

my $now = 1_111_111_111;    # as long as any time now, and in no other field
my $json = JSON::PP->new->utf8->canonical->pretty->space_before(0)->indent_length(2);

# What the objects ask of an account.
sub new_id($self, $prefix, $length = 24) { $prefix . '############' }
sub now($self) { $now }
sub livemode($self) { JSON::PP::false }

# In the order of their numbers: the first for the even ones.
sub bodies($class) {
    my $account = bless {}, $class;
    my $price = price($account, id => 'price_1Bench', product => 'prod_Bench', currency => 'usd', unit_amount => 2900,
        recurring => {interval => 'month', interval_count => 1, meter => undef, trial_period_days => undef, usage_type => 'licensed'});
    my ($customer, $subscription_id, $invoice_id) = map { $account->new_id($_) } qw(cus_ sub_1 in_1);
    my $item = subscription_item($account, $subscription_id, $price, 1, $now, $now);
    my $subscription = subscription($account, customer => $customer, status => 'active', currency => 'usd', latest_invoice => $invoice_id,
        items => {list_of("/v1/subscription_items?subscription=$subscription_id", $item)->%*, total_count => 1});
    my $line = invoice_line($account, $invoice_id, $subscription_id, $item, amount => 2900, period => {start => $now, end => $now});
    my $invoice = invoice($account, customer => $customer, status => 'paid', currency => 'usd', billing_reason => 'subscription_cycle',
        lines => {list_of("/v1/invoices/$invoice_id/lines", $line)->%*, total_count => 1}, map { $_ => 2900 } qw(amount_due amount_paid subtotal total));
    return map { $json->encode(event($account, @$_)) =~ s/$now/@@@@@@@@@@/gr }
        ['customer.subscription.updated', $subscription, {status => 'incomplete', latest_invoice => undef}], ['invoice.paid', $invoice];
}

sub event($account, $type, $object, $previous = undef) {
    return {
        id => $account->new_id('evt_1'), object => 'event', api_version => '2026-02-25.clover', created => $now, livemode => $account->livemode,
        pending_webhooks => 1, request => {id => undef, idempotency_key => undef}, type => $type,
        data => {object => $object, $previous ? (previous_attributes => $previous) : ()},
    };
}

1;
