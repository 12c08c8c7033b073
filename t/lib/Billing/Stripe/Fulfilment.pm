# A checkout session is paid: the subscription or the payment comes into being, and events tell of it in an order that Stripe has
# been seen to use.
package Billing::Stripe::Fulfilment;
use v5.36;
use Billing::Stripe::Checkout ();
use Billing::Stripe::Error qw(refuse);
use Billing::Stripe::Invoices ();
use Billing::Stripe::Lifecycle ();
use Billing::Stripe::Objects ();
use Billing::Stripe::Payments ();

my @order = qw(customer.created payment_intent.created charge.succeeded payment_method.attached checkout.session.completed invoice.created
    customer.subscription.created invoice.finalized customer.updated customer.subscription.updated invoice_payment.paid invoice.updated
    invoice.paid invoice.payment_succeeded payment_intent.succeeded customer.subscription.trial_will_end);
my %rank = map { $order[$_] => $_ } 0 .. $#order;

# The customer presses "Pay". card => succeeds | declines; delayed => 1: a bank debit that is known to be good or bad only later
# (settle_later). Returns the session; a declined card is refused and leaves it open.
sub complete($account, $session, %option) {
    refuse("This Checkout Session is $session->{status}.", code => 'session_not_open') if $session->{status} ne 'open';
    refuse('Your card was declined.', status => 402, type => 'card_error', code => 'card_declined', decline_code => 'generic_decline')
        if ($option{card} // 'succeeds') eq 'declines';
    $account->in_order(\%rank, sub {
        my $customer = customer_of($account, $session, %option);
        @$session{qw(status url)} = ('complete', undef);
        $session->{customer_details} = Billing::Stripe::Checkout::details($customer->{email}, $customer->{name}) if $customer;
        $session->{customer_details} //= Billing::Stripe::Checkout::details($option{email} // 'guest@example.com', $option{name});
        if ($session->{mode} eq 'subscription') {
            subscribe($account, $session, $customer, %option);
        } else {
            buy($account, $session, $customer, %option);
        }
        $account->emit('checkout.session.completed', $session);
    });
    return $session;
}

sub customer_of($account, $session, %option) {
    return Billing::Stripe::Customers::living($account, $session->{customer}) if $session->{customer};
    return undef if $session->{mode} eq 'payment' && $session->{customer_creation} ne 'always';
    my $customer = Billing::Stripe::Objects::customer($account,
        email => $session->{customer_email} // $option{email} // 'guest@example.com', name => $option{name});
    $account->add($customer);
    $account->emit('customer.created', $customer);
    $session->{customer} = $customer->{id};
    return $customer;
}

sub subscribe($account, $session, $customer, %option) {
    my $data = $session->{_data}{subscription};
    my $trial_end = $data->{trial_end} // ($data->{trial_period_days} ? $account->now + $data->{trial_period_days} * 86400 : undef);
    my $cardless = $trial_end && $session->{payment_method_collection} eq 'if_required';
    my $card = $cardless ? undef : Billing::Stripe::Payments::attach_card($account, $customer, $option{later} // 'succeeds');
    my $trial_end_behaviour = ($data->{trial_settings} // {})->{end_behavior} // {};
    my ($subscription, $invoice) = Billing::Stripe::Lifecycle::begin($account, customer => $customer, items => $session->{_bought},
        card => $card, trial_end => $trial_end, metadata => {%{$data->{metadata} // {}}}, description => $data->{description},
        billing_mode => $session->{_data}{billing_mode}, without_card => $trial_end_behaviour->{missing_payment_method});
    @$session{qw(subscription invoice)} = ($subscription->{id}, $invoice->{id});
    if ($invoice->{status} eq 'paid') {    # nothing due
        $session->{payment_status} = $trial_end ? 'no_payment_required' : 'paid';
    } elsif ($option{delayed}) {
        $session->{payment_status} = 'unpaid';
        $subscription->{_awaits} = 1;
        $account->change($subscription, 'customer.subscription.updated', sub ($) { $subscription->{status} = $option{status} })
            if $option{status};
    } else {
        $session->{payment_status} = 'paid';
        with_good_card($card, sub { Billing::Stripe::Invoices::attempt($account, $invoice) });
    }
    return;
}

# The first payment succeeds, also with a card that will fail at the renewal (later => declines).
sub with_good_card($card, $code) {
    local $card->{_behaviour} = 'succeeds';
    $code->();
    return;
}

sub buy($account, $session, $customer, %option) {
    my $data = $session->{_data}{payment};
    my $intent = Billing::Stripe::Payments::intend($account, amount => $session->{amount_total}, currency => $session->{currency},
        customer => $customer ? $customer->{id} : undef, metadata => {%{$data->{metadata} // {}}},
        map { $_ => $data->{$_} } qw(description receipt_email setup_future_usage statement_descriptor statement_descriptor_suffix));
    $session->{payment_intent} = $intent->{id};
    my $kept_for = $data->{setup_future_usage} && $customer ? $customer->{id} : undef;
    my $card = $account->add(Billing::Stripe::Objects::payment_method($account, customer => $kept_for));
    $card->{_behaviour} = 'succeeds';
    if ($option{delayed}) {
        $account->change($intent, 'payment_intent.processing', sub ($) { $intent->{status} = 'processing' });
    } else {
        Billing::Stripe::Payments::confirm($account, $intent, $card);
        $session->{payment_status} = 'paid';
    }
    $session->{_card} = $card->{id};
    return;
}

# The bank's answer to a delayed payment: well => 1 or 0.
sub settle_later($account, $session, $well) {
    refuse("This Checkout Session awaits no payment (it is $session->{status}, $session->{payment_status}).")
        if $session->{status} ne 'complete' || $session->{payment_status} ne 'unpaid';
    if ($session->{mode} eq 'subscription') {
        settle_subscription($account, $session, $well);
    } else {
        my $intent = $account->get('payment_intent', $session->{payment_intent});
        my $card = $account->get('payment_method', $session->{_card});
        local $card->{_behaviour} = $well ? 'succeeds' : 'declines';
        Billing::Stripe::Payments::confirm($account, $intent, $card);
    }
    $session->{payment_status} = 'paid' if $well;
    $account->emit('checkout.session.async_payment_' . ($well ? 'succeeded' : 'failed'), $session);
    return $session;
}

sub settle_subscription($account, $session, $well) {
    my $subscription = $account->get('subscription', $session->{subscription});
    my $invoice = $account->get('invoice', $session->{invoice});
    my $card = $account->get('payment_method', $subscription->{default_payment_method});
    delete $subscription->{_awaits};
    local $card->{_behaviour} = $well ? 'succeeds' : 'declines';
    Billing::Stripe::Invoices::attempt($account, $invoice, automatic => 0);
    Billing::Stripe::Lifecycle::expire($account, $subscription) if !$well && $subscription->{status} eq 'incomplete';
    return;
}

1;
