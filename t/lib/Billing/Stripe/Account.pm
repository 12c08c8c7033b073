# One account at Stripe, in memory: its objects, its clock, its events. Objects are kept in the shape of API version 2026-02-25.clover;
# Versions renders them for older ones. Keys that begin with "_" are the stand-in's own and never leave it.
package Billing::Stripe::Account;
use v5.36;
use Billing::Stripe::Error qw(no_such);
use Billing::Stripe::Webhooks ();
use Exporter 'import';
use Mojo::JSON qw(true false);

our @EXPORT_OK = qw(copy);

# key => sk_test_..., version => of callers that name none and of the events list.
sub new($class, %option) {
    my $self = bless {
        key => $option{key}, version => $option{version}, objects => {}, order => {}, events => [], ahead => 0, request => undef,
        settings => {
            retry_days => [3, 5, 7],          # a failed renewal is tried again so many days after each failure
            after_retries => 'cancel',        # then: cancel | unpaid | past_due
            billing_mode => undef,            # of new subscriptions, whatever the caller's version: classic | flexible
        },
    }, $class;
    $self->{webhooks} = Billing::Stripe::Webhooks->new($self);
    return $self;
}

sub webhooks($self) { $self->{webhooks} }
sub setting($self, $name) { $self->{settings}{$name} }
sub livemode($self) { $self->{key} =~ /^[sr]k_live_/ ? true : false }
sub mode_name($self) { $self->livemode ? 'live' : 'test' }

# --- the clock: the real one and how far the test has moved it ---

sub now($self) { $self->{stands_at} // int(CORE::time) + $self->{ahead} }

# Runs $code with the clock standing at $time.
sub at($self, $time, $code) {
    local $self->{stands_at} = $time;
    return $code->();
}

sub move_to($self, $time) {
    $self->{ahead} = $time - int CORE::time;
    return;
}

# --- objects ---

my @letters = ('a' .. 'z', 'A' .. 'Z', 0 .. 9);

sub new_id($self, $prefix, $length = 24) { $prefix . join '', map { $letters[rand @letters] } 1 .. $length }

# Copies without what is the stand-in's own, unless keep => 1.
sub copy($value, %option) {
    return $value if !ref $value || ref $value eq 'JSON::PP::Boolean';
    return [map { copy($_, %option) } @$value] if ref $value eq 'ARRAY';
    return {map { $_ => copy($value->{$_}, %option) } grep { $option{keep} || !/^_/ } keys %$value};
}

sub add($self, $object) {
    $self->{objects}{$object->{id}} = $object;
    push $self->{order}{$object->{object}}->@*, $object;
    return $object;
}

# By id, whatever it is; undef when there is none.
sub find($self, $type, $id) {
    my $object = $self->{objects}{$id // ''};
    return $object && $object->{object} eq $type ? $object : undef;
}

# The same, or a refusal. %extra: status, param.
sub get($self, $type, $id, %extra) {
    return $self->find($type, $id) // no_such($type =~ s/.*\.//r, $id, %extra);
}

# All of a type, oldest first.
sub all($self, $type) { @{$self->{order}{$type} // []} }

# --- events ---

# Tells of an object as it is now; before => as it was, for previous_attributes.
sub emit($self, $type, $object, %option) {
    my $event = {
        id => $self->new_id('evt_1'), object => 'event', type => $type, created => $self->now,
        livemode => $option{livemode} // $self->livemode, account => $option{account},
        request => $self->{request} // {id => undef, idempotency_key => undef},
        _snapshot => copy($object, keep => 1), _before => $option{before},
    };
    if ($self->{telling}) {
        push $self->{telling}->@*, $event;
    } else {
        $self->tell($event);
    }
    return $event;
}

# Changes an object by $code and tells of it by $type, unless nothing changed.
sub change($self, $object, $type, $code) {
    my $before = copy($object, keep => 1);
    $code->($object);
    return $object if Mojo::JSON::encode_json(copy($before)) eq Mojo::JSON::encode_json(copy($object));
    $self->emit($type, $object, before => $before) if $type;
    return $object;
}

# Runs $code and tells of what happened in it by the rank of the types, equal ones in their own order.
sub in_order($self, $rank, $code) {
    my @told;
    {
        local $self->{telling} = \@told;
        $code->();
    }
    my @sorted = sort { ($rank->{$a->{type}} // 99) <=> ($rank->{$b->{type}} // 99) } @told;
    $self->tell($_) for @sorted;
    return;
}

sub tell($self, $event) {
    push $self->{events}->@*, $event;
    $self->{objects}{$event->{id}} = $event;
    $self->webhooks->publish($event);
    return;
}

# Events of the last 30 days, oldest first.
sub recent_events($self) {
    my $since = $self->now - 30 * 86400;
    return grep { $_->{created} >= $since } $self->{events}->@*;
}

1;
