# Promise (G16): a request that reaches a threshold of a quota says so in $billing_warning, for logs, upstream fields and answers, until the
# period ends; and its account is told once, over any number of hosts.
use v5.36;
use Billing::Clock;
use Billing::Process qw(slurp);
use Billing::Test;
use Time::Local qw(timegm);

my $clock = Billing::Clock->new;
$clock->advance(timegm(0, 0, 12, 10, 5, 2029) - $clock->now);
my $catalog = Billing::Test->sample_catalog;
$catalog->{quotas} = {calls => {period => 'day'}, bytes => {windows => {day => {period => 'day'}, hour => {period => 'sliding', length => '1h'}}}, points => {period => 'day'}};
$catalog->{plans}{$_}{quotas} = {calls => 10, bytes => {day => 2000, hour => $_ eq 'free' ? 1000 : undef}, points => 0} for keys $catalog->{plans}->%*;
my $world = world(hosts => 2, redis => 1, clock => $clock, catalog => $catalog, http => <<'HTTP', locations => <<'END');
    log_format billing '$uri|$billing_warning|$billing_decision';
HTTP
    billing on;
    billing_account $user;
    access_log %%PREFIX%%/access.log billing;
    add_header X-Warning $billing_warning;
    location /calls/ { billing_quota calls warn=100% warn=80%; billing_pass_headers on; proxy_pass http://app; }
    location /two/ { billing_quota calls; billing_quota bytes window=day cost=$arg_n warn=50%; billing_quota bytes window=hour cost=$arg_n warn=90%; proxy_pass http://app; }
    location /quiet/ { billing_quota calls; billing_pass_headers on; proxy_pass http://app; }
    location /none/ { billing_quota points warn=80%; proxy_pass http://app; }
    location = /check { billing_quota calls warn=80%; billing_check; }
END
my @hosts = $world->hosts;
sub by($name) { return (Authorization => "Bearer test:$name") }
sub warned($path, $name, $host = $hosts[0]) {
    my $answer = $host->get($path, by($name));
    return $answer->status . ' ' . ($answer->header('X-Warning') // '-');
}
sub told($name) {
    return join ', ', map { "$_->{quota} $_->{threshold}" } $world->sql(q{SELECT payload ->> 'quota' AS quota, payload ->> 'threshold' AS threshold FROM billing.outbox o
        JOIN billing.accounts a ON a.id = o.account_id WHERE topic = 'quota:threshold' AND external_id = ? ORDER BY date_trunc('day', o.created_at), payload ->> 'quota', (payload ->> 'threshold')::integer}, $name);
}
sub comes_to($name, $wanted, $what) {
    ok eval { wait_for(sub { told($name) eq $wanted }, 10, $what) }, $what or diag told($name);
    return;
}

subtest 'a threshold is reached' => sub {
    is warned('/calls/x', 'ann', $hosts[$_ % 2]), '200 -', "G16: unit $_ of ten" for 1 .. 7;
    is warned('/calls/x', 'ann'), '200 calls 80%', 'G16: the eighth';
    comes_to('ann', 'calls 80', 'G16: is told');
    is warned('/calls/x', 'ann', $hosts[1]), '200 calls 80%', 'G16: the ninth, on the other host';
    my $tenth = $hosts[1]->get('/calls/x', by('ann'));
    is $tenth->header('X-Warning'), 'calls 100%', 'G16: the highest of several';
    is $tenth->json->{headers}{'x-billing-warning'}, 'calls 100%', 'G23: the application reads it';
    is warned('/calls/x', 'ann'), '402 -', 'the eleventh is refused';
    comes_to('ann', 'calls 80, calls 100', 'G16: each threshold once');
    is $hosts[0]->get('/check', by('bob'))->header('X-Billing-Warning'), undef, 'a check';
    is $hosts[0]->get('/quiet/x', by('bob'))->status, 200, 'where nobody wants a warning' for 1 .. 5;
    is $hosts[0]->get('/quiet/x', by('bob'))->json->{headers}{'x-billing-warning'}, undef, 'there is none';
    is $hosts[0]->get('/check', by('bob'))->header('X-Billing-Warning'), 'calls 80%', 'G16: a proxy that asks is told';
    comes_to('bob', 'calls 80', 'G16: wherever they were spent');
    my @lines = map { slurp($_->directory . '/access.log') } @hosts;
    like join('', @lines), qr{^/calls/x\|calls 80%\|allow$}m, 'G16: in the log';
};

subtest 'several quotas, failures' => sub {
    is warned('/two/x?n=800', 'cid'), '200 -', '800 of 2000 in a day, of 1000 in an hour';
    is warned('/two/status/500?n=190', 'eve'), '500 -', 'answers of failures carry no such fields';
    is warned('/two/x?n=100', 'cid'), '200 bytes:hour 90%', 'G16: 900 of 1000 in an hour';
    is warned('/two/x?n=100', 'cid'), '200 bytes:hour 90%', 'G16: the highest of them';
    comes_to('cid', 'bytes:day 50, bytes:hour 90', 'G16: each of them');
    $world->must('account', 'set', 'dan', '--limit', 'calls=100') if $hosts[0]->get('/quiet/x', by('dan'))->status == 200;
    ok eval { wait_for(sub { $hosts[0]->get('/quiet/x', by('dan'))->header('RateLimit-Policy') =~ /q=100/ }, 5, 'an exception') }, 'an exception for an account';
    is warned('/calls/x', 'dan'), '200 -', 'G16: counts' for 1 .. 8;
    is warned('/none/x', 'dan'), '402 -', 'who has none is not warned of it';
};

subtest 'the next period' => sub {
    $clock->advance(86400);
    is warned('/calls/x', 'ann', $_), '200 -', 'G16: nothing is used yet' for @hosts;
    is warned('/calls/x', 'ann', $hosts[$_ % 2]), '200 ' . ($_ < 8 ? '-' : 'calls 80%'), "unit $_" for 3 .. 8;
    comes_to('ann', 'calls 80, calls 100, calls 80', 'G16: and told anew');
};
done_testing;
