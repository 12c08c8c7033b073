# /v1/invoices and /v1/invoice_payments, and an invoice's life: draft, finalized, tried, paid or failed.
package Billing::Stripe::Invoices;
use v5.36;
use Billing::Stripe::Common qw(expandable listing paging retrieve page created_within);
use Billing::Stripe::Error qw(refuse missing_parameter);
use Billing::Stripe::Objects ();
use Billing::Stripe::Payments ();
use Billing::Stripe::Schema qw(text one_of object boolean);
use List::Util qw(sum0);
use Mojo::JSON qw(true false);

my $hour = 3600;
my $day = 86400;

sub routes($class) {
    return (
        ['GET', '/v1/invoices', listing(customer => text, subscription => text,
            status => one_of(qw(draft open paid uncollectible void))), \&list],
        ['GET', '/v1/invoices/:id', expandable(), retrieve('invoice', 'invoice')],
        ['GET', '/v1/invoices/:id/lines', paging(), \&list_lines],
        ['POST', '/v1/invoices/:id/pay', expandable(paid_out_of_band => boolean), \&pay_by_call],
        ['GET', '/v1/invoice_payments', listing(invoice => text, status => one_of(qw(canceled open paid)),
            payment => object(type => one_of(qw(payment_intent payment_record)), payment_intent => text)), \&list_payments],
        ['GET', '/v1/invoice_payments/:id', expandable(), retrieve('invoice_payment')],
    );
}

sub subscription_of($invoice) { ($invoice->{parent} // return)->{subscription_details}{subscription} }

sub list($account, $params) {
    my @all = grep {
        (!defined $params->{customer} || $_->{customer} eq $params->{customer})
            && (!defined $params->{status} || $_->{status} eq $params->{status})
            && (!defined $params->{subscription} || (subscription_of($_) // '') eq $params->{subscription})
    } reverse $account->all('invoice');
    return page($account, '/v1/invoices', $params, created_within($params, @all));
}

sub list_lines($account, $params, $id) {
    my $invoice = $account->get('invoice', $id, status => 404, param => 'invoice');
    return page($account, "/v1/invoices/$id/lines", $params, $invoice->{_lines}->@*);
}

sub list_payments($account, $params) {
    my $payment = $params->{payment};
    if ($payment) {
        missing_parameter('payment[type]') if !$payment->{type};
        missing_parameter('payment[payment_intent]') if $payment->{type} eq 'payment_intent' && !$payment->{payment_intent};
    }
    my @all = grep {
        (!defined $params->{invoice} || $_->{invoice} eq $params->{invoice})
            && (!defined $params->{status} || $_->{status} eq $params->{status})
            && (!$payment || $_->{payment}{payment_intent} eq ($payment->{payment_intent} // ''))
    } reverse $account->all('invoice_payment');
    return page($account, '/v1/invoice_payments', $params, created_within($params, @all));
}

sub payments_of($account, $invoice) { grep { $_->{invoice} eq $invoice->{id} } $account->all('invoice_payment') }

# --- a life ---

# A draft for a subscription. lines => [as invoice_line takes them, with item => ...], period => [start, end], reason => billing_reason.
sub draft($account, $subscription, %option) {
    my $customer = $account->get('customer', $subscription->{customer});
    my $invoice = Billing::Stripe::Objects::invoice($account, billing_reason => $option{reason}, currency => $subscription->{currency},
        customer => $customer->{id}, customer_email => $customer->{email}, customer_name => $customer->{name},
        customer_address => $customer->{address}, default_payment_method => undef, period_start => $option{period}[0],
        period_end => $option{period}[1],
        parent => {
            type => 'subscription_details', quote_details => undef,
            subscription_details => {metadata => {%{$subscription->{metadata}}}, subscription => $subscription->{id}},
        });
    my @ids = ($invoice->{id}, $subscription->{id});
    my @lines = map { Billing::Stripe::Objects::invoice_line($account, @ids, $_->{item}, %$_) } $option{lines}->@*;
    $_->{metadata} = {%{$subscription->{metadata}}} for @lines;
    $invoice->{_lines} = \@lines;
    $invoice->{lines} = page($account, "/v1/invoices/$invoice->{id}/lines", {}, @lines);    # the first ten
    my $total = sum0 map { $_->{amount} } @lines;
    $invoice->{$_} = $total for qw(subtotal subtotal_excluding_tax total total_excluding_tax);
    $invoice->{$_} = $total > 0 ? $total : 0 for qw(amount_due amount_remaining);
    $invoice->{automatically_finalizes_at} = $account->now + $hour if !$option{at_once};
    $account->add($invoice);
    $subscription->{latest_invoice} = $invoice->{id};
    $account->emit('invoice.created', $invoice);
    return $invoice;
}

# Open, with a payment to make; nothing due is paid at once.
sub finalize($account, $invoice) {
    my $customer = $account->get('customer', $invoice->{customer});
    $account->change($invoice, 'invoice.finalized', sub ($) {
        $invoice->{status} = 'open';
        $invoice->{automatically_finalizes_at} = undef;
        $invoice->{number} = sprintf '%s-%04d', $customer->{invoice_prefix}, $customer->{next_invoice_sequence}++;
        $invoice->{effective_at} = $invoice->{status_transitions}{finalized_at} = $account->now;
        $invoice->{hosted_invoice_url} = "https://invoice.stripe.com/i/acct_standin/test_$invoice->{id}?s=ap";
        $invoice->{invoice_pdf} = "https://pay.stripe.com/invoice/acct_standin/test_$invoice->{id}/pdf?s=ap";
    });
    return settled($account, $invoice) if $invoice->{amount_due} == 0;
    my $first = $invoice->{billing_reason} eq 'subscription_create';
    my $intent = Billing::Stripe::Payments::intend($account, amount => $invoice->{amount_due}, currency => $invoice->{currency},
        customer => $invoice->{customer}, description => $first ? 'Subscription creation' : 'Subscription update',
        setup_future_usage => $first ? 'off_session' : undef);
    $intent->{_invoice} = $invoice->{id};
    my $payment = $account->add(Billing::Stripe::Objects::invoice_payment($account, $invoice, $intent));
    $invoice->{_payment} = $payment->{id};
    return $invoice;
}

# One try to charge the customer's card. Returns whether it is paid.
sub attempt($account, $invoice, %option) {
    my $payment = $account->get('invoice_payment', $invoice->{_payment});
    my $intent = $account->get('payment_intent', $payment->{payment}{payment_intent});
    my $card = Billing::Stripe::Payments::card_of($account, $invoice);
    my $paid = Billing::Stripe::Payments::confirm($account, $intent, $card);
    return failed($account, $invoice, %option) if !$paid;
    settled($account, $invoice, payment => $payment, tried => 1);
    return 1;
}

sub settled($account, $invoice, %option) {
    my $now = $account->now;
    my $change = sub ($) {
        $invoice->{status} = 'paid';
        $invoice->{attempted} = true;
        $invoice->{attempt_count}++ if $option{tried};
        $invoice->{amount_paid} = $option{out_of_band} ? 0 : $invoice->{amount_due};
        $invoice->{amount_remaining} = 0;
        $invoice->{auto_advance} = false;
        $invoice->{next_payment_attempt} = undef;
        $invoice->{status_transitions}{paid_at} = $now;
    };
    if (my $payment = $option{payment}) {
        $account->change($payment, 'invoice_payment.paid', sub ($) {
            @$payment{qw(status amount_paid)} = ('paid', $invoice->{amount_due});
            $payment->{status_transitions}{paid_at} = $now;
        });
    }
    $account->change($invoice, 'invoice.updated', $change);
    $account->emit('invoice.paid', $invoice);
    $account->emit('invoice.payment_succeeded', $invoice) if !$option{out_of_band};
    Billing::Stripe::Lifecycle::invoice_paid($account, $invoice);
    return 1;
}

# next => 0: not tried again by itself (a manual try, or a first payment).
sub failed($account, $invoice, %option) {
    my $days = $account->setting('retry_days');
    my $automatic = $option{automatic} // 1;
    $account->change($invoice, 'invoice.updated', sub ($) {
        $invoice->{attempted} = true;
        $invoice->{attempt_count}++;
        my $next = $days->[$invoice->{attempt_count} - 1];
        $invoice->{next_payment_attempt} = $next ? $account->now + int($next * $day) : undef if $automatic;
        $invoice->{auto_advance} = $invoice->{next_payment_attempt} ? true : false;
    });
    $account->emit('invoice.payment_failed', $invoice);
    Billing::Stripe::Lifecycle::invoice_failed($account, $invoice);
    return 0;
}

sub void($account, $invoice) {
    $account->change($invoice, 'invoice.voided', sub ($) {
        @$invoice{qw(status auto_advance next_payment_attempt automatically_finalizes_at)} = ('void', false, undef, undef);
        $invoice->{status_transitions}{voided_at} = $account->now;
    });
    return;
}

# Collection is paused: void | mark_uncollectible | keep_as_draft.
sub not_collected($account, $invoice, $behaviour) {
    return void($account, $invoice) if $behaviour eq 'void';
    $account->change($invoice, $behaviour eq 'keep_as_draft' ? 'invoice.updated' : 'invoice.marked_uncollectible', sub ($) {
        @$invoice{qw(auto_advance next_payment_attempt automatically_finalizes_at)} = (false, undef, undef);
        return if $behaviour eq 'keep_as_draft';
        $invoice->{status} = 'uncollectible';
        $invoice->{status_transitions}{marked_uncollectible_at} = $account->now;
    });
    return;
}

# Left open, never tried again (its subscription has ended).
sub abandon($account, $invoice) {
    $account->change($invoice, 'invoice.updated', sub ($) {
        @$invoice{qw(auto_advance next_payment_attempt automatically_finalizes_at)} = (false, undef, undef);
    });
    return;
}

# Somebody pays an open invoice: by its page, by a new card, by the call. Returns whether it is paid.
sub pay($account, $invoice, %option) {
    finalize($account, $invoice) if $invoice->{status} eq 'draft';
    return 1 if $invoice->{status} eq 'paid';
    return settled($account, $invoice, out_of_band => 1) if $option{out_of_band};
    return attempt($account, $invoice, automatic => 0);
}

sub pay_by_call($account, $params, $id) {
    my $invoice = $account->get('invoice', $id, status => 404, param => 'invoice');
    refuse('Invoice is already paid', code => 'invoice_already_paid') if $invoice->{status} eq 'paid';
    refuse("Invoice cannot be paid: it is $invoice->{status}") if $invoice->{status} !~ /^(?:draft|open|uncollectible)$/;
    pay($account, $invoice, out_of_band => $params->{paid_out_of_band})
        or refuse('Your card was declined.', status => 402, type => 'card_error', code => 'card_declined',
            decline_code => 'generic_decline');
    return $invoice;
}

# --- the clock ---

# What happens to it next by itself: (time, code), or nothing.
sub next_step($account, $invoice) {
    if ($invoice->{status} eq 'draft' && $invoice->{automatically_finalizes_at}) {
        return ($invoice->{automatically_finalizes_at}, sub {
            finalize($account, $invoice);
            attempt($account, $invoice) if $invoice->{status} eq 'open';
        });
    }
    return if $invoice->{status} ne 'open' || !$invoice->{next_payment_attempt};
    return ($invoice->{next_payment_attempt}, sub { attempt($account, $invoice) });
}

1;
