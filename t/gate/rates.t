# The promise (G25): an account gets as many requests in a short time as its plan says, exactly over the workers of a host; the others
# are told to wait, and how long, after everything else has been asked (G3), and nothing is taken from quotas for them (G18).
use v5.36;
use Billing::Test;
use Time::HiRes qw(time);

my %rates = (free => '3/1h', starter => '3/1h', pro => '6/1h', agency => undef);
sub catalog() {
    my $catalog = Billing::Test->sample_catalog;
    $catalog->{rates}{quick} = {};
    $_->{rates}{quick} = '2/2s' for values $catalog->{plans}->%*;
    $catalog->{plans}{$_}{rates}{chatbot} = $rates{$_} for keys %rates;
    $catalog->{quotas}{few} = {period => 'month'};
    $_->{quotas}{few} = 1 for values $catalog->{plans}->%*;
    return $catalog;
}
sub by($name) { return (Authorization => "Bearer test:$name") }
sub statuses(@answers) {
    my %count;
    $count{$_->status}++ for @answers;
    return join ' ', map { "$_:$count{$_}" } sort keys %count;
}

my $world = world(hosts => 2, catalog => catalog(), locations => <<'END');
    billing on;
    billing_account $user;
    location /chat/ { billing_rate chatbot; proxy_pass http://app; }
    location /again/ { billing_rate chatbot; try_files /nowhere /chat/again; }
    location /mirror/ { mirror /chat/shadow; proxy_pass http://app; }
    location /shared/ { billing_rate chatbot hosts=2; proxy_pass http://app; }
    location /quick/ { billing_rate quick; proxy_pass http://app; }
    location /metered/ { billing_quota requests; billing_rate chatbot; proxy_pass http://app; }
    location /few/ { billing_quota few; billing_rate chatbot; proxy_pass http://app; }
    location /other/ { billing_rate chatbot; billing_codes rate=503; proxy_pass http://app; }
    location /free/ { proxy_pass http://app; }
END
my ($one, $two) = $world->hosts;

subtest 'as many as the plan says' => sub {
    is statuses($one->get_many(24, 8, '/chat/x', by('ann'))), '200:3 429:21', 'G25: three of many at once, over two workers';
    my $refused = $one->get('/chat/x', by('ann'));
    is $refused->status, 429, 'refused';
    my $wait = $refused->header('Retry-After');
    ok $wait > 1150 && $wait <= 1200, "Retry-After: a third of an hour ($wait s)";
    my $body = $refused->json;
    is "$body->{code} $body->{rate} $body->{error} $body->{requiredPlan}", 'RATE_CHATBOT chatbot Too many requests pro',
        'the problem names the rate and the plan that allows more';
    is $refused->header('Cache-Control'), 'no-store', 'and is not kept';
    is $refused->header('RateLimit'), undef, 'RateLimit fields are for units';
    is statuses($one->get_many(5, 1, '/chat/x', by('bob'))), '200:3 429:2', 'another account has its own';
    is $one->get('/free/x', by('ann'))->status, 200, 'another location has none';
    is $one->get('/other/x', by('ann'))->status, 503, 'billing_codes: another status';
    is $world->app->count('/chat/x'), 6, 'the application saw six';
};

subtest 'the plan changes' => sub {
    $world->must('account', 'set', 'ann', '--plan', 'pro');
    wait_for(sub { $one->get('/chat/x', by('ann'))->header('Retry-After') <= 600 }, 5, 'a better plan: half as long to wait');
    $world->must('account', 'set', 'ann', '--plan', 'agency');
    wait_for(sub { $one->get('/chat/x', by('ann'))->status == 200 }, 5, 'the plan without a limit lets through');
    is statuses($one->get_many(20, 4, '/chat/x', by('ann'))), '200:20', 'everything';
    $world->must('account', 'set', 'ann', '--plan', 'free');
    wait_for(sub { $one->get('/chat/x', by('ann'))->status == 429 }, 5, 'and back: what was used before still counts');
    pass 'G25: follows the plan';
};

subtest 'each host counts by itself' => sub {
    is statuses($one->get_many(5, 1, '/chat/x', by('carl')), $two->get_many(5, 1, '/chat/x', by('carl'))), '200:6 429:4',
        'two hosts let through twice as much';
    is statuses(map { $_->get_many(5, 1, '/shared/x', by('dora')) } $one, $two), '200:2 429:8', 'hosts=2: each its part, rounded down';
    $one->reload;
    is $one->get('/chat/x', by('carl'))->status, 429, 'a reload forgets nothing';
};

subtest 'it comes back' => sub {
    is statuses($one->get_many(3, 1, '/quick/x', by('eve'))), '200:2 429:1', 'two at once';
    my $wait = $one->get('/quick/x', by('eve'))->header('Retry-After');
    is $wait, 1, 'one each second';
    my $began = time;
    wait_for(sub { $one->get('/quick/x', by('eve'))->status == 200 }, 5, 'after that');
    cmp_ok time - $began, '<=', 1.5 * Billing::Process::patience(), 'as told';
};

subtest 'G18: with quotas' => sub {
    is statuses($one->get_many(8, 1, '/metered/x', by('fred'))), '200:3 429:5', 'the rate refuses';
    wait_for(sub { ($world->sql(q{SELECT sum(used) AS n FROM billing.quota_periods}))[0]{n} }, 5, 'usage is reported');
    $world->must('account', 'set', 'fred', '--plan', 'agency');    # every host gives back what it holds
    wait_for(sub { my ($row) = $world->sql(q{SELECT q.issued, q.used FROM billing.quota_periods q JOIN billing.accounts a ON a.id = q.account_id
        WHERE a.external_id = 'fred'}); $row->{issued} == 3 && $row->{used} == 3 }, 5, 'three units are issued and used');
    pass 'a refusal by a rate takes nothing';
    is statuses($one->get_many(5, 1, '/few/x', by('gus'))), '200:1 402:4', 'G3: the quota is asked first';
    is statuses($one->get_many(5, 1, '/chat/x', by('gus'))), '200:2 429:3', 'and what it refused has not counted';
};

subtest 'once for a request' => sub {
    is statuses($one->get_many(5, 1, '/again/x', by('hal'))), '200:3 429:2', 'an internal redirect into the same rate counts once';
    is statuses($one->get_many(5, 1, '/mirror/x', by('ida'))), '200:5', 'requests that are mirrored to a rate';
    is statuses($one->get_many(5, 1, '/chat/x', by('ida'))), '200:3 429:2', 'use up none of it';
};
done_testing;
