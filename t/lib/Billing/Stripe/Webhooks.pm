# Deliveries of events to endpoints: at once and again after a failure, or held back and sent when, how often and in which order a test
# says; signed as Stripe signs, or wrongly on demand. All of it is recorded.
package Billing::Stripe::Webhooks;
use v5.36;
use Billing::Stripe::Versions ();
use Digest::SHA qw(hmac_sha256_hex);
use List::Util qw(any);
use Mojo::IOLoop ();
use Mojo::JSON qw(encode_json);
use Mojo::Promise ();
use Mojo::UserAgent ();
use Scalar::Util qw(weaken);
use Time::HiRes ();

my @back_off = (0.05, 0.1, 0.2, 0.4, 0.8, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2);    # seconds, after each failure

sub new($class, $account) {
    my $self = bless {account => $account, endpoints => [], deliveries => [], held => 0, retry => 1, timeout => 5}, $class;
    weaken $self->{account};
    return $self;
}

sub agent($self) {
    return $self->{agent} //= Mojo::UserAgent->new(max_redirects => 0, max_connections => 0, connect_timeout => 5,
        inactivity_timeout => 60);
}

# --- endpoints ---

# url, secret (or secrets => [...] while one is rolled), api_version => (the account's), events => ['*'], disabled => 0
sub add_endpoint($self, %option) {
    my $endpoint = {
        id => $self->{account}->new_id('we_1'), url => $option{url}, secrets => $option{secrets} // [$option{secret} // $self->new_secret],
        api_version => $option{api_version} // $self->{account}{version}, events => $option{events} // ['*'],
        disabled => $option{disabled} // 0,
    };
    Billing::Stripe::Versions::known($endpoint->{api_version}) or die "no API version $endpoint->{api_version}\n";
    push $self->{endpoints}->@*, $endpoint;
    return $endpoint;
}

sub new_secret($self) { $self->{account}->new_id('whsec_', 32) }

sub endpoint($self, $id) {
    my ($endpoint) = grep { $_->{id} eq $id || $_->{url} eq $id } $self->{endpoints}->@*;
    return $endpoint // die "no webhook endpoint $id\n";
}

sub listens($endpoint, $type) { !$endpoint->{disabled} && any { $_ eq '*' || $_ eq $type } $endpoint->{events}->@* }

# --- deliveries ---

# One record for each event and endpoint that wants it: {id, event, type, endpoint, state, attempts => [...]}; state: held, waiting,
# sending, delivered, failed.
sub publish($self, $event) {
    my @wanted = grep { listens($_, $event->{type}) } $self->{endpoints}->@*;
    $event->{pending_webhooks} = @wanted;
    for my $endpoint (@wanted) {
        my $delivery = {
            id => scalar $self->{deliveries}->@*, event => $event->{id}, type => $event->{type}, endpoint => $endpoint->{id},
            state => $self->{held} ? 'held' : 'waiting', attempts => [], _event => $event, _endpoint => $endpoint,
        };
        push $self->{deliveries}->@*, $delivery;
        $self->send_by_itself($delivery) if !$self->{held};
    }
    return;
}

# Not in this turn of the loop: what told of the event answers first.
sub send_by_itself($self, $delivery, $after = 0) {
    $delivery->{state} = 'waiting';
    Mojo::IOLoop->timer($after => sub { $self->send_once($delivery) if $delivery->{state} eq 'waiting' });
    return;
}

# One attempt; then others by themselves as long as it fails, if that is wanted. Resolves to the attempt.
sub send_once($self, $delivery, %option) {
    $delivery->{state} = 'sending' if $delivery->{state} ne 'delivered';
    return $self->attempt($delivery->{_event}, $delivery->{_endpoint}, %option)->then(sub ($attempt) {
        push $delivery->{attempts}->@*, $attempt;
        return $attempt if $delivery->{state} eq 'delivered';
        if ($attempt->{status} =~ /^2/) {
            $delivery->{_event}{pending_webhooks}--;
            $delivery->{state} = 'delivered';
            return $attempt;
        }
        $delivery->{state} = 'failed';
        my $pause = $back_off[$delivery->{attempts}->@* - 1];
        $self->send_by_itself($delivery, $pause) if $self->{retry} && defined $pause;
        return $attempt;
    });
}

# Sends an event to an endpoint. Options for what is not as it should be: secret, offset (seconds added to the timestamp), header
# (the whole Stripe-Signature), body (bytes sent; they are signed unless sign => bytes), api_version, event => fields to override.
sub attempt($self, $event, $endpoint, %option) {
    my $body = $option{body} // $self->body($event, $option{api_version} // $endpoint->{api_version}, $option{event});
    my $time = int(Time::HiRes::time()) + ($option{offset} // 0);
    my @secrets = defined $option{secret} ? $option{secret} : $endpoint->{secrets}->@*;
    my $signature = exists $option{header} ? $option{header} : signature($option{sign} // $body, $time, @secrets);
    my %headers = ('User-Agent' => 'Stripe/1.0 (+https://stripe.com/docs/webhooks)', Accept => '*/*; q=0.5, application/xml',
        'Cache-Control' => 'no-cache', 'Content-Type' => 'application/json; charset=utf-8',
        (defined $signature ? ('Stripe-Signature' => $signature) : ()));
    my $begun = Time::HiRes::time();
    my %attempt = (at => $begun, signature => $signature, bytes => length $body);
    my $transaction = $self->agent->build_tx(POST => $endpoint->{url} => \%headers => $body);
    my $answered = $self->agent->start_p($transaction)->then(
        sub ($done) { answer_of($done->res) },
        sub ($error) { {status => 0, error => "$error"} });
    my $late = Mojo::Promise->timer($self->{timeout} => {status => 0, error => "no answer within $self->{timeout} s"});
    return Mojo::Promise->race($answered, $late)->then(sub ($answer) {
        Mojo::IOLoop->remove($transaction->connection) if !$answer->{status} && $transaction->connection;
        return {%attempt, %$answer, seconds => Time::HiRes::time() - $begun};
    });
}

sub answer_of($response) {
    my $headers = $response->headers;
    return {status => 0 + $response->code, body => $response->body, headers => {map { lc($_) => $headers->header($_) } $headers->names->@*}};
}

# t=..., v1=... for each secret; the whole secret is the key, its prefix too.
sub signature($body, $time, @secrets) {
    return join ',', "t=$time", map { 'v1=' . hmac_sha256_hex("$time.$body", $_) } @secrets;
}

# The bytes of an event in an API version; the same bytes each time.
sub body($self, $event, $version, $override = undef) {
    return $event->{_raw} if defined $event->{_raw};
    return encode_json({Billing::Stripe::Versions::event($self->{account}, $event, $version)->%*, %$override}) if $override;
    return $event->{_bodies}{$version} //= encode_json(Billing::Stripe::Versions::event($self->{account}, $event, $version));
}

# --- on demand ---

sub pending($self, $event) { $event->{pending_webhooks} ? 1 : 0 }

sub hold($self) {
    $self->{held} = 1;
    return;
}

# Sends what is held, one after the other: order => [places], 'reverse', or undef as told; only => types; times => how often each
# (2: every one repeated at once, one more time). Resolves to the deliveries sent. Later events go out at once again, unless keep => 1.
sub release($self, %option) {
    $self->{held} = 0 if !$option{keep};
    my @held = grep { $_->{state} eq 'held' } $self->{deliveries}->@*;
    my %only = map { $_ => 1 } @{$option{only} // []};
    @held = grep { $only{$_->{type}} } @held if %only;
    my $order = $option{order} // [0 .. $#held];
    $order = [reverse 0 .. $#held] if $order eq 'reverse';
    my @sequence = map { my $delivery = $held[$_] // die "only " . @held . " deliveries are held\n"; ($delivery) x ($option{times} // 1) } @$order;
    return $self->one_by_one(\@sequence, \@held);
}

sub one_by_one($self, $sequence, $result) {
    my $promise = Mojo::Promise->resolve;
    for my $delivery (@$sequence) {
        $promise = $promise->then(sub { $self->send_once($delivery) });
    }
    return $promise->then(sub { $result });
}

# All at the same time: $times deliveries of each.
sub release_together($self, $times = 1) {
    $self->{held} = 0;
    my @held = grep { $_->{state} eq 'held' } $self->{deliveries}->@*;
    my @all = map { my $delivery = $_; map { $self->send_once($delivery) } 1 .. $times } @held;
    return @all ? Mojo::Promise->all(@all)->then(sub { \@held }) : Mojo::Promise->resolve([]);
}

# Now, what has failed or waits (retry by hand); resolves to the deliveries sent.
sub deliver_pending($self) {
    my @pending = grep { $_->{state} =~ /^(?:failed|waiting)$/ } $self->{deliveries}->@*;
    return $self->one_by_one(\@pending, \@pending);
}

# An event once more, or for the first time, to one endpoint or all; with attempt's options. What is sent so is recorded as "demanded"
# and never sent again by itself. Resolves to the attempts.
sub deliver($self, $event, %option) {
    my @endpoints = defined $option{endpoint} ? $self->endpoint($option{endpoint}) : $self->{endpoints}->@*;
    my @attempts;
    my $promise = Mojo::Promise->resolve;
    for my $endpoint ((@endpoints) x ($option{times} // 1)) {
        $promise = $promise->then(sub { $self->attempt($event, $endpoint, %option) })->then(sub ($attempt) {
            push @attempts, $attempt;
            push $self->{deliveries}->@*, {
                id => scalar $self->{deliveries}->@*, event => $event->{id}, type => $event->{type}, endpoint => $endpoint->{id},
                state => 'demanded', attempts => [$attempt], _event => $event, _endpoint => $endpoint,
            };
        });
    }
    return $promise->then(sub { \@attempts });
}

1;
