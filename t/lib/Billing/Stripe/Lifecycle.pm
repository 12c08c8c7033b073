# A subscription's life: begun with its first invoice, trial, renewals, failures, prorations, cancellation and end, told by events as
# Stripe tells them. Clock asks each subscription what happens to it next.
package Billing::Stripe::Lifecycle;
use v5.36;
use Billing::Stripe::Calendar qw(period_after);
use Billing::Stripe::Invoices ();
use Billing::Stripe::Objects ();
use Billing::Stripe::Payments ();
use List::Util qw(max min);
use Mojo::JSON qw(true false);

my $day = 86400;
my $to_pay = 23 * 3600;    # an incomplete subscription waits so long for its first payment

sub items($subscription) { $subscription->{items}{data}->@* }
sub period_end($subscription) { max map { $_->{current_period_end} } items($subscription) }
sub period_start($subscription) { min map { $_->{current_period_start} } items($subscription) }
sub over($subscription) { $subscription->{status} =~ /^(?:canceled|incomplete_expired)$/ ? 1 : 0 }

sub updated($account, $subscription, $code) { $account->change($subscription, 'customer.subscription.updated', $code) }

# --- the beginning ---

# customer => object, items => [[price, quantity], ...]; optional: trial_end, card => payment method, metadata, description,
# billing_mode => classic | flexible, without_card => what the trial's end does then. Incomplete (or trialing) with an open first
# invoice: (subscription, invoice). The invoice is not yet tried.
sub begin($account, %option) {
    my $now = $account->now;
    my $trial_end = $option{trial_end};
    my $recurring = $option{items}[0][0]{recurring};
    my $anchor = $trial_end // $now;
    my $end = $trial_end // period_after($now, $now, $recurring);
    my $mode = $option{billing_mode} // 'classic';
    my $subscription = Billing::Stripe::Objects::subscription($account, customer => $option{customer}{id},
        currency => $option{items}[0][0]{currency},
        billing_cycle_anchor => $anchor, description => $option{description}, metadata => $option{metadata} // {},
        default_payment_method => $option{card} ? $option{card}{id} : undef, status => $trial_end ? 'trialing' : 'incomplete',
        trial_start => $trial_end ? $now : undef, trial_end => $trial_end);
    $subscription->{billing_mode} = {flexible => {proration_discounts => 'included'}, type => 'flexible'} if $mode eq 'flexible';
    $subscription->{trial_settings}{end_behavior}{missing_payment_method} = $option{without_card} if $option{without_card};
    my $id = $subscription->{id};
    my @items = map { Billing::Stripe::Objects::subscription_item($account, $id, @$_, $now, $end) } $option{items}->@*;
    $subscription->{items} = Billing::Stripe::Objects::list_of("/v1/subscription_items?subscription=$subscription->{id}", @items);
    $account->add($subscription);
    my $invoice = Billing::Stripe::Invoices::draft($account, $subscription, reason => 'subscription_create', at_once => 1,
        period => [$now, $now],
        lines => [map { line($_, $trial_end ? 'trial' : 'due') } @items]);
    $account->emit('customer.subscription.created', $subscription);
    Billing::Stripe::Invoices::finalize($account, $invoice);
    if (($option{customer}{currency} // '') ne $subscription->{currency}) {
        $account->change($option{customer}, 'customer.updated', sub ($customer) { $customer->{currency} = $subscription->{currency} });
    }
    return ($subscription, $invoice);
}

sub line($item, $kind) {
    my $amount = $kind eq 'trial' ? 0 : $item->{price}{unit_amount} * $item->{quantity};
    my $each = sprintf '%.2f', $item->{price}{unit_amount} / 100;
    return {
        item => $item, amount => $amount, period => {start => $item->{current_period_start}, end => $item->{current_period_end}},
        description => $kind eq 'trial' ? "Trial period" : "$item->{quantity} x plan (at $each / $item->{price}{recurring}{interval})",
    };
}

# --- what its invoices do to it ---

sub of_invoice($account, $invoice) {
    return $account->find('subscription', Billing::Stripe::Invoices::subscription_of($invoice));
}

sub unpaid_invoices($account, $subscription) {
    my @open = grep { $_->{status} eq 'open' } $account->all('invoice');
    return grep { (Billing::Stripe::Invoices::subscription_of($_) // '') eq $subscription->{id} } @open;
}

sub invoice_paid($account, $invoice) {
    my $subscription = of_invoice($account, $invoice) // return;
    my $customer = $account->get('customer', $invoice->{customer});
    return if unpaid_invoices($account, $subscription);
    if ($subscription->{status} =~ /^(?:incomplete|past_due|unpaid)$/) {
        updated($account, $subscription, sub ($) { $subscription->{status} = 'active' });
    }
    $account->change($customer, 'customer.updated', sub ($) { $customer->{delinquent} = false });
    return;
}

sub invoice_failed($account, $invoice) {
    my $subscription = of_invoice($account, $invoice) // return;
    return if $subscription->{status} !~ /^(?:active|past_due)$/;
    my $customer = $account->get('customer', $invoice->{customer});
    $account->change($customer, 'customer.updated', sub ($) { $customer->{delinquent} = true });
    if ($subscription->{status} eq 'active') {
        updated($account, $subscription, sub ($) { $subscription->{status} = 'past_due' });
    }
    return if $invoice->{next_payment_attempt} || !$invoice->{attempt_count}
        || $invoice->{attempt_count} <= $account->setting('retry_days')->@*;
    my $then = $account->setting('after_retries');
    return finish($account, $subscription, 'payment_failed') if $then eq 'cancel';
    updated($account, $subscription, sub ($) { $subscription->{status} = 'unpaid' }) if $then eq 'unpaid';
    return;
}

# --- time ---

sub renew($account, $subscription) {
    my @ended = map { [$_->{current_period_start}, $_->{current_period_end}] } (items($subscription))[0];
    my $invoice;
    updated($account, $subscription, sub ($) {
        for my $item (items($subscription)) {
            my $start = $item->{current_period_end};
            $item->{current_period_end} = period_after($subscription->{billing_cycle_anchor}, $start, $item->{price}{recurring});
            $item->{current_period_start} = $start;
        }
        my @pending = splice @{$subscription->{_pending_lines} //= []};
        $invoice = Billing::Stripe::Invoices::draft($account, $subscription, reason => 'subscription_cycle', period => $ended[0],
            lines => [@pending, map { line($_, 'due') } items($subscription)]);
        $subscription->{status} = 'active' if $subscription->{status} eq 'trialing';
    });
    if ($subscription->{status} eq 'unpaid') {    # goes on making drafts that nobody sends
        $invoice->{auto_advance} = false;
        $invoice->{automatically_finalizes_at} = undef;
    } elsif (my $pause = $subscription->{pause_collection}) {
        Billing::Stripe::Invoices::not_collected($account, $invoice, $pause->{behavior});
    }
    return $invoice;
}

# A trial ends: the first paid period begins, or what is said for those who left no card.
sub end_trial($account, $subscription) {
    my $customer = $account->get('customer', $subscription->{customer});
    my $card = $subscription->{default_payment_method} // $customer->{invoice_settings}{default_payment_method};
    my $otherwise = $subscription->{trial_settings}{end_behavior}{missing_payment_method};
    if (!$card && $otherwise eq 'cancel') {
        return finish($account, $subscription, undef);
    }
    if (!$card && $otherwise eq 'pause') {
        updated($account, $subscription, sub ($) { $subscription->{status} = 'paused' });
        return $account->emit('customer.subscription.paused', $subscription);
    }
    return renew($account, $subscription);
}

# A paused subscription goes on: a new period from now.
sub resume($account, $subscription) {
    my $now = $account->now;
    updated($account, $subscription, sub ($) {
        $subscription->{billing_cycle_anchor} = $now;
        @$_{qw(current_period_start current_period_end)} = ($now, $now) for items($subscription);
        $subscription->{status} = 'active';
    });
    $account->emit('customer.subscription.resumed', $subscription);
    my $invoice = renew($account, $subscription);
    Billing::Stripe::Invoices::finalize($account, $invoice);
    Billing::Stripe::Invoices::attempt($account, $invoice) if $invoice->{status} eq 'open';
    return $subscription;
}

# --- the end ---

# At a period's end or at once. $reason: cancellation_requested | payment_failed | payment_disputed, or undef to keep what is there.
sub finish($account, $subscription, $reason = undef) {
    my $now = $account->now;
    Billing::Stripe::Invoices::abandon($account, $_) for unpaid_invoices($account, $subscription);
    $subscription->{status} = 'canceled';
    $subscription->{ended_at} = $now;
    $subscription->{canceled_at} //= $now;
    $subscription->{cancellation_details}{reason} = $reason if $reason;
    $account->emit('customer.subscription.deleted', $subscription);
    return $subscription;
}

sub end($account, $subscription) { finish($account, $subscription, 'cancellation_requested') }

# Its first payment never came.
sub expire($account, $subscription) {
    for my $invoice (unpaid_invoices($account, $subscription)) {
        Billing::Stripe::Invoices::void($account, $invoice);
    }
    updated($account, $subscription, sub ($) { @$subscription{qw(status ended_at)} = ('incomplete_expired', $account->now) });
    return;
}

# The portal's "cancel at the period's end": in flexible billing mode it is a date, in classic a flag as well.
sub cancel_later($account, $subscription) {
    my $flexible = $subscription->{billing_mode}{type} eq 'flexible';
    updated($account, $subscription, sub ($) { mark_cancellation($account, $subscription, period_end($subscription), !$flexible) });
    return $subscription;
}

sub mark_cancellation($account, $subscription, $at, $flag) {
    $subscription->{cancel_at} = $at;
    $subscription->{cancel_at_period_end} = $flag ? true : false;
    $subscription->{canceled_at} = $account->now;
    $subscription->{cancellation_details}{reason} = 'cancellation_requested';
    return;
}

sub unmark_cancellation($subscription) {
    @$subscription{qw(cancel_at cancel_at_period_end canceled_at)} = (undef, false, undef);
    $subscription->{cancellation_details}{reason} = undef;
    return;
}

# --- changes of items ---

# Sets an item's price and quantity with prorations as asked: create_prorations | always_invoice | none.
sub change_item($account, $subscription, $item, $price, $quantity, $proration) {
    my $now = $account->now;
    my ($start, $end) = @$item{qw(current_period_start current_period_end)};
    my %before = (%$item);
    my $left = $end > $start ? ($end - $now) / ($end - $start) : 0;
    my $other_interval = grep { $price->{recurring}{$_} ne $item->{price}{recurring}{$_} } qw(interval interval_count);
    $item->{price} = $price;
    $item->{plan} = Billing::Stripe::Objects::plan_of($price);
    $item->{quantity} = $quantity;
    my $trial = $subscription->{status} eq 'trialing';
    my @lines;
    if ($proration ne 'none' && !$trial) {
        push @lines, proration_line($item, 'Unused time', -rounded($before{price}{unit_amount} * $before{quantity} * $left), $now, $end,
            %before);
        push @lines, proration_line($item, 'Remaining time', rounded($price->{unit_amount} * $quantity * $left), $now, $end)
            if !$other_interval;
    }
    if ($other_interval && !$trial) {    # a new cycle from now, invoiced now
        $subscription->{billing_cycle_anchor} = $now;
        @$item{qw(current_period_start current_period_end)} = ($now, period_after($now, $now, $price->{recurring}));
        push @lines, line($item, 'due');
    }
    return (\@lines, $other_interval || $proration eq 'always_invoice');
}

sub proration_line($item, $what, $amount, $now, $end, %other) {
    return {item => {%$item, %other}, amount => $amount, proration => 1, period => {start => $now, end => $end},
        description => "$what after $now"};
}

sub rounded($amount) { int($amount + 0.5) }

# Lines of a change become an invoice now, or wait for the next one.
sub charge_changes($account, $subscription, $lines, $at_once) {
    return if !@$lines;
    if (!$at_once) {
        push @{$subscription->{_pending_lines} //= []}, @$lines;
        return;
    }
    my $invoice = Billing::Stripe::Invoices::draft($account, $subscription, reason => 'subscription_update', at_once => 1, lines => $lines,
        period => [period_start($subscription), $account->now]);
    Billing::Stripe::Invoices::finalize($account, $invoice);
    Billing::Stripe::Invoices::attempt($account, $invoice) if $invoice->{status} eq 'open';
    return $invoice;
}

# Once for each end that a trial is given.
sub warn_of_trial_end($account, $subscription) {
    $subscription->{_warned} = $subscription->{trial_end};
    $account->emit('customer.subscription.trial_will_end', $subscription);
    return;
}

# What happens to it next by itself: (time, code), or nothing.
sub next_step($account, $subscription) {
    my $status = $subscription->{status};
    return if over($subscription);
    return if $status eq 'incomplete' && $subscription->{_awaits};    # a bank's answer
    return ($subscription->{created} + $to_pay, sub { expire($account, $subscription) }) if $status eq 'incomplete';
    my @steps;
    push @steps, [$subscription->{cancel_at}, sub { finish($account, $subscription) }] if $subscription->{cancel_at};
    if (my $until = ($subscription->{pause_collection} // {})->{resumes_at}) {
        push @steps, [$until, sub { updated($account, $subscription, sub ($) { $subscription->{pause_collection} = undef }) }];
    }
    if ($status eq 'trialing') {
        my $warning = max($subscription->{trial_end} - 3 * $day, $subscription->{trial_start});
        push @steps, [$warning, sub { warn_of_trial_end($account, $subscription) }]
            if ($subscription->{_warned} // 0) != $subscription->{trial_end};
        push @steps, [$subscription->{trial_end}, sub { end_trial($account, $subscription) }];
    } elsif ($status ne 'paused') {
        push @steps, [period_end($subscription), sub { renew($account, $subscription) }];
    }
    my ($first) = sort { $a->[0] <=> $b->[0] } @steps;    # stable: a cancellation comes before a renewal
    return $first ? @$first : ();
}

1;
