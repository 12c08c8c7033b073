# The promise (G10): a quota's window is the account's own where it should be: its billing months from its anchor on, days of its time
# zone, the time before now. Exactly the cap over two hosts in each of them, no event and no write begins one, and a refusal says when
# units come back. The clock of hosts and PostgreSQL is moved; nothing is waited for but what the hosts tell each other.
use v5.36;
use Billing::Clock;
use Billing::Test;
use Time::Local qw(timegm);

my $clock = Billing::Clock->new;
sub date($y, $m, $d, $h = 0, $mi = 0, $s = 0) { return timegm($s, $mi, $h, $d, $m - 1, $y) }
sub at($time) { $clock->advance($time - $clock->now); return }
sub by($name) { return (Authorization => "Bearer test:$name") }
my $patience = 20;    # seconds that what a test says may take before the clock shows it

at(date(2029, 1, 31, 12));
my $catalog = Billing::Test->sample_catalog;
$catalog->{quotas} = {
    exports => {period => 'cycle'}, calls => {period => 'sliding', length => '1h'}, visits => {period => 'day'},
    messages => {windows => {minute => {period => 'minute'}, cycle => {period => 'cycle'}}},
};
for my $key (keys $catalog->{plans}->%*) {
    $catalog->{plans}{$key}{quotas} = {exports => $key eq 'free' ? 5 : 50, calls => 4, visits => 3,
        messages => {minute => 2, cycle => $key eq 'free' ? 3 : undef}};
}
my $world = world(hosts => 2, redis => 1, clock => $clock, catalog => $catalog, locations => <<'END');
    billing on;
    billing_account $user;
    location /exports/ { billing_quota exports; proxy_pass http://app; }
    location /calls/ { billing_quota calls; proxy_pass http://app; }
    location /visits/ { billing_quota visits; proxy_pass http://app; }
    location /messages/ { billing_quota messages window=minute; billing_quota messages window=cycle; proxy_pass http://app; }
    location /free/ { proxy_pass http://app; }
END
my @hosts = $world->hosts;

# How many of so many requests pass, asked of the hosts in turn.
sub passed($count, $path, $name) { return scalar grep { $hosts[$_ % @hosts]->get($path, by($name))->status == 200 } 1 .. $count }
sub changes() { return ($world->sql('SELECT count(*) AS n FROM billing.audit_log'))[0]{n} }
sub near($got, $wanted, $what) { return ok(defined $got && abs($got - $wanted) <= $patience, $what) || diag "got ", $got // 'nothing', ", wanted $wanted" }

subtest 'billing months of an account' => sub {
    is $_->get('/free/x', by('ann'))->status, 200, "$_->{name}: a new account" for @hosts;
    $world->must('account', 'set', 'ann', '--cycle-anchor', '2029-01-31T11:00:00Z');
    my $changes = changes();
    is passed(10, '/exports/x', 'ann'), 5, 'G10: five in its month, over both hosts';
    my $refused = $hosts[1]->get('/exports/x', by('ann'));
    is $refused->json->{code}, 'LIMIT_EXPORTS', 'then refused';
    is $refused->json->{resetAt}, '2029-02-28T11:00:00Z', 'till the end of February: the day is clamped';
    near($refused->header('Retry-After'), date(2029, 2, 28, 11) - $clock->now, 'Retry-After says the same');
    is $refused->header('RateLimit-Policy'), '"exports";q=5;w=' . 28 * 86400, 'a month of 28 days';
    at(date(2029, 2, 28, 11) - $patience);
    is passed(2, '/exports/x', 'ann'), 0, 'not before';
    at(date(2029, 2, 28, 11));
    is passed(10, '/exports/x', 'ann'), 5, 'half open: from that second on the next month, with its own five';
    is $hosts[0]->get('/exports/x', by('ann'))->json->{resetAt}, '2029-03-31T11:00:00Z', 'which ends on the 31st again';
    is changes(), $changes, 'nobody has changed anything for that';
};

subtest 'N: a new anchor brings nothing that was given' => sub {
    at(date(2029, 3, 10));
    $world->must('account', 'set', 'ann', '--plan', 'pro', '--cycle-anchor', '2029-03-10T00:00:00Z');
    wait_for(sub { $hosts[0]->get('/exports/x', by('ann'))->status == 200 }, 5, 'subscribed: more at once');
    is passed(60, '/exports/x', 'ann'), 44, 'fifty less what the running month had';
    at(date(2029, 3, 15));
    $world->must('account', 'set', 'ann', '--cycle-anchor', '2029-03-15T00:00:00Z');
    is passed(4, '/exports/x', 'ann'), 0, 'another anchor, none';
    my $account = $world->account('ann');
    is "$account->{cycle_anchor} $account->{limits}{exports}{period} $account->{limits}{exports}{available}",
        '2029-03-15T00:00:00Z cycle 0', 'account show says so';
    at(date(2029, 4, 10));
    is passed(60, '/exports/x', 'ann'), 50, 'until the month that they were taken from is over';
};

subtest 'sliding' => sub {
    at(date(2029, 5, 1, 0, 1));
    is passed(3, '/calls/x', 'bob'), 3, 'three';
    at(date(2029, 5, 1, 0, 30));
    is passed(5, '/calls/x', 'bob'), 1, 'G10: and a fourth half an hour later, over both hosts';
    for my $host (@hosts) {
        my $refused = $host->get('/calls/x', by('bob'));
        near($refused->header('Retry-After'), date(2029, 5, 1, 1, 3) - $clock->now, "$host->{name}: Retry-After: when the first come back");
        is $refused->json->{resetAt}, '2029-05-01T01:03:00Z', "$host->{name}: resetAt, too";
        is $refused->header('RateLimit-Policy'), '"calls";q=4;w=3600', "$host->{name}: the window is an hour";
    }
    at(date(2029, 5, 1, 1, 3) - $patience);
    is passed(2, '/calls/x', 'bob'), 0, 'within the hour no fifth, and a twentieth longer';
    at(date(2029, 5, 1, 1, 3));
    is passed(6, '/calls/x', 'bob'), 3, 'then three';
    my $answer = $hosts[0]->get('/calls/x', by('carl'));
    is $answer->header('RateLimit'), '"calls";r=3', 'who passes is told what is left; nothing comes back at one moment';
};

subtest 'the account\'s time zone' => sub {
    at(date(2029, 10, 27, 21));
    is passed(4, '/visits/x', 'dora'), 3, 'in UTC first';
    $world->must('account', 'set', 'dora', '--zone', 'Europe/Berlin');
    wait_for(sub { my $json = $hosts[0]->get('/visits/x', by('dora'))->json // {}; ($json->{resetAt} // '') eq '2029-10-27T22:00:00Z' }, 5,
        'G10: the day ends at midnight there');
    is passed(2, '/visits/x', 'dora'), 0, 'and has given its three';
    at(date(2029, 10, 27, 22));
    is passed(5, '/visits/x', 'dora'), 3, 'the next day';
    my $refused = $hosts[1]->get('/visits/x', by('dora'));
    is $refused->json->{resetAt}, '2029-10-28T23:00:00Z', 'has 25 hours';
    is $refused->header('RateLimit-Policy'), '"visits";q=3;w=90000', 'as the policy says';
    at(date(2029, 10, 28, 22));
    is passed(2, '/visits/x', 'dora'), 0, 'which count';
    is passed(4, '/visits/x', 'emil'), 3, 'who has no zone has days of UTC';
    at(date(2029, 10, 28, 23));
    is passed(5, '/visits/x', 'dora'), 3, 'and then it is over';
    my $wrong = $world->command('account', 'set', 'dora', '--zone', 'Berlin');
    is $wrong->{code}, 1, 'a name that is none is refused';
    like $wrong->{err}, qr{"Berlin" is no time zone; write one as Europe/Berlin}, 'and says what to write';
    at(date(2032, 6, 1, 21, 30));
    is $hosts[0]->get('/visits/x', by('dora'))->status, 200, 'years later, with nothing changed';
    passed(4, '/visits/x', 'dora');
    is $hosts[0]->get('/visits/x', by('dora'))->json->{resetAt}, '2032-06-01T22:00:00Z', 'the zone is known anew';
};

subtest 'two windows of one quota' => sub {
    at(date(2032, 7, 1, 0, 0, 1));
    is passed(4, '/messages/x', 'fred'), 2, 'G10: the minute refuses';
    my $refused = $hosts[0]->get('/messages/x', by('fred'))->json;
    is "$refused->{code} $refused->{quota} $refused->{window} $refused->{limit}", 'LIMIT_MESSAGES messages minute 2', 'and is named';
    at(date(2032, 7, 1, 0, 1, 1));
    is passed(4, '/messages/x', 'fred'), 1, 'then the month';
    $refused = $hosts[0]->get('/messages/x', by('fred'))->json;
    is "$refused->{code} $refused->{quota} $refused->{window} $refused->{limit}", 'LIMIT_MESSAGES messages cycle 3', 'with its name';
    my $limits = $world->account('fred')->{limits};
    wait_for(sub { $limits = $world->account('fred')->{limits}; $limits->{'messages:cycle'}{used} == 3 }, 5, 'usage is reported');
    is $limits->{'messages:minute'}{used}, 1, 'G18: what the month refused has not counted in the minute';
};
done_testing;
