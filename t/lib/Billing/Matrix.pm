# The clients of t/gate/matrix.t: reads its table, sends each cell as the client that the row names, each with an account of its
# own, and collects what nginx logged of it and what PostgreSQL charged. What is expected stands in the table alone.
#
# The table's lines: situation | caller | client | path [+ fields] | GET | HEAD | OPTIONS | POST
# A cell: status, decision and charge, and the cache's status where it matters ("200 allow 1 HIT"); "." is not asked.
# Callers: has (units left), spent (its quota is used up). In a path %c is the cell's account.
package Billing::Matrix;
use v5.36;
use Billing::Client qw(request requests);
use Billing::Process qw(wait_for slurp);
use IO::Select ();
use IO::Socket::INET ();
use Test::More ();

my @methods = qw(GET HEAD OPTIONS POST);
my $quota = 1000;    # of each account

# Ports of the host's configuration that this process serves: hand (answers as a client says), mute (never answers), full (has no
# room for one more connection), names (a name server that never answers).
sub new($class, $host) {
    my $self = bless {host => $host, cells => []}, $class;
    $self->{$_} = IO::Socket::INET->new(LocalAddr => $host->address($_), Listen => 200, ReuseAddr => 1) // die "listen: $!\n" for qw(hand mute);
    $self->{names} = IO::Socket::INET->new(LocalAddr => $host->address('names'), Proto => 'udp') // die "names: $!\n";
    $self->{full} = IO::Socket::INET->new(LocalAddr => $host->address('full'), Listen => 1) // die "listen: $!\n";
    $self->{filling} = [map { IO::Socket::INET->new(PeerAddr => $host->address('full'), Blocking => 0) } 1 .. 4];
    return $self;
}

sub read_table($self, $text) {
    for my $line (grep { /\S/ && !/^\s*#/ } split /\n/, $text) {
        my ($situation, $caller, $client, $request, @expected) = split /\s*\|\s*/, $line =~ s/^\s+|\s+$//gr;
        die "not a row of the table: $line\n" if @expected != @methods || !$self->can("client_$client") || $caller !~ /^(?:has|spent)$/;
        my ($path, @fields) = split /\s+\+\s+/, $request;
        for my $index (grep { $expected[$_] ne '.' } 0 .. $#methods) {
            my $account = 'c' . ($self->{cells}->@* + 1);
            push $self->{cells}->@*, {
                situation => "$situation, $caller, $methods[$index]", account => $account, method => $methods[$index], spent => $caller eq 'spent',
                client => $client, path => $path =~ s/%c/$account/r, expected => $expected[$index], row => $line,
                headers => {Authorization => "Bearer test:$account", map { split /:\s*/, $_, 2 } @fields},
                body => $methods[$index] eq 'POST' ? 'a=b&c=d' : '',
            };
        }
    }
    return;
}

sub cells($self) { $self->{cells}->@* }

# Uses up the quotas of those whose quota shall be used up.
sub drain($self, $path) {
    my @spent = grep { $_->{spent} } $self->cells;
    my @answers = requests(8, map { {address => $self->{host}->address, method => 'GET', path => "$path?cost=$quota",
        headers => {Authorization => $_->{headers}{Authorization}}} } @spent);
    my @failed = grep { $_->status != 200 } @answers;
    die 'cannot use up a quota: ' . $failed[0]->status . "\n" if @failed;
    return;
}

# Sends all cells; neighbours of a client that asks for several on one connection go together.
sub run($self) {
    my @queue = $self->cells;
    while (my $cell = shift @queue) {
        my $client = "client_$cell->{client}";
        my @together = $cell;
        push @together, shift @queue while $cell->{client} =~ /^(?:keepalive|pipelined)$/ && @queue && $queue[0]{row} eq $cell->{row};
        my @statuses = eval { $self->$client(@together) };
        Test::More::fail("$cell->{situation}: $@") if $@;
        $together[$_]{seen} = $statuses[$_] for 0 .. $#together;
    }
    return;
}

# What nginx logged of each account's last request: "status decision cache".
sub logged($self, $file) {
    my %logged = map { /^Bearer test:(\w+) (.*)$/ ? ($1 => $2) : () } split /\n/, slurp($file);
    return \%logged;
}

# The tests themselves. $used: account => units that PostgreSQL has as used; $asked: account => requests that the application saw.
sub check($self, $logged, $used, $asked) {
    for my $cell ($self->cells) {
        my ($status, $decision, $charge, $cache) = split / /, $cell->{expected};
        my ($was, $decided, $from) = split / /, $logged->{$cell->{account}} // 'nothing logged -';
        my $charged = ($used->{$cell->{account}} // 0) - ($cell->{spent} ? $quota : 0);
        Test::More::is(join(' ', $was, $decided, $charged, $cache ? $from : ()), $cell->{expected}, $cell->{situation}) or Test::More::diag($cell->{row});
        Test::More::is($cell->{seen}, $status, "$cell->{situation}: the client's status") if defined $cell->{seen} && $cell->{seen} ne $status;
        Test::More::is($asked->{$cell->{account}} // 0, 0, "$cell->{situation}: refused, the application is not asked")
            if $cell->{spent} && $status == 402 && $cell->{method} ne 'OPTIONS' && $cell->{path} !~ m{^/free};
    }
    return;
}

# --- clients: each returns the status of each cell, undef where it gets none ---

sub client_plain($self, $cell) {
    return request($self->{host}->address, $cell->{method}, $cell->{path}, headers => $cell->{headers}, body => $cell->{body})->status;
}

# Somebody else has asked before: what a cache can hold, it holds.
sub client_primed($self, $cell) {
    $self->prime($cell->{path});
    return $self->client_plain($cell);
}

sub prime($self, $path) {
    request($self->{host}->address, 'GET', $path, headers => {Authorization => 'Bearer test:primer'});
    return;
}

sub client_http2($self, $cell, @more) {
    my @command = ('curl', '-sS', '-o', '/dev/null', '-w', '%{http_code}', '--http2-prior-knowledge', '--max-time', 20,
        $cell->{method} eq 'HEAD' ? '--head' : ('-X', $cell->{method}), (map { ('-H', "$_: $cell->{headers}{$_}") } sort keys $cell->{headers}->%*),
        ($cell->{method} eq 'POST' ? ('--data-binary', $cell->{body}) : ()), @more, 'http://' . $self->{host}->address('h2') . $cell->{path});
    open my $out, '-|', @command or die "curl: $!\n";
    my $status = do { local $/; <$out> };
    close $out;
    # An answer that is whole before the body has been sent is followed by RST_STREAM(NO_ERROR), as RFC 9113, 8.1 has it; where both come at
    # once curl takes them for an error and tells no status. What was answered and charged is in nginx's log and PostgreSQL.
    my $stream_error = 92;
    return $? >> 8 == $stream_error && $cell->{method} eq 'POST' ? undef : $status;
}

sub client_grpc($self, $cell) { $self->client_http2($cell, '-H', 'content-type: application/grpc', '-H', 'te: trailers') }

# One connection for all of the row's cells, one after another.
sub client_keepalive($self, @cells) {
    my $socket = $self->{host}->connect;
    return map { print $socket $self->request_text($_, 'keep-alive'); read_answer($socket, $_->{method}) } @cells;
}

# All of the row's requests in one piece.
sub client_pipelined($self, @cells) {
    my $socket = $self->{host}->connect;
    print $socket join '', map { $self->request_text($_, 'keep-alive') } @cells;
    return map { read_answer($socket, $_->{method}) } @cells;
}

# An upgraded connection that carries a word to and fro.
sub client_websocket($self, $cell) {
    my $socket = $self->begin($cell, 'Upgrade', Upgrade => 'websocket', 'Sec-WebSocket-Version' => 13, 'Sec-WebSocket-Key' => 'AAAAAAAAAAAAAAAAAAAAAA==');
    my $upstream = $self->asked($cell) or return read_head($socket);
    print $upstream "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    my $status = read_head($socket);
    print $socket "to\n";
    die "nothing goes to the application\n" if read_line($upstream) ne "to\n";
    print $upstream "fro\n";
    die "nothing comes from the application\n" if read_line($socket) ne "fro\n";
    return $self->leave($cell, $socket) // $status;
}

# A stream of events of which it hears the first.
sub client_events($self, $cell) {
    my $socket = $self->begin($cell, 'close', Accept => 'text/event-stream');
    my $upstream = $self->asked($cell) or return read_head($socket);
    print $upstream "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", "data: 1\n\n";
    my $status = read_head($socket);
    die "no event comes\n" if ($cell->{method} ne 'HEAD') && read_line($socket) !~ /^(?:5|9|data)/;
    return $self->leave($cell, $socket) // $status;
}

# Leaves once the application has been asked.
sub client_gone_asked($self, $cell) {
    my $socket = $self->begin($cell);
    my $upstream = $self->asked($cell) or die "the application is not asked\n";
    return $self->leave($cell, $socket);
}

# Leaves likewise, and the application answers all the same.
sub client_gone_answered($self, $cell) {
    my $socket = $self->begin($cell);
    my $upstream = $self->asked($cell) or die "the application is not asked\n";
    close $socket;
    my ($status) = $cell->{path} =~ /(\d+)$/;
    print $upstream "HTTP/1.1 $status Said\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    close $upstream;
    $self->wait_logged($cell);
    return;
}

# Leaves while nginx looks for the application's address.
sub client_gone_resolving($self, $cell) {
    my $socket = $self->begin($cell);
    my $question = '';
    wait_for(sub { IO::Select->new($self->{names})->can_read(0.05) && $self->{names}->recv($question, 512); $question =~ /$cell->{account}/ }, 5,
        'a name is asked for');
    return $self->leave($cell, $socket);
}

# Leaves while nginx connects to the application.
sub client_gone_connecting($self, $cell) {
    my $socket = $self->begin($cell);
    my $port = sprintf '%04X', $self->{host}->port('full');
    my %ours = map { $_->sockport => 1 } $self->{filling}->@*;
    wait_for(sub { grep { !$ours{hex $_} } slurp('/proc/net/tcp') =~ /^\s*\d+: \S+:(\S{4}) \S+:$port 02 /gm }, 5, 'nginx connects');
    return $self->leave($cell, $socket);
}

# Leaves in the middle of its own body.
sub client_gone_uploading($self, $cell) {
    my $socket = $self->{host}->connect;
    my $folder = $self->{host}->directory . '/client_body_temp_path';
    my $parts = () = glob "$folder/*";
    print $socket $self->request_text({%$cell, body => 'a' x 9000}, 'close') =~ s/a{4500}$//r;
    wait_for(sub { my $now = () = glob "$folder/*"; $now > $parts }, 5, 'the body arrives');
    return $self->leave($cell, $socket);
}

# Leaves while limit_req holds it back.
sub client_gone_delayed($self, $cell) {
    $self->prime($cell->{path});
    my $mark = $self->{host}->mark;
    my $socket = $self->begin($cell);
    $self->{host}->wait_log(qr/delaying request/, 5, $mark);
    return $self->leave($cell, $socket);
}

# Takes back its request on a connection that stays: RST_STREAM of HTTP/2.
sub client_gone_reset($self, $cell) {
    my $socket = IO::Socket::INET->new(PeerAddr => $self->{host}->address('h2')) // die "connect: $!\n";
    my $frame = sub ($type, $flags, $stream, $content) { substr(pack('N', length $content), 1) . pack('CCN', $type, $flags, $stream) . $content };
    my $field = sub ($name, $value) { pack('C C/a C/a', 0, $name, $value) };    # without index, without Huffman
    my $fields = join '', map { $field->(@$_) } [':method', $cell->{method}], [':path', $cell->{path}], [':scheme', 'http'], [':authority', 'x'],
        ['authorization', $cell->{headers}{Authorization}];
    print $socket "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", $frame->(4, 0, 0, ''), $frame->(1, 5, 1, $fields);
    my $upstream = $self->asked($cell) or die "the application is not asked\n";
    print $socket $frame->(3, 0, 1, pack 'N', 8);
    $self->wait_logged($cell);
    return;
}

# --- what they are made of ---

sub request_text($self, $cell, $connection, %more) {
    my %headers = (Host => 'x', Connection => $connection, $cell->{headers}->%*, %more, length $cell->{body} ? ('Content-Length' => length $cell->{body}) : ());
    return "$cell->{method} $cell->{path} HTTP/1.1\r\n" . join('', map { "$_: $headers{$_}\r\n" } sort keys %headers) . "\r\n$cell->{body}";
}

sub begin($self, $cell, $connection = 'close', %more) {
    my $socket = $self->{host}->connect;
    print $socket $self->request_text($cell, $connection, %more);
    return $socket;
}

# The connection on which the hand-made application has been asked by this cell; undef when nginx has answered by itself.
sub asked($self, $cell) {
    my $ready = wait_for(sub {
        return 'asked' if IO::Select->new($self->{hand})->can_read(0.02);
        return $self->logged($self->{log})->{$cell->{account}} && 'answered';
    }, 5, "$cell->{situation}: an answer");
    return if $ready eq 'answered';
    my $upstream = $self->{hand}->accept;
    my $head = '';
    $head .= read_line($upstream) until $head =~ /\r\n\r\n/;
    die "another cell's request\n" if $head !~ /Bearer test:$cell->{account}\r/;
    return $upstream;
}

# Which of nginx's logs tells that a request has ended. It holds one line of each.
sub watch($self, $file) { $self->{log} = $file }

sub leave($self, $cell, $socket) {
    close $socket;
    $self->wait_logged($cell);
    return;
}

sub wait_logged($self, $cell) {
    wait_for(sub { $self->logged($self->{log})->{$cell->{account}} }, 5, "$cell->{situation}: the end of the request");
    return;
}

sub read_line($socket) {
    my $line = '';
    while ($line !~ /\n\z/) {
        IO::Select->new($socket)->can_read(5) or die "nothing more after '$line'\n";
        sysread $socket, $line, 1, length $line or die "closed after '$line'\n";
    }
    return $line;
}

sub read_head($socket) {
    my $head = '';
    $head .= read_line($socket) until $head =~ /\r\n\r\n/;
    return ($head =~ m{^HTTP/1\.1 (\d+)})[0];
}

# An answer on a connection that stays, with its body.
sub read_answer($socket, $method) {
    my $head = '';
    $head .= read_line($socket) until $head =~ /\r\n\r\n/;
    my $left = $method eq 'HEAD' ? 0 : ($head =~ /^Content-Length: (\d+)/mi)[0] // 0;
    while ($left > 0) {
        my $got = sysread $socket, my $part, $left or die "a body that ends too early\n";
        $left -= $got;
    }
    return ($head =~ m{^HTTP/1\.1 (\d+)})[0];
}

1;
