# /v1/subscriptions: read, change, cancel. They begin in Checkout, or by the control interface.
package Billing::Stripe::Subscriptions;
use v5.36;
use Billing::Stripe::Common qw(expandable listing page created_within metadata merge_metadata);
use Billing::Stripe::Error qw(refuse no_such);
use Billing::Stripe::Lifecycle ();
use Billing::Stripe::Objects ();
use Billing::Stripe::Schema qw(text integer boolean one_of object array emptyable any_of);

my @statuses = qw(active all canceled ended incomplete incomplete_expired past_due paused trialing unpaid);

my $feedback = emptyable(one_of(qw(customer_service low_quality missing_features other switched_service too_complex too_expensive unused)));
my $cancellation = object(comment => emptyable(text), feedback => $feedback);
my $prorations = one_of(qw(always_invoice create_prorations none));

my %update = (
    cancel_at_period_end => boolean, cancel_at => emptyable(any_of(integer, one_of(qw(max_period_end min_period_end)))),
    items => array(object(id => text, price => text, quantity => integer, deleted => boolean, metadata => metadata)),
    metadata => metadata, proration_behavior => $prorations, trial_end => any_of(one_of('now'), integer), default_payment_method => text,
    description => emptyable(text), cancellation_details => $cancellation,
    pause_collection => emptyable(object(behavior => one_of(qw(keep_as_draft mark_uncollectible void)), resumes_at => integer)),
);

sub routes($class) {
    return (
        ['GET', '/v1/subscriptions', listing(customer => text, price => text, status => one_of(@statuses),
            collection_method => one_of(qw(charge_automatically send_invoice))), \&list],
        ['GET', '/v1/subscriptions/:id', expandable(), \&named],
        ['POST', '/v1/subscriptions/:id', expandable(%update), \&update],
        ['DELETE', '/v1/subscriptions/:id', expandable(cancellation_details => $cancellation, invoice_now => boolean,
            prorate => boolean), \&cancel],
        ['POST', '/v1/subscriptions/:id/resume', expandable(proration_behavior => $prorations, billing_cycle_anchor => one_of('now')),
            \&resume],
    );
}

sub named($account, $params, $id) { $account->get('subscription', $id, status => 404, param => 'id') }

# Without a status: all that are not canceled.
sub list($account, $params) {
    my $status = $params->{status} // 'uncanceled';
    my $fits = $status eq 'all' ? sub ($is) { 1 }
        : $status eq 'uncanceled' ? sub ($is) { $is ne 'canceled' }
        : $status eq 'ended' ? sub ($is) { $is =~ /^(?:canceled|incomplete_expired)$/ }
        : sub ($is) { $is eq $status };
    no_such('customer', $params->{customer}, param => 'customer')
        if defined $params->{customer} && !$account->find('customer', $params->{customer});
    my @all = grep {
        my $subscription = $_;
        $fits->($subscription->{status}) && (!defined $params->{customer} || $subscription->{customer} eq $params->{customer})
            && (!defined $params->{price} || grep { $_->{price}{id} eq $params->{price} } Billing::Stripe::Lifecycle::items($subscription))
            && (!defined $params->{collection_method} || $subscription->{collection_method} eq $params->{collection_method})
    } reverse $account->all('subscription');
    return page($account, '/v1/subscriptions', $params, created_within($params, @all));
}

sub update($account, $params, $id) {
    my $subscription = named($account, $params, $id);
    if (Billing::Stripe::Lifecycle::over($subscription)) {
        my @other = grep { !/^(?:metadata|cancellation_details|expand)$/ } sort keys %$params;
        refuse('A canceled subscription can only update its cancellation_details and metadata.', param => $other[0]) if @other;
    }
    refuse('You may not set `cancel_at` and `cancel_at_period_end` at once.', param => 'cancel_at')
        if defined $params->{cancel_at} && defined $params->{cancel_at_period_end};
    my ($lines, $at_once) = ([], 0);
    Billing::Stripe::Lifecycle::updated($account, $subscription, sub ($) {
        ($lines, $at_once) = change_items($account, $subscription, $params);
        set_cancellation($account, $subscription, $params);
        set_fields($account, $subscription, $params);
    });
    Billing::Stripe::Lifecycle::charge_changes($account, $subscription, $lines, $at_once);
    end_trial_at($account, $subscription, $params->{trial_end}) if defined $params->{trial_end};
    return $subscription;
}

sub set_fields($account, $subscription, $params) {
    $subscription->{metadata} = merge_metadata($subscription->{metadata}, $params->{metadata});
    $subscription->{description} = length $params->{description} ? $params->{description} : undef if defined $params->{description};
    if (my $details = $params->{cancellation_details}) {
        $subscription->{cancellation_details}{$_} = length $details->{$_} ? $details->{$_} : undef for keys %$details;
    }
    if (defined(my $pause = $params->{pause_collection})) {
        refuse('Missing required param: pause_collection[behavior].', code => 'parameter_missing', param => 'pause_collection[behavior]')
            if ref $pause && !$pause->{behavior};
        $subscription->{pause_collection} = ref $pause ? {behavior => $pause->{behavior}, resumes_at => $pause->{resumes_at}} : undef;
    }
    if (my $card = $params->{default_payment_method}) {
        $account->get('payment_method', $card, param => 'default_payment_method');
        $subscription->{default_payment_method} = $card;
    }
    return;
}

sub set_cancellation($account, $subscription, $params) {
    my $end = Billing::Stripe::Lifecycle::period_end($subscription);
    if (defined(my $flag = $params->{cancel_at_period_end})) {
        if ($flag) {
            Billing::Stripe::Lifecycle::mark_cancellation($account, $subscription, $end, 1);
        } else {
            Billing::Stripe::Lifecycle::unmark_cancellation($subscription);
        }
    }
    if (defined(my $at = $params->{cancel_at})) {
        return Billing::Stripe::Lifecycle::unmark_cancellation($subscription) if $at eq '';
        $at = $end if $at =~ /period_end/;
        refuse('`cancel_at` must be in the future.', param => 'cancel_at') if $at <= $account->now;
        Billing::Stripe::Lifecycle::mark_cancellation($account, $subscription, $at, 0);
    }
    return;
}

sub change_items($account, $subscription, $params) {
    my (@lines, $at_once);
    my $index = 0;
    for my $wanted (@{$params->{items} // []}) {
        my $at = 'items[' . $index++ . ']';
        my ($item) = grep { $_->{id} eq ($wanted->{id} // '') } Billing::Stripe::Lifecycle::items($subscription);
        no_such('subscription item', $wanted->{id}, param => "${at}[id]") if $wanted->{id} && !$item;
        my $price = defined $wanted->{price} ? usable_price($account, $wanted->{price}, "${at}[price]") : $item && $item->{price};
        refuse("Missing required param: ${at}[price].", code => 'parameter_missing', param => "${at}[price]") if !$price;
        if ($wanted->{deleted}) {
            remove_item($subscription, $item, $at);
            next;
        }
        $item //= add_item($account, $subscription, $price, $at);
        my ($more, $now) = Billing::Stripe::Lifecycle::change_item($account, $subscription, $item, $price,
            $wanted->{quantity} // $item->{quantity},
            $params->{proration_behavior} // 'create_prorations');
        push @lines, @$more;
        $at_once ||= $now;
    }
    return (\@lines, $at_once);
}

sub usable_price($account, $id, $param) {
    my $price = $account->get('price', $id, param => $param);
    refuse('The price specified is inactive. This field only accepts active prices.', param => $param) if !$price->{active};
    refuse('The price specified is set to `type=one_time` but this field only accepts prices with `type=recurring`.', param => $param)
        if !$price->{recurring};
    return $price;
}

sub remove_item($subscription, $item, $at) {
    refuse("Missing required param: ${at}[id].", code => 'parameter_missing', param => "${at}[id]") if !$item;
    refuse('A subscription must have at least one active plan.') if Billing::Stripe::Lifecycle::items($subscription) < 2;
    $subscription->{items}{data} = [grep { $_ != $item } $subscription->{items}{data}->@*];
    return;
}

# An item without id is a second item of the subscription, not a change of the first.
sub add_item($account, $subscription, $price, $at) {
    refuse("Cannot add multiple subscription items with the same plan: $price->{id}", param => "${at}[price]")
        if grep { $_->{price}{id} eq $price->{id} } Billing::Stripe::Lifecycle::items($subscription);
    my ($first) = Billing::Stripe::Lifecycle::items($subscription);
    my $item = Billing::Stripe::Objects::subscription_item($account, $subscription->{id}, $price, 1,
        @$first{qw(current_period_start current_period_end)});
    push $subscription->{items}{data}->@*, $item;
    return $item;
}

sub end_trial_at($account, $subscription, $when) {
    refuse('Trial end must be in the future, or `now`.', param => 'trial_end') if $when ne 'now' && $when <= $account->now;
    Billing::Stripe::Lifecycle::updated($account, $subscription, sub ($) {
        my $end = $when eq 'now' ? $account->now : $when;
        $subscription->{trial_end} = $subscription->{billing_cycle_anchor} = $end;
        $_->{current_period_end} = $end for Billing::Stripe::Lifecycle::items($subscription);
        if ($when ne 'now' && $subscription->{status} ne 'trialing') {
            @$subscription{qw(status trial_start)} = ('trialing', $account->now);
        }
    });
    return if $when ne 'now' || $subscription->{status} ne 'trialing';
    Billing::Stripe::Lifecycle::end_trial($account, $subscription);
    my $invoice = $account->find('invoice', $subscription->{latest_invoice});
    Billing::Stripe::Invoices::pay($account, $invoice) if $invoice && $invoice->{status} eq 'draft';
    return;
}

sub cancel($account, $params, $id) {
    my $subscription = named($account, $params, $id);
    no_such('subscription', $id, status => 404, param => 'id') if Billing::Stripe::Lifecycle::over($subscription);
    my $details = $params->{cancellation_details} // {};
    $subscription->{cancellation_details}{$_} = $details->{$_} for grep { length $details->{$_} } keys %$details;
    return Billing::Stripe::Lifecycle::end($account, $subscription);
}

sub resume($account, $params, $id) {
    my $subscription = named($account, $params, $id);
    refuse("Only paused subscriptions can be resumed. This one is $subscription->{status}.") if $subscription->{status} ne 'paused';
    return Billing::Stripe::Lifecycle::resume($account, $subscription);
}

1;
