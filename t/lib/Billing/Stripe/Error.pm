# A refusal as Stripe words it: {"error": {type, code, message, param, decline_code}} with an HTTP status. Thrown by everything in the
# stand-in that refuses, answered by Server.
package Billing::Stripe::Error;
use v5.36;
use Exporter 'import';

our @EXPORT_OK = qw(refuse missing_parameter unknown_parameter no_such exclusive caught);

# Dies with the error. %extra: status (400), type (invalid_request_error), code, param, decline_code.
sub refuse($message, %extra) {
    die bless {status => 400, type => 'invalid_request_error', %extra, message => $message}, __PACKAGE__;
}

sub missing_parameter($param) {
    refuse("Missing required param: $param.", code => 'parameter_missing', param => $param);
}

sub unknown_parameter(@names) {
    my $plural = @names > 1 ? 's' : '';
    refuse("Received unknown parameter$plural: " . join(', ', @names), code => 'parameter_unknown', param => $names[0]);
}

# An id that names nothing: 404 when it stands in the address, 400 when it stands in a parameter.
sub no_such($what, $id, %extra) {
    refuse("No such $what: '$id'", code => 'resource_missing', %extra);
}

# More than one of these parameters is set.
sub exclusive(@names) {
    refuse('You may only specify one of these parameters: ' . join(', ', @names) . '.', param => $names[0]);
}

# The error that was thrown, or undef when something else died.
sub caught($thrown) { ref $thrown && eval { $thrown->isa(__PACKAGE__) } ? $thrown : undef }

sub status($self) { $self->{status} }

sub body($self, $request_id) {
    my %error = (type => $self->{type}, message => $self->{message});
    for my $name (qw(code param decline_code)) {
        $error{$name} = $self->{$name} if defined $self->{$name};
    }
    $error{doc_url} = 'https://stripe.com/docs/error-codes/' . ($self->{code} =~ tr/_/-/r) if $self->{code};
    $error{request_log_url} = "https://dashboard.stripe.com/test/logs/$request_id" if $request_id;
    return {error => \%error};
}

1;
