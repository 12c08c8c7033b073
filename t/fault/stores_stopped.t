# No worker ever waits for PostgreSQL or Redis by standing still: with both stopped in their tracks (SIGSTOP, so that connections stay
# open and nothing answers), requests that need neither go on at the speed of a paired run without the stop; those that do need
# them are answered by billing_on_error; and when the stores come back, all is as before. G21, S6, E4.
use v5.36;
use Billing::Test;
use List::Util qw(max);
use Time::HiRes qw(time);

my @demo = (Authorization => 'Bearer demo-token');
my $world = world(hosts => 1, locations => <<'END');
    billing_account $user;
    location /open/ { return 204; }
    location /warm/ { billing on; billing_feature svg_export; billing_quota requests; proxy_pass http://app; }
    location /cold/ { billing on; proxy_pass http://app; }
    location /kind/ { billing on; billing_on_error allow; proxy_pass http://app; }
END
my $host = $world->host;

is $host->get('/cold/x', @demo)->status, 200, 'the account comes into being';
$world->must('account', 'set', 'demo', '--plan', 'agency');
wait_for(sub { $host->get('/warm/x', @demo)->status == 200 }, 5, 'unlimited requests');
$host->get_many(64, 8, '/warm/x', @demo); # both workers hold the account and tokens

# Requests of others, while cold ones hang in the same workers: the slowest answer and the time for all.
sub measure($what) {
    my $began = time;
    my @open = $host->get_many(600, 8, '/open/x');
    my @warm = $host->get_many(300, 8, '/warm/x', @demo);
    my $took = time - $began;
    is grep({ $_->status == 204 } @open), 600, "$what: all free requests are answered";
    is grep({ $_->status == 200 } @warm), 300, "$what: P12: all warm requests pass";
    return $took;
}

# Cold requests by raw connections, sent and left waiting.
sub hang($path, $from, $to) {
    return map {
        my $socket = $host->connect;
        print $socket "GET $path HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer test:stranger-$_\r\nConnection: close\r\n\r\n";
        $socket;
    } $from .. $to;
}

my @ratios;
for my $round (1 .. 3) {
    my $paired = measure("round $round, all well");
    $_->pause for $world->db, $world->redis;
    my @waiting = hang('/cold/x', $round * 100, $round * 100 + 19);
    my $stopped = measure("round $round, stores stopped");
    push @ratios, $stopped / $paired;
    my @answers = map { local $/; <$_> // '' } @waiting;
    is grep({ m{^HTTP/1.1 503 .*^Retry-After: \d+.*"code":"BILLING_UNAVAILABLE"}ms } @answers), 20,
        "round $round: who needs the stores gets 503 and when to come again";
    is $host->get('/kind/x', Authorization => "Bearer test:kind-$round")->status, 200, "round $round: or passes, where so configured";
    $_->resume for $world->redis, $world->db;
    wait_for(sub { $host->get('/cold/x', Authorization => "Bearer test:later-$round")->status == 200 }, 20, 'strangers pass again');
}
my $best = (sort { $a <=> $b } @ratios)[0];
cmp_ok $best, '<', 1.5, sprintf 'others flow at the speed of the paired run (stopped/paired: %s)', join ' ', map { sprintf '%.2f', $_ } @ratios;
cmp_ok max(@ratios), '<', 4, 'in every round: no answer waited for a time-out';

$world->must('account', 'set', 'demo', '--plan', 'free');
# The jobs' connection comes back by its own back-off, 5 s at most.
wait_for(sub { $host->get('/warm/x', @demo)->status == 403 }, 15, 'changes arrive again');
pass 'changes reach the host again';
done_testing;
