# What a test can do to the stand-in: each call of Billing::Stripe that is not a plain request ends here. Objects are answered in the
# account's own version.
package Billing::Stripe::Control;
use v5.36;
use Billing::Stripe::Account qw(copy);
use Billing::Stripe::Catalog ();
use Billing::Stripe::Clock ();
use Billing::Stripe::Customers ();
use Billing::Stripe::Entitlements ();
use Billing::Stripe::Fulfilment ();
use Billing::Stripe::Lifecycle ();
use Billing::Stripe::Meters ();
use Billing::Stripe::Payments ();
use Billing::Stripe::Portal ();
use Billing::Stripe::Versions ();
use Mojo::JSON qw(true false);
use Scalar::Util qw(weaken);

sub new($class, $server) {
    my $self = bless {server => $server, account => $server->{account}, api => $server->{api}}, $class;
    weaken $self->{server};
    return $self;
}

my %calls = map { $_ => 1 } qw(product price catalog archive portal_configuration settings webhook_endpoint roll_secret remove_endpoint
    pay settle_later portal subscribe pay_invoice void_invoice new_card refund fail_refund dispute close_dispute delete_customer entitle emit
    now advance meter meter_sum fault clear_faults calls clear_calls close_port open_port object all events told deliveries hold release
    release_together deliver deliver_pending body retry webhook_timeout);

sub run($self, $name, %with) {
    die "no such call: $name\n" if !$calls{$name};
    Billing::Stripe::Clock::settle($self->{account});
    my $result = $self->$name(%with);
    Billing::Stripe::Clock::settle($self->{account});
    return $result;
}

sub shown($self, $object) { $object && Billing::Stripe::Versions::render($self->{account}, $object, $self->{account}{version}) }

sub named($self, $type, $id) { $self->{account}->get($type, $id) }

# --- what is for sale, settings ---

sub product($self, %with) { $self->shown(Billing::Stripe::Catalog::make_product($self->{account}, %with)) }
sub price($self, %with) { $self->shown(Billing::Stripe::Catalog::make_price($self->{account}, %with)) }
sub catalog($self, %with) { Billing::Stripe::Catalog::make_catalog($self->{account}, $with{catalog}) }

sub archive($self, %with) {
    return $self->shown($self->{account}->change($self->named('price', $with{price}), 'price.updated',
        sub ($price) { $price->{active} = false }));
}

sub portal_configuration($self, %with) {
    my $configuration = Billing::Stripe::Objects::portal_configuration($self->{account}, is_default => $with{is_default} ? true : false);
    $configuration->{active} = $with{active} ? true : false if exists $with{active};
    $configuration->{default_return_url} = $with{default_return_url};
    $configuration->{features}{$_} = {%{$configuration->{features}{$_}}, enabled => false} for @{$with{without} // []};
    return $self->shown($self->{account}->add($configuration));
}

sub settings($self, %with) {
    for my $name (keys %with) {
        die "no such setting: $name\n" if !exists $self->{account}{settings}{$name};
        $self->{account}{settings}{$name} = $with{$name};
    }
    return copy($self->{account}{settings});
}

# --- what customers do ---

sub pay($self, %with) {
    my $session = $self->named('checkout.session', delete $with{session});
    return $self->shown(Billing::Stripe::Fulfilment::complete($self->{account}, $session, %with));
}

sub settle_later($self, %with) {
    my $session = $self->named('checkout.session', $with{session});
    return $self->shown(Billing::Stripe::Fulfilment::settle_later($self->{account}, $session, $with{well}));
}

# action: cancel | cancel_now | keep | change_plan (price, prorations)
sub portal($self, %with) {
    my $account = $self->{account};
    my $subscription = $self->named('subscription', $with{subscription});
    my $action = $with{action};
    return $self->shown(Billing::Stripe::Portal::cancel($account, $subscription)) if $action eq 'cancel';
    return $self->shown(Billing::Stripe::Portal::cancel($account, $subscription, now => 1)) if $action eq 'cancel_now';
    return $self->shown(Billing::Stripe::Portal::keep($account, $subscription)) if $action eq 'keep';
    return $self->shown(Billing::Stripe::Portal::change_plan($account, $subscription, $with{price}, %with)) if $action eq 'change_plan';
    die "no such action: $action\n";
}

# A subscription made outside Checkout (Dashboard, API): paid at once, unless status => incomplete.
sub subscribe($self, %with) {
    my $account = $self->{account};
    my $customer = Billing::Stripe::Customers::living($account, $with{customer});
    my $behaviour = $with{card} // 'succeeds';
    my $card = $behaviour eq 'none' ? undef : Billing::Stripe::Payments::attach_card($account, $customer, $behaviour);
    my @items = map { [$self->named('price', $_), 0 + ($with{quantity} // 1)] } ref $with{price} ? $with{price}->@* : $with{price};
    my ($subscription, $invoice) = Billing::Stripe::Lifecycle::begin($account, customer => $customer, items => \@items, card => $card,
        metadata => $with{metadata}, billing_mode => $with{billing_mode} // $account->setting('billing_mode'),
        without_card => $with{without_card},
        trial_end => $with{trial_days} ? $account->now + $with{trial_days} * 86400 : undef);
    if ($invoice->{status} eq 'open' && ($with{status} // '') ne 'incomplete') {
        Billing::Stripe::Fulfilment::with_good_card($card, sub { Billing::Stripe::Invoices::attempt($account, $invoice) });
    }
    return $self->shown($subscription);
}

sub pay_invoice($self, %with) {
    my $invoice = $self->named('invoice', $with{invoice});
    Billing::Stripe::Invoices::pay($self->{account}, $invoice, out_of_band => $with{out_of_band});
    return $self->shown($invoice);
}

sub void_invoice($self, %with) {
    my $invoice = $self->named('invoice', $with{invoice});
    Billing::Stripe::Invoices::void($self->{account}, $invoice);
    return $self->shown($invoice);
}

sub new_card($self, %with) {
    my $customer = Billing::Stripe::Customers::living($self->{account}, $with{customer});
    my $behaviour = $with{declines} ? 'declines' : 'succeeds';
    return $self->shown(Billing::Stripe::Portal::new_card($self->{account}, $customer, $behaviour, pay => $with{pay}));
}

sub refund($self, %with) {
    my $charge = Billing::Stripe::Payments::charge_named($self->{account}, delete $with{of});
    return $self->shown(Billing::Stripe::Payments::refund($self->{account}, $charge, %with));
}

sub fail_refund($self, %with) {
    return $self->shown(Billing::Stripe::Payments::fail_refund($self->{account}, $self->named('refund', $with{refund}), $with{status}));
}

sub dispute($self, %with) {
    my $charge = Billing::Stripe::Payments::charge_named($self->{account}, delete $with{of});
    return $self->shown(Billing::Stripe::Payments::dispute($self->{account}, $charge, %with));
}

sub close_dispute($self, %with) {
    return $self->shown(Billing::Stripe::Payments::close_dispute($self->{account}, $self->named('dispute', $with{dispute}), $with{status}));
}

sub delete_customer($self, %with) { Billing::Stripe::Customers::remove($self->{account}, {}, $with{customer}) }

sub entitle($self, %with) {
    my $customer = Billing::Stripe::Customers::living($self->{account}, $with{customer});
    return copy(Billing::Stripe::Entitlements::entitle($self->{account}, $customer, $with{features}->@*));
}

sub meter($self, %with) { Billing::Stripe::Meters::make($self->{account}, $with{event_name}) }
sub meter_sum($self, %with) { Billing::Stripe::Meters::sum($self->{account}, $with{event_name}, $with{customer}) }

# --- time ---

sub now($self) { $self->{account}->now }

sub advance($self, %with) {
    return Billing::Stripe::Clock::advance($self->{account}, $with{to} // $self->{account}->now + $with{seconds});
}

# --- what is there ---

sub object($self, %with) { $self->shown($self->{account}{objects}{$with{id}}) }

sub all($self, %with) { [map { $self->shown($_) } grep { !$_->{deleted} } $self->{account}->all($with{type})] }

sub events($self, %with) {
    return [map { $self->shown($_) } grep { !defined $with{type} || $_->{type} eq $with{type} } $self->{account}{events}->@*];
}

# The types of the events after the first $since.
sub told($self, %with) {
    my @all = $self->{account}{events}->@*;
    return [map { $_->{type} } @all[$with{since} .. $#all]];
}

# An event of any kind: type, object => the data's object (or id => of one that is there), account, livemode, created, raw => bytes of
# the whole body.
sub emit($self, %with) {
    my $account = $self->{account};
    my $object = defined $with{id} ? $account->{objects}{$with{id}} // die "no object $with{id}\n" : $with{object} // {};
    my $tell = sub {
        my $held = $account->webhooks->{held};
        local $account->webhooks->{held} = 1;    # not before it is complete
        my $event = $account->emit($with{type}, $object, account => $with{account},
            (exists $with{livemode} ? (livemode => $with{livemode} ? true : false) : ()));
        $event->{_raw} = $with{raw} if defined $with{raw};
        return ($event, $held);
    };
    my ($event, $held) = defined $with{created} ? $account->at($with{created}, $tell) : $tell->();
    if (!$held) {
        $account->webhooks->send_by_itself($_) for grep { $_->{event} eq $event->{id} } $account->webhooks->{deliveries}->@*;
    }
    return $self->shown($event);
}

# --- webhooks ---

sub webhook_endpoint($self, %with) { copy($self->{account}->webhooks->add_endpoint(%with)) }

# A second secret for the endpoint; the old one signs as well until it is ended.
sub roll_secret($self, %with) {
    my $endpoint = $self->{account}->webhooks->endpoint($with{endpoint});
    if ($with{end}) {
        splice $endpoint->{secrets}->@*, 0, -1;
    } else {
        push $endpoint->{secrets}->@*, $with{secret} // $self->{account}->webhooks->new_secret;
    }
    return copy($endpoint);
}

sub remove_endpoint($self, %with) {
    $self->{account}->webhooks->endpoint($with{endpoint})->{disabled} = 1;
    return;
}

sub hold($self) { $self->{account}->webhooks->hold }
sub release($self, %with) { $self->{account}->webhooks->release(%with)->then(sub ($all) { [map { copy($_) } @$all] }) }

sub release_together($self, %with) {
    return $self->{account}->webhooks->release_together($with{times} // 1)->then(sub ($all) { [map { copy($_) } @$all] });
}

sub deliver_pending($self) { $self->{account}->webhooks->deliver_pending->then(sub ($all) { [map { copy($_) } @$all] }) }

sub event_named($self, $id) {
    my $event = $self->{account}{objects}{$id // ''};
    return $event && $event->{object} eq 'event' ? $event : die "no event $id\n";
}

sub deliver($self, %with) {
    my $event = $self->event_named(delete $with{id});
    return $self->{account}->webhooks->deliver($event, %with);
}

sub body($self, %with) { $self->{account}->webhooks->body($self->event_named($with{id}), $with{api_version} // $self->{account}{version}) }

sub deliveries($self, %with) {
    my @all = grep {
        my $delivery = $_;
        !grep { defined $with{$_} && $delivery->{$_} ne $with{$_} } qw(event type endpoint state)
    } $self->{account}->webhooks->{deliveries}->@*;
    return [map { copy($_) } @all];
}

sub retry($self, %with) {
    $self->{account}->webhooks->{retry} = $with{on};
    return;
}

sub webhook_timeout($self, %with) {
    $self->{account}->webhooks->{timeout} = $with{seconds};
    return;
}

# --- faults and the log of calls ---

sub fault($self, %with) { $self->{server}{faults}->add(%with) }
sub clear_faults($self) { $self->{server}{faults}->clear }

sub calls($self, %with) {
    return [grep {
        my $call = $_;
        (!defined $with{method} || $call->{method} eq $with{method})
            && (!defined $with{path} || Billing::Stripe::Faults::matches($with{path}, $call->{path}))
            && (!defined $with{status} || $call->{status} == $with{status})
    } $self->{api}->calls->@*];
}

sub clear_calls($self) {
    $self->{api}{log} = [];
    return;
}

sub close_port($self) { $self->{server}->close_port }
sub open_port($self) { $self->{server}->open_port }

1;
