# A private redis-server of a test, on a unix socket (or a port with port => 1). Nothing is written to disk: after kill9 or
# restart it is empty, as a cache that was lost.
package Billing::Redis;
use v5.36;
use Billing::Process qw(free_port new_directory);
use Redis ();

# port => 1: listen on a loopback port instead of a unix socket; arguments => [more options of redis-server].
sub new($class, %option) {
    my $self = bless {directory => new_directory(), arguments => $option{arguments} // []}, $class;
    $self->{port} = free_port() if $option{port};
    $self->{socket} = "$self->{directory}/redis.sock" if !$self->{port};
    $self->start;
    return $self;
}

# As billing_redis takes it.
sub address($self) { $self->{port} ? "127.0.0.1:$self->{port}" : "unix:$self->{socket}" }

sub start($self) {
    my @where = $self->{port}
        ? ('--port', $self->{port}, '--bind', '127.0.0.1')
        : ('--port', 0, '--unixsocket', $self->{socket}, '--unixsocketperm', 777);
    unlink $self->{socket} if $self->{socket};
    $self->{process} = Billing::Process->start(
        name => 'redis-server',
        command => ['redis-server', @where, '--save', '', '--appendonly', 'no', '--dir', $self->{directory},
            $self->{arguments}->@*],
        log => "$self->{directory}/redis.log",
    );
    delete $self->{client};
    $self->{process}->await(sub { eval { $self->client->ping } }, 10, 'redis-server answers');
    return $self;
}

# A connection of the test's own (Redis.pm): $redis->client->hgetall(...).
sub client($self) {
    return $self->{client} //= Redis->new(
        ($self->{port} ? (server => "127.0.0.1:$self->{port}") : (sock => $self->{socket})),
        reconnect => 0, cnx_timeout => 5, read_timeout => 10,
    );
}

sub pid($self) { $self->{process}->pid }
sub flushall($self) { $self->client->flushall }
sub pause($self) { $self->{process}->pause }
sub resume($self) { $self->{process}->resume }

sub stop($self) {
    delete $self->{client};
    $self->{process}->stop;
    return;
}

sub kill9($self) {
    delete $self->{client};
    $self->{process}->kill9;
    return;
}

sub restart($self) {
    $self->stop;
    return $self->start;
}

1;
