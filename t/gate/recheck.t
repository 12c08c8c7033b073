# The promise: a request that runs long (a websocket, server-sent events, a slow answer) is asked for again at the interval and charged
# each time; it ends, on both sides, soon after its account may no more, and goes on otherwise. G27.
use v5.36;
use Billing::Process qw(free_port new_directory slurp);
use Billing::Test;
use Billing::Token;
use IO::Select ();
use IO::Socket::INET ();
use Time::HiRes qw(time);

# An application that holds connections: a websocket's handshake and then an echo of each line, a stream of events, or nothing at all.
my $port = free_port();
my $directory = new_directory();
my $application = Billing::Process->start(name => 'streams', log => "$directory/streams.log", command => [$^X, '-e', <<'END', $port, "$directory/gone"]);
use IO::Socket::INET; use IO::Select;
my ($port, $gone) = @ARGV;
my $listener = IO::Socket::INET->new(LocalAddr => "127.0.0.1:$port", Listen => 100, ReuseAddr => 1) // die "listen: $!\n";
my $all = IO::Select->new($listener);
my %kind;
$SIG{PIPE} = 'IGNORE';
while (1) {
    for my $socket ($all->can_read(0.1)) {
        if ($socket == $listener) { $all->add($listener->accept); next }
        my $got = sysread $socket, my $text, 65536;
        if (!$got) {
            open my $out, '>>', $gone; print $out "$kind{fileno $socket}\n"; close $out;
            delete $kind{fileno $socket}; $all->remove($socket); close $socket; next;
        }
        if ($kind{fileno $socket}) { syswrite $socket, "echo $text"; next }
        $text =~ m{^GET /\w+/(\w+)/(\S+)} or next;
        $kind{fileno $socket} = "$1 $2";
        syswrite $socket, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" if $1 eq 'ws';
        syswrite $socket, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" if $1 eq 'sse';
    }
    for my $socket ($all->handles) {
        syswrite $socket, "data: x\n\n" if ($kind{fileno $socket} // '') =~ /^sse/;
    }
}
END
$application->await(sub { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port") }, 10, 'the streams are served');

my $hs = Billing::Token->new('HS256', secret => 'a-secret-of-at-least-thirty-two-bytes');
my $proxy = "proxy_set_header Upgrade \$http_upgrade; proxy_set_header Connection \$http_connection; proxy_buffering off; proxy_pass http://127.0.0.1:$port;";
my $world = world(server => 'listen 127.0.0.1:%%PORT_h2%% http2;', http => 'log_format end "$uri $status $billing_decision $billing_reason $billing_cost";', locations => <<"END");
    access_log %%PREFIX%%/access.log end;
    billing on;
    billing_account \$user;
    billing_recheck 1s;
    location /units/ { billing_quota requests; $proxy }
    location /dear/ { billing_quota requests cost=\$arg_cost; $proxy }
    location /once/ { billing_recheck off; billing_quota requests; $proxy }
    location /feature/ { billing_feature white_label; $proxy }
    location /observed/ { billing observe; billing_feature white_label; $proxy }
    location /plain/ { $proxy }
    location /kind/ { billing_on_error allow; billing_quota requests; $proxy }
    location /hop/ { billing_recheck off; billing_quota requests; try_files /nowhere \@hop; }
    location \@hop { billing_quota requests; $proxy }
    location /key/ { billing_account \$billing_api_key_account; billing_api_key \$http_x_api_key; $proxy }
    location /jwt/ { billing_account \$billing_jwt_claim_sub; billing_jwt alg=HS256 secret=a-secret-of-at-least-thirty-two-bytes leeway=0s; $proxy }
    location /api/ { billing_recheck off; billing_quota requests; proxy_pass http://app; }
END
my $host = $world->host;

sub as($account) { ("Authorization: Bearer test:$account") }

# A client of a stream: what is read so far, and whether it has ended.
my %stream;
sub begin($name, $path, @lines) {
    my $socket = $host->connect;
    my @upgrade = $path =~ m{/ws/} ? ('Connection: Upgrade', 'Upgrade: websocket') : 'Connection: close';
    print $socket join "\r\n", "GET $path HTTP/1.1", 'Host: here', @upgrade, @lines, '', '';
    return $stream{$name} = {socket => $socket, text => '', begun => time, path => $path};
}
sub look($name) {
    my $stream = $stream{$name};
    while (!$stream->{ended} && IO::Select->new($stream->{socket})->can_read(0)) {
        my $got = sysread $stream->{socket}, $stream->{text}, 65536, length $stream->{text};
        $stream->{ended} = time if !$got;
    }
    return $stream;
}
sub open_now($name) {
    eval { wait_for(sub { look($name)->{text} ne '' || $stream{$name}{ended} }, 10, "$name is answered") };
    return $stream{$name}{text} =~ m{^HTTP/1.1 (?:101|200)} && !$stream{$name}{ended};
}
sub works($name) {
    my $stream = look($name);
    return 0 if $stream->{ended};
    my $before = length $stream->{text};
    my $line = 'hello ' . ++$stream->{said};
    syswrite $stream->{socket}, $line;
    return eval { wait_for(sub { index(look($name)->{text}, "echo $line", $before) >= 0 }, 5, "$name echoes") };
}
sub ended($name, $seconds) { eval { wait_for(sub { look($name)->{ended} }, $seconds, "$name ends") } }
sub gone($kind, $rest) { eval { wait_for(sub { slurp("$directory/gone") =~ /^\Q$kind $rest\E$/m }, 5, "$kind $rest is gone for the application") } }
sub used($account) {
    return ($world->sql(q{SELECT coalesce(sum(q.used), 0)::int AS used FROM billing.quota_periods q JOIN billing.accounts a ON a.id = q.account_id
        WHERE a.external_id = ?}, $account))[0]{used};
}
sub becomes_used($account, $used, $what) {
    my $seen = eval { wait_for(sub { used($account) == $used }, 10, $what) };
    ok $seen, $what or diag 'used: ' . used($account);
    return;
}
sub spend($account, $units) { $host->get('/api/x', Authorization => "Bearer test:$account")->status for 1 .. $units; return }
sub line_of($uri) { wait_for(sub { (slurp($host->directory . '/access.log') =~ m{^\Q$uri\E (.*)$}m)[0] }, 5, "$uri is logged") }

spend($_, 17) for qw(ws sse slow second redirected);
spend('once', 19);
spend($_, 1) for qw(plan observed reloaded);
$world->must('account', 'set', $_, '--plan', 'agency') for qw(plan observed reloaded);
my ($key) = $world->must('keys', 'create', 'keyed', '--create-account') =~ /(bk_\S+)/;
my ($id) = $world->must('keys', 'list', 'keyed') =~ /(bk_\w+)/;
for my $account (qw(plan observed reloaded)) {
    wait_for(sub { begin('try', '/feature/ws/try', as($account)); open_now('try') }, 10, 'the plan is known');
}

begin('once', '/once/ws/once', as('once'));
begin('ws', '/units/ws/ws', as('ws'));
begin('sse', '/units/sse/sse', as('sse'));
begin('slow', '/units/slow/slow', as('slow'));
begin('redirected', '/hop/ws/redirected', as('redirected'));
begin('counted', '/units/ws/counted', as('counted'));
begin('dear', '/dear/ws/dear?cost=3', as('dear'));
begin('plan', '/feature/ws/plan', as('plan'));
begin('observed', '/observed/ws/observed', as('observed'));
begin('plain', '/plain/ws/plain', as('anybody'));
begin('key', '/key/ws/key', "X-Api-Key: $key");
begin('jwt', '/jwt/ws/jwt', 'Authorization: Bearer ' . $hs->token({sub => 'bearer', exp => int(time) + 3}));
begin('hasty', '/units/ws/hasty', as('hasty'));
my $address = $host->address('h2');
my $h2 = Billing::Process->start(name => 'curl', log => "$directory/h2.log",
    command => ['curl', '-sS', '--http2-prior-knowledge', '-H', 'Authorization: Bearer test:second', "http://$address/units/sse/second"]);
ok open_now($_), "$_ is open" for qw(once ws sse redirected counted dear plan observed plain key jwt hasty);

subtest 'G27: charged at each interval, closed when units are used up' => sub {
    for my $name (qw(ws sse slow redirected)) {
        ok ended($name, 15), "$name ends";
        my $lasted = look($name)->{ended} - $stream{$name}{begun};
        cmp_ok $lasted, '>', 2, "after its units: $lasted s";
        ok gone($name =~ /^(ws|redirected)$/ ? 'ws' : $name, $name), 'for the application too';
    }
    is line_of('/units/ws/ws'), '101 deny LIMIT_REQUESTS 3', 'the log tells why, and what it cost';
    is line_of('/units/sse/sse'), '200 deny LIMIT_REQUESTS 3', 'of events too';
    is line_of('/units/slow/slow'), '402 deny LIMIT_REQUESTS 3', 'and of an answer that had not begun';
    ok $host->wait_log(qr{\[info\].*billing: closed: it is refused by now with 402 LIMIT_REQUESTS.*"GET /units/ws/ws}), 'and so does the error log';
    isnt eval { $h2->wait_exit(15) }, 0, 'HTTP/2: the stream is reset';
    ok gone('sse', 'second'), 'for the application too';
    becomes_used($_, 20, "$_: each interval was charged") for qw(ws sse second redirected);
    becomes_used('slow', 19, 'slow: but for what was never answered');
    ok ended('dear', 15), 'an interval that costs 3';
    becomes_used('dear', 18, 'is charged 3 each time');
    ok works('once'), 'where nothing is re-checked it goes on';
    ok works('plain'), 'and where nothing is charged';
    becomes_used('once', 20, 'once is charged once');
};

subtest 'G27: what the client ends is charged for as long as it ran' => sub {
    wait_for(sub { used('counted') >= 5 }, 15, 'some intervals') ;
    my $ran = int(time - $stream{counted}{begun});
    close delete $stream{counted}{socket};
    ok gone('ws', 'counted'), 'it ends';
    my $used = wait_for(sub { my $used = used('counted'); $used >= $ran ? $used : 0 }, 5, 'its usage');
    cmp_ok abs($used - $ran - 1), '<=', 1, "$used units in $ran s";
    close delete $stream{hasty}{socket};
};

subtest 'G27: closed when access ends' => sub {
    ok works('plan'), 'open until now';
    $world->must('account', 'set', 'plan', '--plan', 'free');
    $world->must('account', 'set', 'observed', '--plan', 'free');
    $world->must('keys', 'revoke', $id);
    ok ended('plan', 5), 'a plan that ends';
    is line_of('/feature/ws/plan'), '101 deny FEATURE_NOT_IN_PLAN 0', 'the log tells why';
    ok ended('key', 5), 'a key that is revoked';
    is line_of('/key/ws/key'), '101 deny INVALID_API_KEY 0', 'the log tells why';
    ok ended('jwt', 8), 'a token that expires';
    is line_of('/jwt/ws/jwt'), '101 deny INVALID_TOKEN 0', 'the log tells why';
    ok $host->wait_log(qr/would be closed: it is refused by now with 403 FEATURE_NOT_IN_PLAN/, 5), 'observed, it is only said';
    ok works('observed'), 'and goes on';
};

subtest 'G27: clients that leave when they are looked at' => sub {
    for my $round (1, 2) {
        begin("leaves-$_", "/feature/ws/leaves-$round-$_", as('reloaded')) for 1 .. 20;
        open_now("leaves-$_") for 1 .. 20;
        $world->must('account', 'set', 'reloaded', '--plan', $round == 2 ? 'free' : 'agency');
        for my $number (1 .. 20) {
            select undef, undef, undef, 0.05;
            close delete $stream{"leaves-$number"}{socket};
        }
        $world->must('account', 'set', 'reloaded', '--plan', 'agency');
        wait_for(sub { begin('again', '/feature/ws/again', as('reloaded')); open_now('again') }, 5, 'the plan is back');
    }
    ok works('plain'), 'the worker lives';
};

subtest 'G27: PostgreSQL away' => sub {
    spend($_, 1) for qw(strict kind);
    begin($_, ($_ eq 'kind' ? '/kind/ws/' : '/units/ws/') . $_, as($_)) for qw(strict kind);
    ok open_now($_), "$_ is open" for qw(strict kind);
    $world->db->pause;
    my $paused = time;
    ok ended('strict', 40), 'without more units, and nobody to ask: closed';
    like line_of('/units/ws/strict'), qr/^101 deny BILLING_UNAVAILABLE \d+$/, 'the log tells why';
    ok works('kind'), 'open where billing_on_error says so';
    ok works('plain'), 'and where nothing has to be asked';
    $world->db->resume;
    $world->may_forfeit($_ => int(time - $paused) + 2) for qw(strict kind);    # a unit of each interval that was asked for and given too late
};

subtest 'G27: a worker that is leaving' => sub {
    begin('reloaded', '/feature/ws/reloaded', as('reloaded'));
    ok open_now('reloaded'), 'open';
    my @old = $host->workers;
    $host->{process}->signal('HUP');
    wait_for(sub { my %now = map { $_ => 1 } $host->workers; !grep { $now{$_} } @old }, 10, 'others have taken over');
    ok works('reloaded'), 'still open';
    $world->must('account', 'set', 'reloaded', '--plan', 'free');
    ok ended('reloaded', 10), 'and closed by the leaving worker when access ends';
    close delete $_->{socket} for grep { $_->{socket} } values %stream;
    ok eval { wait_for(sub { !grep { Billing::Process::process_alive($_) } @old }, 10, 'gone') }, 'which then leaves';
};
done_testing;
