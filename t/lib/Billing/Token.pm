# Keys and bearer tokens (JWT) for tests, made by the program openssl: good ones, and every bad one that a test can describe.
#   my $key = Billing::Token->new('RS256', kid => 'one');
#   my $token = $key->token({sub => 'demo', exp => time + 60}, header => {...}, alg => 'RS256');
#   Billing::Token::jwks($key, $other)    # the document that a server of keys gives
package Billing::Token;
use v5.36;
use Billing::Process qw(new_directory slurp);
use Digest::SHA qw(hmac_sha256);
use JSON::PP ();
use MIME::Base64 qw(encode_base64url);

my $json = JSON::PP->new->canonical->utf8;

# ES256, RS256 (option bits) or HS256 (option secret).
sub new($class, $alg, %option) {
    my $self = bless {alg => $alg, %option}, $class;
    return $self if $alg eq 'HS256';
    $self->{file} = new_directory() . '/key.pem';
    my @kind = $alg eq 'ES256' ? ('EC', '-pkeyopt', 'ec_paramgen_curve:' . ($option{curve} // 'P-256')) : ('RSA', '-pkeyopt', 'rsa_keygen_bits:' . ($option{bits} // 2048));
    run('openssl', 'genpkey', '-algorithm', @kind, '-out', $self->{file});
    return $self;
}

sub run(@command) {
    open my $out, '-|', "@{[map { quotemeta } @command]} 2>/dev/null" or die "@command: $!\n";
    binmode $out;
    local $/;
    my $text = <$out>;
    close $out or die "@command fails\n";
    return $text;
}

# The public part as a JWK; members given here replace its own (undef removes one).
sub jwk($self, %members) {
    my %jwk = $self->{alg} eq 'RS256' ? $self->rsa : $self->p256;
    %jwk = (%jwk, use => 'sig', alg => $self->{alg}, ($self->{kid} ? (kid => $self->{kid}) : ()), %members);
    return {map { $_ => $jwk{$_} } grep { defined $jwk{$_} } keys %jwk};
}

sub rsa($self) {
    my ($modulus) = run('openssl', 'rsa', '-in', $self->{file}, '-noout', '-modulus') =~ /Modulus=([0-9A-F]+)/;
    return (kty => 'RSA', n => encode_base64url(pack 'H*', $modulus), e => 'AQAB');
}

sub p256($self) {
    my $point = substr run('openssl', 'pkey', '-in', $self->{file}, '-pubout', '-outform', 'DER'), -64;
    return (kty => 'EC', crv => 'P-256', x => encode_base64url(substr $point, 0, 32), y => encode_base64url(substr $point, 32));
}

sub public_pem($self) { run('openssl', 'pkey', '-in', $self->{file}, '-pubout') }

sub jwks(@keys) { $json->encode({keys => [map { ref $_ eq 'HASH' ? $_ : $_->jwk } @keys]}) }

sub part($value) { encode_base64url(ref $value ? $json->encode($value) : $value) }

# Claims as data or as JSON text; header => members that replace ours (undef removes one) or a whole JSON text.
sub token($self, $claims, %option) {
    my $header = $option{header} // {};
    if (ref $header) {
        my %all = (alg => $self->{alg}, typ => 'JWT', ($self->{kid} ? (kid => $self->{kid}) : ()), %$header);
        $header = {map { $_ => $all{$_} } grep { defined $all{$_} } keys %all};
    }
    my $signed = part($header) . '.' . part($claims);
    return "$signed." . encode_base64url($self->sign($signed));
}

sub sign($self, $text) {
    return hmac_sha256($text, $self->{secret}) if $self->{alg} eq 'HS256';
    my $input = new_directory() . '/input';
    open my $out, '>:raw', $input or die $!;
    print $out $text;
    close $out;
    my $signature = run('openssl', 'dgst', '-sha256', '-sign', $self->{file}, $input);
    return $signature if $self->{alg} eq 'RS256';
    my ($r, $s) = $signature =~ /^\x30.\x02(.)/s ? unpack 'x2 x C/a x C/a', $signature : die;
    return join '', map { substr "\0" x 32 . $_, -32 } $r, $s;
}

1;
