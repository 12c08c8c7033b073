# Promise (G21): what `billing_on_error allow` lets through while nobody can be asked is counted, logged, and charged once PostgreSQL is
# back: exactly, for successes only, through a reload and a worker's death, also for an account that nobody has seen before.
use v5.36;
use Billing::Metrics;
use Billing::Test;

my $world = world(locations => <<'END');
    billing on;
    billing_account $user;
    billing_on_error allow;
    location /api/  { billing_quota requests; proxy_pass http://app; }
    location /dear/ { billing_quota requests cost=$arg_cost; proxy_pass http://app; }
    location /fail/ { billing_quota requests cost=100; rewrite ^ /status/500 break; proxy_pass http://app; }
    location /hop/  { billing_quota requests; error_page 404 = /dear/x?cost=5; rewrite ^ /status/404 break; proxy_intercept_errors on; proxy_pass http://app; }
    location /mirror/ { billing off; mirror /api/shadow; proxy_pass http://app; }
    location /metrics { billing off; billing_metrics; }
END
my $host = $world->host;
sub as($account) { (Authorization => "Bearer test:$account") }
sub used($account) {
    my ($row) = $world->sql(q{SELECT q.issued, q.used, q.late FROM billing.quota_periods q JOIN billing.accounts a ON a.id = q.account_id
        WHERE a.external_id = ?}, $account);
    return $row && {%$row};
}

is $host->get('/api/x', as('known'))->status, 200, 'an account that the host knows';
$world->must('account', 'set', 'known', '--limit', 'requests=10');
wait_for(sub { ($host->get('/api/x', as('known'))->header('RateLimit-Policy') // '') =~ /q=10/ }, 5, 'with a small cap');
my $before = wait_for(sub { my $row = used('known'); $row && $row->{used} == $row->{issued} && $row }, 10, 'all is reported');

$world->db->stop;
is_deeply [map { $host->get('/api/x', as('known'))->status } 1 .. 20], [(200) x 20], 'it is let through, beyond its cap';
is $host->get('/dear/x?cost=7', as('known'))->status, 200, 'with a cost of the request';
is $host->get('/fail/x', as('known'))->status, 500, 'a failure';
is $host->get('/hop/x', as('known'))->status, 200, 'a redirect: 5 units in all, not 6';
is_deeply [map { $host->get('/api/x', as('strange'))->status } 1 .. 3], [(200) x 3], 'so is an account that nobody has seen';
is $host->get('/mirror/x', as('mirrored'))->status, 200, 'what nginx mirrors is no request of anybody';
is $host->get('/dear/x?cost=-1', as('known'))->status, 400, 'nonsense is refused as ever';
$host->reload;
is $host->get('/api/x', as('known'))->status, 200, 'after a reload too';
$host->kill9_worker(0);
wait_for(sub { $host->get('/api/x', as('strange'))->status == 200 }, 5, 'and after a worker died');
my $metrics = Billing::Metrics->parse($host->get('/metrics')->body);
cmp_ok $metrics->value('billing_decisions_total', decision => 'allow_fallback', reason => 'unavailable'), '>=', 28, 'they are counted';
cmp_ok scalar(grep { scalar $_->log_lines(qr/billing: let through, for nobody can tell what its account may,/) } $world->hosts), '>', 0, 'G21: and logged';
is $metrics->value('billing_late_units_total', outcome => 'noted'), 20 + 7 + 5 + 3 + 1 + 1, 'and so are their units';

$world->db->start;
my $due = 20 + 7 + 5 + 1;
wait_for(sub { my $row = used('known'); $row && $row->{late} >= $due }, 20, 'PostgreSQL is back');
is_deeply used('known'), {used => $before->{used} + $due, issued => $before->{issued} + $due, late => $due}, 'all successes are charged, once';
wait_for(sub { my $row = used('strange'); $row && $row->{late} >= 4 }, 20, 'batches come one after another');
is used('mirrored'), undef, 'a mirrored one is not';
is used('strange')->{late}, 4, 'the strange account is made and charged';
$host->wait_log(qr/\[notice\].*billing: \d+ units that were let through while PostgreSQL was away are charged/);
wait_for(sub { $host->get('/api/x', as('known'))->status == 402 }, 10, 'the cap holds again');
is $host->get('/api/x', as('strange'))->status, 200, 'who has some left goes on';
is used('known')->{late}, $due, 'nothing was charged twice';

subtest 'a clean stop' => sub {
    $world->db->stop;
    is $host->get('/api/x', as('another'))->status, 200, 'one more is let through';
    $world->db->start;
    $host->quit;
    is used('another')->{late}, 1, 'the host charges it before it ends';
};
done_testing;
