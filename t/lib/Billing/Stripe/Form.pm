# Form bodies and query strings as Stripe reads them: a[b][0][c]=v becomes nested hashes. Digits stay keys of hashes here: whether
# {0 => ..., 1 => ...} is a list only the schema knows (Billing::Stripe::Schema turns it into one).
package Billing::Stripe::Form;
use v5.36;
use Billing::Stripe::Error qw(refuse);
use Exporter 'import';

our @EXPORT_OK = qw(decode_form);

my $deepest = 10;

sub decode_form($text) {
    my %form;
    for my $pair (split /&/, $text) {
        next if $pair eq '';
        my ($name, $value) = map { decode_part($_) } split /=/, $pair, 2;
        $value //= '';
        my ($top, $rest) = $name =~ /^([^\[\]]+)((?:\[[^\[\]]*\])*)$/ or refuse("Invalid parameter name: $name", param => $name);
        my @keys = ($top, $rest =~ /\[([^\[\]]*)\]/g);
        refuse("Parameters are nested too deep: $name", param => $name) if @keys > $deepest;
        put(\%form, $name, $value, @keys);
    }
    return \%form;
}

sub decode_part($text) {
    $text =~ tr/+/ /;
    refuse('Invalid percent-encoding in the request') if $text =~ /%(?![0-9A-Fa-f]{2})/;
    $text =~ s/%([0-9A-Fa-f]{2})/chr hex $1/ge;
    utf8::decode($text) or refuse('Invalid UTF-8 in the request') if $text =~ /[^\x00-\x7f]/;
    return $text;
}

sub put($hash, $name, $value, $key, @more) {
    $key = keys %$hash if $key eq '';    # a[]=x appends
    if (!@more) {
        refuse("Parameter $name is both a value and a hash", param => $name) if ref $hash->{$key};
        $hash->{$key} = $value;
        return;
    }
    refuse("Parameter $name is both a value and a hash", param => $name) if defined $hash->{$key} && !ref $hash->{$key};
    put($hash->{$key} //= {}, $name, $value, @more);
    return;
}

1;
