# Faults on demand: what the next calls meet instead of, before or after being carried out.
#   count => 1 (0: until cleared), path => text or /regex/ of the address, method => 'POST'; and one or more of
#   status => 500 with type, code, message, should_retry => 1|0 (Stripe-Should-Retry), retry_after => seconds, saved => 1 (kept for the
#     idempotency key, as Stripe keeps a 500)
#   delay => seconds; hang => 1: no answer; drop => 1: the connection is closed; garbage => text: a 200 with that for a body
#   after => 1: the call is carried out first
package Billing::Stripe::Faults;
use v5.36;

sub new($class) { bless {all => []}, $class }

sub add($self, %fault) {
    push $self->{all}->@*, {count => 1, %fault};
    return;
}

sub clear($self) {
    $self->{all} = [];
    return;
}

# The fault that this call meets, used up by it; undef for none.
sub take($self, $method, $path) {
    for my $fault ($self->{all}->@*) {
        next if defined $fault->{method} && $fault->{method} ne $method;
        next if defined $fault->{path} && !matches($fault->{path}, $path);
        $self->{all} = [grep { $_ != $fault } $self->{all}->@*] if $fault->{count} && !--$fault->{count};
        return $fault;
    }
    return undef;
}

# A text is the whole path, /.../ a regular expression.
sub matches($wanted, $path) { $wanted =~ m{^/(.*)/$} && $wanted !~ m{^/v1/} ? $path =~ /$1/ : $path eq $wanted }

my %types = (400 => 'invalid_request_error', 401 => 'invalid_request_error', 402 => 'card_error', 403 => 'invalid_request_error',
    404 => 'invalid_request_error', 409 => 'idempotency_error', 429 => 'invalid_request_error');
my %codes = (429 => 'rate_limit', 409 => 'lock_timeout', 402 => 'card_declined');

# Status, headers and body of the answer that a fault gives.
sub answer($fault) {
    my $status = $fault->{status};
    my %headers;
    $headers{'Stripe-Should-Retry'} = $fault->{should_retry} ? 'true' : 'false' if defined $fault->{should_retry};
    $headers{'Retry-After'} = $fault->{retry_after} if defined $fault->{retry_after};
    my $code = $fault->{code} // $codes{$status};
    return ($status, \%headers, {error => {
        type => $fault->{type} // $types{$status} // 'api_error', (defined $code ? (code => $code) : ()),
        message => $fault->{message} // 'An unknown error occurred. (asked for by the test)',
    }});
}

1;
