# Promise (G15, C16): requests beyond a quota's amount pass where the plan allows it and the account has not switched it off, up to the plan's
# cap over all hosts together; what was used beyond is charged when the period closes, whichever worker or host had the units, and Stripe's
# meter counts it exactly once.
use v5.36;
use Billing::Clock;
use Billing::Conservation qw(overage_astray);
use Billing::Journey qw(answer_of everywhere within_a_second);
use Billing::Test;
use Time::Local qw(timegm);

my $clock = Billing::Clock->new;
$clock->advance(timegm(0, 0, 12, 10, 5, 2029) - $clock->now);
my $catalog = Billing::Test->sample_catalog;
$catalog->{quotas} = {calls => {period => 'day'}, bulk => {period => 'day'}, plain => {period => 'day'}};
$catalog->{plans}{$_}{quotas} = {calls => 5, bulk => 5, plain => 100} for keys $catalog->{plans}->%*;
$catalog->{plans}{pro}{quotas} = {calls => {quantity => 10, overage => {amount => '2.5', cap => 12, meter => 'calls_over'}},
    bulk => {quantity => 2000, overage => {amount => '0.01', always => JSON::PP::true}}, plain => 100};
my $world = world(hosts => 2, redis => 1, clock => $clock, catalog => $catalog, stripe => 1, locations => <<'END');
    billing on;
    billing_account $user;
    billing_role $http_x_test_role owner;
    add_header X-Decision "$billing_decision $billing_remaining $billing_source" always;
    location /calls/ { billing_quota calls warn=100%; add_header X-Decision "$billing_decision $billing_remaining $billing_warning" always; proxy_pass http://app; }
    location /pro/ { billing_plan pro; proxy_pass http://app; }
    location /bulk/ { billing_quota bulk cost=$arg_n; proxy_pass http://app; }
    location /both/ { billing_quota plain; billing_quota calls; proxy_pass http://app; }
    location = /billing/checkout { billing_checkout redirect; }
    location = /billing/settings { billing_settings; }
    location = /billing/webhook { billing_webhook; }
END
my ($host, $other) = $world->hosts;
my $stripe = $world->stripe;
my $json = JSON::PP->new->canonical->boolean_values(0, 1);
my @demo = (Authorization => 'Bearer demo-token');
my @typed = ('Content-Type' => 'application/json');

sub decision($path, $at = $host) {
    my $answer = $at->get($path, @demo);
    return answer_of($answer) . ' ' . ($answer->header('X-Decision') // '') =~ s/\s+$//r;
}
sub settings($method, $body = undef) {
    return $json->decode($host->request($method, '/billing/settings', headers => {@demo, @typed, 'X-Test-Role' => 'owner'}, defined $body ? (body => $json->encode($body)) : ())->body);
}
sub used($quota) {
    return ($world->sql(q{SELECT coalesce(sum(used), 0) AS n FROM billing.quota_periods JOIN billing.limits USING (limit_no) WHERE limit_key = ?}, $quota))[0]{n};
}
sub charges() {
    return join ' ', map { "$_->{quantity}:$_->{amount}:" . ($_->{meter} // '-') } $world->sql(q{SELECT quantity, trim_scale(amount) AS amount, meter FROM billing.usage_charges ORDER BY charge_no});
}

# --- a plan without
is decision('/calls/x'), '200 allow 4', 'the free plan' for 1;
is decision('/calls/x', $_ % 2 ? $host : $other), '200 allow ' . (4 - $_) . ($_ == 4 ? ' calls 100%' : ''), "unit $_" for 1 .. 4;
is decision('/calls/x'), '402 LIMIT_CALLS deny 0', 'refuses what is beyond it';

# --- pro: what the account has first, then overage, over both hosts
my $to = $host->post('/billing/checkout', '{"plan":"pro"}', @demo, @typed, 'X-Test-Role' => 'owner')->header('Location');
is $stripe->press($to, do => 'pay')->status, 303, 'pro is bought';
within_a_second($world, 'pro', '200', GET => '/pro/x');
my ($subscription) = $stripe->all('subscription');
my $customer = $subscription->{customer};
is decision('/calls/x', $_ % 2 ? $host : $other), '200 allow ' . (10 - $_) . ($_ == 10 ? ' calls 100%' : ''), "G15: unit $_ of ten" for 6 .. 10;
is decision('/calls/x', $_ % 2 ? $host : $other), '200 allow_overage 0 calls 100%', "G15: unit $_ of ten: overage" for 11 .. 16;
is answer_of($host->get('/calls/status/500', @demo)), '500 without a code', 'what fails' for 1 .. 3;
is decision('/both/x', $other) =~ s/ \w+$//r, '200 allow_overage 99', 'G15: whichever of its quotas';
is decision('/calls/x', $_ % 2 ? $host : $other), '200 allow_overage 0 calls 100%', "G15: unit $_ of ten: overage" for 18 .. 21;
is_deeply settings('GET')->{quotas}{calls}{cap}, 12, 'C16: the account sees its terms';
ok eval { wait_for(sub { settings('GET')->{quotas}{calls}{used} == 11 }, 5, 'reported') }, 'C16: and what it has used';

# --- the switch
is settings(POST => {overage => JSON::PP::false})->{overage}, 0, 'C16: off';
everywhere($world, 'C16: everywhere, within a second: now', '402 LIMIT_CALLS', GET => '/calls/x');
is settings(POST => {overage => JSON::PP::true})->{overage}, 1, 'C16: on again';
ok eval { wait_for(sub { $other->get('/calls/x', @demo)->status == 200 }, 5, 'on') }, 'and it counts';
is decision($_->[0], $_->[1]), '402 LIMIT_CALLS deny 0', 'G15: twelve beyond ten are the cap, over both hosts' for ['/calls/x', $host], ['/calls/x', $other];
is used('calls'), 22, 'not one more' if eval { wait_for(sub { used('calls') == 22 }, 5, 'reported') } || 1;

# --- without a cap: in pieces, at the speed of memory
is decision('/bulk/x?n=1500') =~ s/ \w+$//r, '200 allow 500', 'within';
is decision('/bulk/x?n=700') =~ s/ \w+$//r, '200 allow_overage 0', 'G15: partly beyond';
is decision('/bulk/x?n=1') =~ s/ \w+$//r, '200 allow_overage 0', 'G15: and wholly';
is decision('/bulk/x?n=1'), '200 allow_overage 0 shm', 'G15: then memory has some' for 1 .. 20;
$_->kill9_worker(0) for $host, $other;
$_->expect_log(qr/exited on signal 9/) for $host, $other;
ok eval { wait_for(sub { decision('/bulk/x?n=1') =~ /^200 allow_overage 0/ }, 10, 'back') }, 'workers die, what they held does not';
ok eval { wait_for(sub { used('bulk') >= 1500 + 700 + 22 }, 10, 'reported') }, 'all is reported';
my $bulk = used('bulk') - 2000;

# --- the day ends
is charges(), '', 'nothing is charged within the period';
$stripe->meter('calls_over');
$stripe->fault(path => '/v1/billing/meter_events', after => 1, hang => 1);    # carried out, and nobody hears of it
$clock->advance(86400);
my @stay = map { $_->get('/calls/x', @demo)->status } $host, $other;
is "@stay", '200 200', 'G15: the next day begins anew';
ok eval { wait_for(sub { $world->sql('SELECT 1 FROM billing.usage_charges OFFSET 1') }, 20, 'closed') }, 'the day before is closed';
is join(' ', sort split / /, charges()), join(' ', sort '12:30:calls_over', "$bulk:" . $bulk / 100 . ':-'), 'G15: charged at the rate of the plan, what was used beyond';
ok eval { wait_for(sub { $stripe->meter_sum('calls_over', $customer) == 12 }, 20, 'told') }, 'G15: Stripe is told';
$world->sql(q{UPDATE billing.usage_charges SET refusals = refusals + 1, next_try_at = clock_timestamp() WHERE meter IS NOT NULL RETURNING 1});
ok eval { wait_for(sub { $world->sql('SELECT 1 FROM billing.usage_charges WHERE sent_at IS NOT NULL') }, 30, 'noted') }, 'G15: told again, which Stripe knows it has been';
is $stripe->meter_sum('calls_over', $customer), 12, 'G15: exactly once';
is_deeply [overage_astray($world->db->dbi)], [], 'every unit is charged for once';

# --- a plan that changes within the day
is decision('/calls/x'), '200 allow ' . (10 - $_), "unit $_" for 3 .. 9;
$host->get('/calls/x', @demo) for 1 .. 4;
ok eval { wait_for(sub { used('calls') == 22 + 13 }, 5, 'reported') }, 'three beyond ten';
$world->must('account', 'set', 'demo', '--plan', 'agency');
is +($world->sql(q{SELECT quantity FROM billing.usage_charges ORDER BY charge_no DESC LIMIT 1}))[0]{quantity}, 3, 'G15: a plan that changes charges what there is by then';
is $stripe->log_text, '', 'the stand-in had nothing to complain about';
done_testing;
