# A client of the model: a process that makes its attempts one after the other, never twice, and writes down each as it ends, so that what is
# known of it is what a customer would know. Owner: Billing::Model.
package Billing::ModelClient;
use v5.36;
use Billing::Process qw(patience slurp);
use IO::Select ();
use IO::Socket::INET ();
use POSIX ();
use Time::HiRes qw(time);

# Starts it; attempts as Billing::ModelPlan makes them, addresses by number of the host.
sub start($class, $file, $addresses, @attempts) {
    my $parent = $$;
    my $pid = fork // die "fork: $!\n";
    return bless {pid => $pid, file => $file, attempts => \@attempts, parent => $parent}, $class if $pid;
    local $SIG{PIPE} = 'IGNORE';
    open my $out, '>', $file or POSIX::_exit(1);
    for my $attempt (@attempts) {
        last if getppid != $parent;
        my $sent = time;
        my ($status, $code) = ask($addresses->[$attempt->{host}], $attempt);
        syswrite $out, join("\t", $status, $code, $sent, time) . "\n";
    }
    POSIX::_exit(0);
}

# Status and code of a whole answer; 0: unknown what became of it.
sub ask($address, $attempt) {
    my $deadline = time + 4 * patience();
    my $socket = IO::Socket::INET->new(PeerAddr => $address) // return (0, '');
    syswrite $socket, join "\r\n", "GET /$attempt->{location}/$attempt->{path} HTTP/1.1", 'Host: x',
        "Authorization: Bearer test:$attempt->{account}", 'Connection: close', '', '';
    my $answers = IO::Select->new($socket);
    my $text = '';
    while (time < $deadline && $answers->can_read($attempt->{gone} ? 0.05 : $deadline - time)) {
        my $got = sysread $socket, $text, 65536, length $text;
        last if !$got;
    }
    my ($head, $body) = split /\r\n\r\n/, $text, 2;
    return (0, '') if !defined $body || $head !~ m{^HTTP/1\.1 (\d+)};
    my $status = $1;
    return (0, '') if $head =~ /^Content-Length: (\d+)/mi ? length $body < $1 : $head =~ /^Transfer-Encoding/mi && $body !~ /(?:^|\r\n)0\r\n\r\n$/;
    return ($status, $body =~ /"code":"(\w+)"/ ? $1 : '');
}

sub done($self) { return (slurp($self->{file}) =~ tr/\n//) }

sub wait_end($self) {
    waitpid $self->{pid}, 0;
    die "a client ended with $?\n" if $?;
    return;
}

# The attempts with what became of them: status, code, sent, replied.
sub told($self) {
    my @lines = split /\n/, slurp($self->{file});
    return map {
        my %told = $self->{attempts}[$_]->%*;
        @told{qw(status code sent replied)} = split /\t/, $lines[$_];
        \%told
    } 0 .. $#lines;
}

sub DESTROY($self) {
    return if $$ != $self->{parent};
    local ($?, $!);
    waitpid $self->{pid}, 0 if kill 'TERM', $self->{pid};
    return;
}

1;
