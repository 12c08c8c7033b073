# /v1/payment_intents, /v1/charges, /v1/refunds, and what happens to money: intended, charged, refunded, disputed.
package Billing::Stripe::Payments;
use v5.36;
use Billing::Stripe::Common qw(expandable listing retrieve page created_within metadata merge_metadata);
use Billing::Stripe::Error qw(refuse missing_parameter exclusive);
use Billing::Stripe::Objects ();
use Billing::Stripe::Schema qw(text integer one_of);
use Mojo::JSON qw(true false);

sub list_of($type, $url, @filters) {
    return sub ($account, $params) {
        my @wanted = grep { defined $params->{$_} } @filters;
        my @all = grep { my $object = $_; !grep { ($object->{$_} // '') ne $params->{$_} } @wanted } reverse $account->all($type);
        return page($account, $url, $params, created_within($params, @all));
    };
}

sub routes($class) {
    my @of_charge = qw(customer payment_intent);
    my @by_charge = qw(charge payment_intent);
    return (
        ['GET', '/v1/payment_intents', listing(customer => text), list_of('payment_intent', '/v1/payment_intents', 'customer')],
        ['GET', '/v1/payment_intents/:id', expandable(), retrieve('payment_intent')],
        ['GET', '/v1/charges', listing(map { $_ => text } @of_charge), list_of('charge', '/v1/charges', @of_charge)],
        ['GET', '/v1/charges/:id', expandable(), retrieve('charge')],
        ['GET', '/v1/refunds', listing(map { $_ => text } @by_charge), list_of('refund', '/v1/refunds', @by_charge)],
        ['GET', '/v1/refunds/:id', expandable(), retrieve('refund')],
        ['POST', '/v1/refunds', expandable(charge => text, payment_intent => text, amount => integer, metadata => metadata,
            reason => one_of(qw(duplicate fraudulent requested_by_customer))), \&refund_by_call],
        ['GET', '/v1/payment_methods/:id', expandable(), retrieve('payment_method')],
        ['GET', '/v1/disputes/:id', expandable(), retrieve('dispute')],
    );
}

# --- cards ---

# A new card of a customer. behaviour: succeeds | declines.
sub attach_card($account, $customer, $behaviour = 'succeeds') {
    my $method = Billing::Stripe::Objects::payment_method($account, customer => $customer->{id});
    $method->{card}{last4} = '0341' if $behaviour eq 'declines';
    $method->{billing_details} = {%{$method->{billing_details}}, email => $customer->{email}, name => $customer->{name}};
    $method->{_behaviour} = $behaviour;
    $account->add($method);
    $account->emit('payment_method.attached', $method);
    return $method;
}

# What an invoice would be charged to: the subscription's card, else the customer's, else none.
sub card_of($account, $invoice) {
    my $subscription = $account->find('subscription', Billing::Stripe::Invoices::subscription_of($invoice));
    my $customer = $account->get('customer', $invoice->{customer});
    my $id = ($subscription ? $subscription->{default_payment_method} : undef) // $customer->{invoice_settings}{default_payment_method};
    return $account->find('payment_method', $id);
}

# --- money ---

sub intend($account, %with) {
    my $intent = $account->add(Billing::Stripe::Objects::payment_intent($account, %with));
    $account->emit('payment_intent.created', $intent);
    return $intent;
}

# Charges a card for it (undef: there is none). Returns whether it succeeded.
sub confirm($account, $intent, $method) {
    if (!$method) {
        $account->change($intent, undef, sub ($) { $intent->{status} = 'requires_payment_method' });
        return 0;
    }
    my $declined = $method->{_behaviour} eq 'declines';
    my $charge = Billing::Stripe::Objects::charge($account, amount => $intent->{amount}, currency => $intent->{currency},
        amount_captured => $declined ? 0 : $intent->{amount}, customer => $intent->{customer}, description => $intent->{description},
        metadata => {%{$intent->{metadata}}}, payment_intent => $intent->{id}, payment_method => $method->{id},
        billing_details => $method->{billing_details});
    $charge->{_invoice} = $intent->{_invoice};
    $charge->{payment_method_details}{card}{last4} = $method->{card}{last4};
    my @refused = (failure_code => 'card_declined', failure_message => 'Your card was declined.', paid => false, captured => false,
        status => 'failed');
    %$charge = (%$charge, @refused) if $declined;
    $charge->{receipt_url} = "https://pay.stripe.com/receipts/payment/$charge->{id}" if !$declined;
    $account->add($charge);
    $account->emit($declined ? 'charge.failed' : 'charge.succeeded', $charge);
    $account->change($intent, undef, sub ($) {
        $intent->{latest_charge} = $charge->{id};
        if ($declined) {
            $intent->{status} = 'requires_payment_method';
            $intent->{last_payment_error} = {charge => $charge->{id}, code => 'card_declined', decline_code => 'generic_decline',
                doc_url => 'https://stripe.com/docs/error-codes/card-declined', message => 'Your card was declined.', type => 'card_error'};
        } else {
            @$intent{qw(status amount_received payment_method last_payment_error)} = ('succeeded', $intent->{amount}, $method->{id}, undef);
        }
    });
    $account->emit($declined ? 'payment_intent.payment_failed' : 'payment_intent.succeeded', $intent);
    return !$declined;
}

# amount => (all that is left), reason, metadata. Returns the refund.
sub refund($account, $charge, %option) {
    my $left = $charge->{amount_captured} - $charge->{amount_refunded};
    refuse("Charge $charge->{id} has already been refunded.", code => 'charge_already_refunded') if $left <= 0;
    my $amount = $option{amount} // $left;
    refuse("Invalid positive integer", param => 'amount', code => 'parameter_invalid_integer') if $amount < 1;
    refuse("Refund amount ($amount) is greater than unrefunded amount on charge ($left)", param => 'amount') if $amount > $left;
    my $refund = Billing::Stripe::Objects::refund($account, amount => $amount, charge => $charge->{id}, currency => $charge->{currency},
        payment_intent => $charge->{payment_intent}, reason => $option{reason}, metadata => merge_metadata({}, $option{metadata}));
    $account->add($refund);
    $account->change($charge, 'charge.refunded', sub ($) {
        $charge->{amount_refunded} += $amount;
        $charge->{refunded} = $charge->{amount_refunded} == $charge->{amount_captured} ? true : false;
    });
    $account->emit('refund.created', $refund);
    $account->emit('charge.refund.updated', $refund);
    return $refund;
}

# The bank did not take it, or it was called back: failed | canceled. The money is there again.
sub fail_refund($account, $refund, $status = 'failed') {
    refuse("This refund has already $refund->{status}.") if $refund->{status} =~ /^(?:failed|canceled)$/;
    my $charge = $account->get('charge', $refund->{charge});
    $account->change($charge, 'charge.updated', sub ($) {
        $charge->{amount_refunded} -= $refund->{amount};
        $charge->{refunded} = false;
    });
    $account->change($refund, 'charge.refund.updated', sub ($) {
        $refund->{status} = $status;
        @$refund{qw(failure_reason failure_balance_transaction)} = ('lost_or_stolen_card', $account->new_id('txn_3')) if $status eq 'failed';
    });
    $account->emit('refund.updated', $refund);
    $account->emit('refund.failed', $refund) if $status eq 'failed';
    return $refund;
}

sub refund_by_call($account, $params) {
    exclusive('charge', 'payment_intent') if defined $params->{charge} && defined $params->{payment_intent};
    missing_parameter('payment_intent') if !defined $params->{charge} && !defined $params->{payment_intent};
    return refund($account, charge_named($account, $params->{charge} // $params->{payment_intent}), %$params{qw(amount reason metadata)});
}

# The charge that an id means: of a charge, a payment intent, an invoice or a checkout session.
sub charge_named($account, $id) {
    my $object = $account->{objects}{$id};
    my $type = $object ? $object->{object} : '';
    return $object if $type eq 'charge';
    if ($type eq 'checkout.session') {
        $id = $object->{payment_intent} // $object->{invoice};
        return charge_named($account, $id) if $id;
    }
    if ($type eq 'invoice') {
        my ($payment) = grep { $_->{status} eq 'paid' } Billing::Stripe::Invoices::payments_of($account, $object);
        return charge_named($account, $payment->{payment}{payment_intent}) if $payment;
    }
    if ($type eq 'payment_intent') {
        return $account->get('charge', $object->{latest_charge}) if $object->{latest_charge};
        refuse("This PaymentIntent ($id) does not have a successful charge to refund.", code => 'charge_not_found',
            param => 'payment_intent');
    }
    return $account->get($id =~ /^pi_/ ? 'payment_intent' : 'charge', $id, param => $id =~ /^pi_/ ? 'payment_intent' : 'charge');
}

sub dispute($account, $charge, %option) {
    my $dispute = Billing::Stripe::Objects::dispute($account, amount => $option{amount} // $charge->{amount}, charge => $charge->{id},
        currency => $charge->{currency}, payment_intent => $charge->{payment_intent}, reason => $option{reason} // 'fraudulent');
    $account->add($dispute);
    $account->change($charge, undef, sub ($) { $charge->{disputed} = true });
    $account->emit('charge.dispute.created', $dispute);
    $account->emit('charge.dispute.funds_withdrawn', $dispute);
    return $dispute;
}

# status: won | lost
sub close_dispute($account, $dispute, $status) {
    $account->change($dispute, 'charge.dispute.updated', sub ($) { $dispute->{status} = $status });
    $account->emit('charge.dispute.funds_reinstated', $dispute) if $status eq 'won';
    $account->emit('charge.dispute.closed', $dispute);
    return $dispute;
}

1;
