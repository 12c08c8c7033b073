# Time passing: everything that would have happened up to now happens, one thing after the other, each at its own time.
package Billing::Stripe::Clock;
use v5.36;
use Billing::Stripe::Checkout ();
use Billing::Stripe::Invoices ();
use Billing::Stripe::Lifecycle ();

my %steps = (
    'checkout.session' => \&Billing::Stripe::Checkout::next_step,
    subscription => \&Billing::Stripe::Lifecycle::next_step,
    invoice => \&Billing::Stripe::Invoices::next_step,
);

# What is due at $time or before: (time, code) of the earliest, or nothing.
sub earliest($account, $time) {
    my ($at, $code);
    for my $type (qw(checkout.session invoice subscription)) {    # at the same moment an invoice is tried before a subscription renews
        for my $object ($account->all($type)) {
            my ($when, $what) = $steps{$type}->($account, $object);
            ($at, $code) = ($when, $what) if defined $when && $when <= $time && (!defined $at || $when < $at);
        }
    }
    return defined $at ? ($at, $code) : ();
}

sub settle($account, $until = $account->now) {
    my $count = 0;
    while (my ($at, $code) = earliest($account, $until)) {
        die "the clock does not come to an end\n" if ++$count > 10_000;
        $account->at($at, $code);
    }
    return $count;
}

# Moves the clock on to $time, never back.
sub advance($account, $time) {
    die "the clock goes forward only\n" if $time < $account->now;
    settle($account, $time);
    $account->move_to($time);
    return $account->now;
}

1;
