# A fault between a host and PostgreSQL: a process that passes on what both say, until it is told to lose the answers.
#
#   my $proxy = Billing::ModelProxy->new($world->db->dir);    # listens on 127.0.0.1:$proxy->port
#   $proxy->lose_answers;      # what the host asks is done, and it never hears of it
#   $proxy->cut;               # all connections end; from then on all is well
package Billing::ModelProxy;
use v5.36;
use Billing::Process qw(free_port new_directory);
use IO::Select ();
use IO::Socket::INET ();
use IO::Socket::UNIX ();

sub new($class, $socket) {
    my $self = bless {port => free_port()}, $class;
    $self->{process} = Billing::Process->start(name => 'proxy', log => new_directory() . '/proxy.log',
        command => [$^X, (map { "-I$_" } @INC), '-MBilling::ModelProxy', '-e', 'Billing::ModelProxy::serve(@ARGV)', '--', $self->{port}, $socket]);
    $self->{process}->await(sub { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$self->{port}") }, 10, 'the proxy listens');
    return $self;
}

sub port($self) { $self->{port} }
sub lose_answers($self) { $self->{process}->signal('USR1') }
sub cut($self) { $self->{process}->signal('USR2') }

sub serve($port, $target) {
    my ($deaf, $cut, %server, %other) = (0, 0);
    local $SIG{USR1} = sub { $deaf = 1 };
    local $SIG{USR2} = sub { $cut = 1 };
    local $SIG{PIPE} = 'IGNORE';
    my $listener = IO::Socket::INET->new(LocalAddr => "127.0.0.1:$port", Listen => 100, ReuseAddr => 1) // die "listen: $!\n";
    my $all = IO::Select->new($listener);
    my $end = sub ($socket) {
        for my $one (grep { $_ } $socket, delete $other{$socket}) {
            delete $other{$one};
            delete $server{$one};
            $all->remove($one);
            close $one;
        }
    };
    while (1) {
        my @ready = $all->can_read(0.1);
        if ($cut) {
            $end->($_) for grep { $_ != $listener } $all->handles;
            ($deaf, $cut) = (0, 0);
            next;
        }
        for my $socket (@ready) {
            if ($socket == $listener) {
                my $client = $listener->accept // next;
                my $server = IO::Socket::UNIX->new(Peer => $target) // next;
                @other{$client, $server} = ($server, $client);
                $server{$server} = 1;
                $all->add($client, $server);
            } elsif ($other{$socket}) {
                my $got = sysread $socket, my $text, 65536;
                $end->($socket), next if !$got;
                next if $deaf && $server{$socket};
                for (my $sent = 0; $sent < $got;) {
                    my $more = syswrite $other{$socket}, $text, $got - $sent, $sent;
                    $end->($socket), last if !$more;
                    $sent += $more;
                }
            }
        }
    }
}

1;
