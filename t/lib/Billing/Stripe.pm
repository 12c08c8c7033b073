# The stand-in for Stripe as tests use it: a process of its own, strict and stateful, that shares no code with the product.
#
#   my $stripe = Billing::Stripe->new(catalog => root() . '/conf/catalog.json');     # billing_stripe key=... api=URL
#   $stripe->webhook(url => 'http://' . $host->address . '/billing/webhook', secret => 'whsec_test');
#   my ($session) = $stripe->all('checkout.session');
#   $stripe->pay($session->{id});                     # what the customer does at $session->{url}
#   $stripe->wait_delivered;                          # every event has been answered with 2xx
#   $stripe->end_period(($stripe->all('subscription'))[-1]);
#
# Everything it knows is an API version 2026-02-25.clover shape; endpoints may ask for older ones. Control calls die when they are refused.
package Billing::Stripe;
use v5.36;
use Billing::Client qw(request);
use Billing::Process qw(wait_for free_port new_directory build slurp);
use JSON::PP ();

my $json = JSON::PP->new->utf8->canonical->boolean_values(0, 1);

# All optional: key (sk_test_...), version => of callers that name none (2026-02-25.clover), catalog => file or data: products and
# prices are made of it; portal => 0: no portal configuration has been saved; schemas => 0: only the stand-in's own rules (no npm);
# wrapper => [command], env => {}: for the process (faketime).
sub new($class, %option) {
    my $self = bless {
        key => $option{key} // 'sk_test_' . join('', map { ('a' .. 'z', 0 .. 9)[rand 36] } 1 .. 24),
        version => $option{version} // '2026-02-25.clover',
        port => free_port(), control_port => free_port(), directory => new_directory(), option => \%option,
    }, $class;
    my $schemas = schema_file();
    die "$schemas is missing: run script/stripe-schemas\n" if ($option{schemas} // 1) && !-s $schemas;
    my $file = "$self->{directory}/stripe.json";
    open my $out, '>:raw', $file or die "$file: $!\n";
    print $out $json->encode({map({ $_ => $self->{$_} } qw(key version port control_port)), portal => $option{portal} // 1,
        schemas => $option{schemas} // 1 ? $schemas : undef});
    close $out or die "$file: $!\n";
    $self->{process} = Billing::Process->start(
        name => 'stand-in for Stripe', log => "$self->{directory}/stripe.log", env => $option{env},
        command => [@{$option{wrapper} // []}, $^X, (map { "-I$_" } @INC), '-MBilling::Stripe::Server', '-e',
            'Billing::Stripe::Server::serve(@ARGV)', '--', $file],
    );
    $self->{process}->await(sub { eval { $self->now } }, 10, 'the stand-in for Stripe answers');
    $self->catalog($option{catalog}) if $option{catalog};
    return $self;
}

sub schema_file() { build() . '/stripe-schemas.json' }

sub key($self) { $self->{key} }
sub address($self) { "127.0.0.1:$self->{port}" }
sub url($self) { 'http://' . $self->address }
sub process($self) { $self->{process} }
sub log_text($self) { $self->{process}->log_text }
sub stop($self) { $self->{process}->stop }
sub pause($self) { $self->{process}->pause }      # SIGSTOP: connections are accepted by the kernel, nothing is answered
sub resume($self) { $self->{process}->resume }

# --- requests, as any client makes them ---

# A call of the API: {status, json, header(...)} as Billing::Client answers it. params nested as Perl data; headers override.
sub api($self, $method, $path, $params = {}, %headers) {
    my $form = form($params);
    my %all = (Authorization => "Bearer $self->{key}", 'Stripe-Version' => $self->{version}, %headers);
    return request($self->address, $method, length $form ? "$path?$form" : $path, headers => \%all) if $method ne 'POST';
    return request($self->address, $method, $path, body => $form, headers => {'Content-Type' => 'application/x-www-form-urlencoded', %all});
}

# a[b][0][c]=v of nested data; keys in order.
sub form($params, $prefix = undef) {
    my @parts;
    my @pairs = ref $params eq 'ARRAY' ? map { [$_, $params->[$_]] } 0 .. $#$params : map { [$_, $params->{$_}] } sort keys %$params;
    for my $pair (@pairs) {
        my ($key, $value) = @$pair;
        my $name = defined $prefix ? "${prefix}[$key]" : $key;
        push @parts, ref $value ? form($value, $name) : escaped($name) . '=' . escaped($value // '');
    }
    return join '&', grep { length } @parts;
}

sub escaped($text) {
    utf8::encode($text = "$text");
    return $text =~ s/([^A-Za-z0-9_.~-])/sprintf '%%%02X', ord $1/ger;
}

# The hosted pages: visit($session->{url}); press($session->{url}, do => 'pay', by => 'card') as a browser would post it.
sub visit($self, $url) { request($self->address, 'GET', path_of($url)) }

sub press($self, $url, %form) {
    return request($self->address, 'POST', path_of($url), body => form(\%form),
        headers => {'Content-Type' => 'application/x-www-form-urlencoded'});
}

sub path_of($url) { $url =~ s{^https?://[^/]+}{}r }

# --- control ---

sub control($self, $name, %with) {
    my $answer = request("127.0.0.1:$self->{control_port}", 'POST', '/', body => $json->encode({call => $name, with => \%with}));
    die "the stand-in for Stripe does not answer ($name): " . ($answer->failure // $answer->body) . "\n" if $answer->status != 200;
    die "stand-in for Stripe, $name: $answer->{json}{error}\n" if defined $answer->json->{error};
    return $answer->json->{result};
}

# What is for sale. product(name => ..., id => ...); price(amount => 2900, currency => 'usd', interval => 'month', id, product => name
# or id, lookup_key, active, meter); archive($price_id): inactive; catalog(file or data as conf/catalog.json).
sub product($self, %with) { $self->control('product', %with) }
sub price($self, %with) { $self->control('price', %with) }
sub archive($self, $price) { $self->control('archive', price => $price) }
sub catalog($self, $catalog) { $self->control('catalog', catalog => ref $catalog ? $catalog : $json->decode(slurp($catalog))) }

# is_default => 1, active => 0, default_return_url, without => ['subscription_cancel', ...]
sub portal_configuration($self, %with) { $self->control('portal_configuration', %with) }

# retry_days => [3, 5, 7], after_retries => cancel | unpaid | past_due, billing_mode => classic | flexible. Answers all.
sub settings($self, %with) { $self->control('settings', %with) }

# A checkout session is paid. card => 'declines': refused; later => 'declines': paid now, the card fails at the renewal;
# delayed => 1: completed but unpaid until settle_later (status => of the subscription meanwhile: incomplete).
sub pay($self, $session, %with) { $self->control('pay', %with, session => $session) }
sub settle_later($self, $session, $well) { $self->control('settle_later', session => $session, well => $well ? 1 : 0) }

# In the portal: cancel (at the period's end, in the subscription's billing mode), cancel_now, keep, change_plan.
sub cancel($self, $subscription) { $self->control('portal', subscription => $subscription, action => 'cancel') }
sub cancel_now($self, $subscription) { $self->control('portal', subscription => $subscription, action => 'cancel_now') }
sub keep($self, $subscription) { $self->control('portal', subscription => $subscription, action => 'keep') }
sub change_plan($self, $subscription, $price, %with) { $self->control('portal', %with, subscription => $subscription,
    action => 'change_plan', price => $price) }

# A subscription made outside Checkout: price (one or several), metadata, trial_days, card => declines | none, quantity,
# status => 'incomplete', billing_mode.
sub subscribe($self, $customer, %with) { $self->control('subscribe', %with, customer => $customer) }

# A new card for the customer, charged at once for what is open (pay => 0: not). declines => 1: one that fails.
sub new_card($self, $customer, %with) { $self->control('new_card', %with, customer => $customer) }
sub pay_invoice($self, $invoice, %with) { $self->control('pay_invoice', %with, invoice => $invoice) }    # out_of_band => 1
sub void_invoice($self, $invoice) { $self->control('void_invoice', invoice => $invoice) }

# of: a charge, payment intent, invoice or checkout session. refund: amount, reason; fail_refund: failed | canceled.
# dispute: amount; close_dispute: won | lost.
sub refund($self, $of, %with) { $self->control('refund', %with, of => $of) }
sub fail_refund($self, $refund, $status = 'failed') { $self->control('fail_refund', refund => $refund, status => $status) }
sub dispute($self, $of, %with) { $self->control('dispute', %with, of => $of) }
sub close_dispute($self, $dispute, $status) { $self->control('close_dispute', dispute => $dispute, status => $status) }
sub delete_customer($self, $customer) { $self->control('delete_customer', customer => $customer) }

# From now on the customer has exactly the features with these lookup keys.
sub entitle($self, $customer, @features) { $self->control('entitle', customer => $customer, features => \@features) }

sub meter($self, $event_name) { $self->control('meter', event_name => $event_name) }
sub meter_sum($self, $event_name, $customer) { $self->control('meter_sum', event_name => $event_name, customer => $customer) }

# --- time ---

# Stripe's clock: the real one (or the process's faked one) and what advance has added. Each moves on; what is due happens in order.
sub now($self) { $self->control('now') }
sub advance($self, @how) { $self->control('advance', @how == 1 ? (seconds => $how[0]) : @how) }    # advance(3600), advance(to => $time)

# The subscription's current period ends, and the hour passes after which a renewal is charged.
sub end_period($self, $subscription) {
    $subscription = $self->object(ref $subscription ? $subscription->{id} : $subscription);
    my ($end) = sort { $b <=> $a } map { $_->{current_period_end} } $subscription->{items}{data}->@*;
    $self->advance(to => $end + 3601);
    return $self->object($subscription->{id});
}

# --- what is there ---

sub object($self, $id) { $self->control('object', id => $id) }
sub all($self, $type) { $self->control('all',
    type => $type)->@* }                                    # oldest first: 'subscription', 'checkout.session' ...
sub events($self, $type = undef) { $self->control('events', defined $type ? (type => $type) : ())->@* }    # oldest first

# The types of the events since the last time this was asked, oldest first.
sub told($self) {
    my @new = $self->control('told', since => $self->{told} // 0)->@*;
    $self->{told} += @new;
    return @new;
}

# An event that Stripe might send and nothing here makes: emit('customer.updated', id => 'cus_...'), emit('x.y', object => {...},
# account => 'acct_...', livemode => 1, created => time, raw => bytes of the whole body).
sub emit($self, $type, %with) { $self->control('emit', %with, type => $type) }

# --- webhooks ---

# url, secret (made up), api_version => '2022-11-15', events => ['*']. Answers {id, secrets => [...]}.
sub webhook($self, %with) { $self->control('webhook_endpoint', %with) }
sub remove_webhook($self, $endpoint) { $self->control('remove_endpoint', endpoint => $endpoint) }

# A roll: from now on each delivery is signed with the old secret and the new one; end => 1 ends the old one.
sub roll_secret($self, $endpoint, %with) { $self->control('roll_secret', %with, endpoint => $endpoint) }

# From now on nothing is sent; release sends what was held, one after the other: order => [2, 0, 1] | 'reverse', only => [types],
# times => 2 (each), keep => 1 (hold on). release_together sends all at the same time, each $times times.
sub hold($self) { $self->control('hold') }
sub release($self, %with) { $self->control('release', %with)->@* }
sub release_together($self, $times = 1) { $self->control('release_together', times => $times)->@* }

# By hand what has failed or waits (retries by themselves come after 50 ms, doubling, fifteen times; retry(0): never).
sub deliver_pending($self) { $self->control('deliver_pending')->@* }
sub retry($self, $on) { $self->control('retry', on => $on ? 1 : 0) }
sub webhook_timeout($self, $seconds) { $self->control('webhook_timeout', seconds => $seconds) }

# An event (id) once more. Returns the attempts {status, body, signature, seconds, error}. times => 3; endpoint => id or url; and for what
# must be refused: secret => another, offset => -301 (seconds), header => the whole signature (undef: none), body => bytes (signed as
# they are), sign => bytes signed instead, api_version, event => {fields to override}.
sub deliver($self, $event, %with) { $self->control('deliver', %with, id => ref $event ? $event->{id} : $event)->@* }

# The bytes that are sent for an event.
sub body($self, $event, %with) { $self->control('body', %with, id => ref $event ? $event->{id} : $event) }

# {id, event, type, endpoint, state => held | waiting | sending | delivered | failed | demanded, attempts => [{at, status, body, ...}]}
sub deliveries($self, %with) { $self->control('deliveries', %with)->@* }

# Returns the deliveries when all (or those with type, event, endpoint) that are not held have been answered with 2xx.
sub wait_delivered($self, %with) {
    my $seconds = delete $with{within} // 10;
    my @all;
    wait_for(sub {
        @all = $self->deliveries(%with);
        return !grep { $_->{state} =~ /^(?:waiting|sending|failed)$/ } @all;
    }, $seconds, 'all events are delivered: ' . join ', ', map { "$_->{type} $_->{state}" } grep { $_->{state} ne 'delivered' } @all);
    return @all;
}

# --- faults, the log of calls ---

# See Billing::Stripe::Faults: fault(status => 500), fault(path => '/v1/customers', count => 2, drop => 1, after => 1) ...
sub fault($self, %with) { $self->control('fault', %with) }
sub clear_faults($self) { $self->control('clear_faults') }
sub close_port($self) { $self->control('close_port') }    # connections are refused
sub open_port($self) { $self->control('open_port') }      # and accepted again

# {method, path, route, params, headers, status, error, fault, replayed, request_id, answer_id}; method, path (text or /regex/), status.
sub calls($self, %with) { $self->control('calls', %with)->@* }
sub clear_calls($self) { $self->control('clear_calls') }

1;
