# The tests' HTTP client: sends what it is told, once (no retry, no redirect), one connection for each request, many at a time.
package Billing::Client;
use v5.36;
use Billing::Process qw(patience);
use Exporter 'import';
use IO::Select ();
use IO::Socket::INET ();
use Time::HiRes ();

our @EXPORT_OK = qw(request requests);

my $limit = 30;    # seconds without an answer

# $address host:port; %option headers => {}, body => text. Returns a Billing::Client::Response.
sub request($address, $method, $path, %option) {
    return (requests(1, {%option, address => $address, method => $method, path => $path}))[0];
}

# Sends all requests ({address, method, path, headers, body}), at most $concurrency at a time; answers in the same order.
sub requests($concurrency, @all) {
    local $SIG{PIPE} = 'IGNORE';
    my ($reading, $writing) = (IO::Select->new, IO::Select->new);
    my (@answers, %open);
    my $next = 0;
    while ($next < @all || %open) {
        while ($next < @all && keys %open < $concurrency) {
            my $exchange = begin($all[$next], $next++);
            if (!$exchange->{socket}) {
                $answers[$exchange->{index}] = Billing::Client::Response->parse($exchange);
                next;
            }
            $open{fileno $exchange->{socket}} = $exchange;
            $writing->add($exchange->{socket});
        }
        my ($readable, $writable) = IO::Select::select($reading, $writing, undef, 0.1);
        for my $socket (@{$writable // []}) {
            my $exchange = $open{fileno $socket};
            my $sent = syswrite $socket, $exchange->{out};
            substr($exchange->{out}, 0, $sent) = '' if $sent;
            next if defined $sent ? length $exchange->{out} : $!{EAGAIN};
            $exchange->{failure} = "$!" if !defined $sent;
            $writing->remove($socket);    # all sent, or refused: reading tells
            $reading->add($socket);
        }
        for my $socket (@{$readable // []}) {
            my $exchange = $open{fileno $socket};
            my $got = sysread $socket, $exchange->{in}, 65536, length $exchange->{in};
            next if $got || !defined $got && $!{EAGAIN};
            $exchange->{failure} //= "$!" if !defined $got;
            finish($exchange, \@answers, \%open, $reading, $writing);
        }
        for my $exchange (values %open) {
            next if Time::HiRes::time() < $exchange->{deadline};
            $exchange->{failure} = "no answer within $limit s";
            finish($exchange, \@answers, \%open, $reading, $writing);
        }
    }
    return @answers;
}

sub begin($request, $index) {
    my $socket = IO::Socket::INET->new(PeerAddr => $request->{address}, Blocking => 0);
    my $body = $request->{body} // '';
    my %headers = (Host => 'localhost', Connection => 'close', %{$request->{headers} // {}});
    $headers{'Content-Length'} //= length $body if !$headers{'Transfer-Encoding'} && (length $body || $request->{method} !~ /^(?:GET|HEAD)$/);
    my $head = join '', map { my $name = $_; map { "$name: $_\r\n" } ref $headers{$name} ? $headers{$name}->@* : $headers{$name} }
        sort keys %headers;
    my $now = Time::HiRes::time();
    return {
        index => $index, socket => $socket, failure => $socket ? undef : "connect: $!", in => '', begun => $now, deadline => $now + $limit * patience(),
        out => "$request->{method} $request->{path} HTTP/1.1\r\n$head\r\n$body",
    };
}

sub finish($exchange, $answers, $open, $reading, $writing) {
    delete $open->{fileno $exchange->{socket}};
    $reading->remove($exchange->{socket});
    $writing->remove($exchange->{socket});
    close $exchange->{socket};
    $answers->[$exchange->{index}] = Billing::Client::Response->parse($exchange);
    return;
}

# status (0: no answer, see failure), header($name), body, json, seconds.
package Billing::Client::Response;
use JSON::PP ();

sub parse($class, $exchange) {
    my $self = bless {status => 0, headers => {}, body => '', failure => $exchange->{failure}}, $class;
    $self->{seconds} = Time::HiRes::time() - $exchange->{begun};
    my ($head, $body) = ($exchange->{in} =~ /^(.*?)\r\n\r\n(.*)/s);
    $head //= '';
    if ($head =~ s{^HTTP/1\.\d (\d{3})[^\r]*(?:\r\n|$)}{}) {
        $self->{status} = $1;
        for (split /\r\n/, $head) {
            my ($name, $value) = split /:\s*/, $_, 2;
            push $self->{headers}{lc $name}->@*, $value;
        }
        $body = unchunked($body // '') if ($self->header('Transfer-Encoding') // '') =~ /chunked/i;
        $self->{body} = $body // '';
    } else {
        $self->{failure} //= 'the connection was closed without an answer';
    }
    return $self;
}

sub unchunked($text) {
    my $body = '';
    while ($text =~ /\G([0-9a-fA-F]+)[^\r]*\r\n/gc) {
        my $size = hex $1 or last;
        $body .= substr $text, pos $text, $size;
        pos($text) += $size + 2;
    }
    return $body;
}

sub status($self) { $self->{status} }
sub body($self) { $self->{body} }
sub seconds($self) { $self->{seconds} }
sub failure($self) { $self->{failure} }
sub header($self, $name) { $self->{headers}{lc $name} ? join ', ', $self->{headers}{lc $name}->@* : undef }
sub headers($self) { $self->{headers} }
sub json($self) { $self->{json} //= JSON::PP->new->utf8->boolean_values(0, 1)->decode($self->{body}) }

1;
