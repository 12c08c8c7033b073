# Promise (G15, C16, AC-16): units beyond a plan's pass where the plan allows it and the account has not switched it off, under the plan's
# cap; what is charged for them at the end of the period reaches Stripe's meter exactly once, whatever becomes of workers and answers; and
# the switch is the account's owner's, in force on every host.
use v5.36;
use Billing::Journey qw(answer_of everywhere within_a_second problem);
use Billing::Process qw(patience);
use Billing::Test;

my $catalog = Billing::Test->sample_catalog;
$catalog->{plans}{pro}{credits}{logo} = {quantity => 50, overage => {amount => '40', cap => 20, meter => 'logo_overage'}};
$catalog->{plans}{agency}{credits}{logo} = {quantity => 200, overage => {amount => '12.5', always => JSON::PP::true, meter => 'agency_logos'}};
my $world = world(hosts => 2, catalog => $catalog, stripe => 1, locations => <<'END');
    billing on;
    billing_account $user;
    billing_role $http_x_test_role owner;
    location /any/ { billing_credits logo $arg_n; proxy_pass http://app; }
    location = /billing/checkout { billing_checkout redirect; }
    location = /billing/settings { billing_settings; }
    location = /billing/webhook { billing_webhook; }
    location /known/ { billing_unknown_account deny; location = /known/settings { billing_settings; } }
    location /credits/ { billing off; billing_credits_api token=a_secret_of_this_test_only; }
END
my ($host, $other) = $world->hosts;
my $stripe = $world->stripe;
my $json = JSON::PP->new->canonical->boolean_values(0, 1);
my @demo = (Authorization => 'Bearer demo-token');
my @typed = ('Content-Type' => 'application/json');

sub balance() {
    return ($world->sql(q{SELECT remaining || '/' || used || '/' || overage AS b FROM billing.credit_balances JOIN billing.credit_types USING (credit_no)
        JOIN billing.accounts a ON a.id = account_id WHERE external_id = 'demo' AND credit_key = 'logo'}))[0]{b};
}
sub settles($wanted, $what) {
    ok eval { wait_for(sub { !$world->sql('SELECT 1 FROM billing.credit_holds') && balance() eq $wanted }, 10, $what) }, "$what: $wanted" or diag balance();
    return;
}
sub settings($method, $body = undef, %with) {
    my $path = delete $with{path} // '/billing/settings';
    my $at = delete $with{host} // $host;
    my $answer = $at->request($method, $path, headers => {@demo, @typed, 'X-Test-Role' => 'owner', %with}, defined $body ? (body => $json->encode($body)) : ());
    return $answer->status == 200 ? $json->decode($answer->body) : answer_of($answer);
}
sub settled() {
    $stripe->wait_delivered;
    wait_for(sub { !$world->sql(q{SELECT 1 FROM billing.webhook_events WHERE status IN ('received', 'processing')}) }, 20, 'all events are processed');
    return;
}
sub sent() { return ($world->sql('SELECT count(sent_at) AS n FROM billing.usage_charges'))[0]{n} }
sub try_now() { $world->sql(q{UPDATE billing.usage_charges SET next_try_at = clock_timestamp() WHERE sent_at IS NULL RETURNING 1}); return }

# --- a plan without
is $host->get('/any/?n=1', @demo)->status, 200, 'an account on the free plan';
is_deeply settings('GET'), {overage => 0, switchable => 0, credits => {}, quotas => {}}, 'C16: which has none';
is settings(POST => {overage => JSON::PP::true}), '409 NOT_SWITCHABLE', 'C16: and nothing to switch';

# --- pro
my $to = $host->post('/billing/checkout', '{"plan":"pro"}', @demo, @typed, 'X-Test-Role' => 'owner')->header('Location');
is $stripe->press($to, do => 'pay')->status, 303, 'pro is bought';
ok eval { wait_for(sub { balance() eq '49/1/0' }, 10, 'pro') }, 'what was used counts' or diag balance();
my ($subscription) = $stripe->all('subscription');
my $customer = $subscription->{customer};
$world->must('catalog', 'apply', $world->{catalog});
my $check = $json->decode($host->post('/credits/check', $json->encode({account => 'demo', credit => 'logo', quantity => 60}), @typed,
    Authorization => 'Bearer a_secret_of_this_test_only')->body);
is_deeply [@$check{qw(allowed overageAllowed remaining)}], [1, 1, 49], 'AC-16: a check of 60 with what is left on pro: allowed, as overage';
is $host->get('/any/?n=59', @demo)->status, 200, 'AC-16, G15: through the gate';
settles('0/50/10', 'G15: what is left is taken first, the excess is overage');
is $host->get('/any/status/500?n=5', @demo)->status, 500, 'what fails';
settles('0/50/10', 'is no overage');
is answer_of($other->get('/any/?n=11', @demo)), '402 INSUFFICIENT_CREDITS', 'G15: beyond the cap';

# --- the switch
is_deeply settings('GET', undef, 'X-Test-Role' => 'member'), {overage => 1, switchable => 1,
    credits => {logo => {always => 0, amount => '40', cap => 20, used => 10}}, quotas => {}}, 'C16: it is told to everybody of the account';
is settings(POST => {overage => JSON::PP::false}, 'X-Test-Role' => 'member'), '403 ROLE_REQUIRED', 'C16: and switched by its owner';
is settings(POST => {overage => JSON::PP::false}, Authorization => ''), '401 ACCOUNT_REQUIRED', 'not by nobody';
is settings(POST => {}), '400 INVALID_REQUEST', 'not without saying what';
is settings(POST => {overage => 'perhaps'}), '400 INVALID_REQUEST', 'nor how';
is answer_of($host->post('/billing/settings', 'overage=off', @demo, 'X-Test-Role' => 'owner', 'Content-Type' => 'application/x-www-form-urlencoded',
    Origin => 'https://evil.example', 'Sec-Fetch-Site' => 'cross-site')), '403 CROSS_SITE', "nor by another site's form";
is settings(POST => {overage => JSON::PP::false, account_id => 'other'}), '403 NOT_YOURS', 'nor for another account';
is settings(PUT => {overage => JSON::PP::false}), '405 METHOD_NOT_ALLOWED', 'nor by another method';
is settings(GET => undef, path => '/known/settings', Authorization => 'Bearer test:stranger'), '403 UNKNOWN_ACCOUNT', 'an account that there is not';
is settings('GET')->{overage}, 1, 'none of which changed it';
is settings(POST => {overage => JSON::PP::false})->{overage}, 0, 'C16: off';
everywhere($world, 'C16: everywhere, within a second: now', '402 INSUFFICIENT_CREDITS', GET => '/any/?n=1');
is settings(GET => undef, host => $other)->{overage}, 0, 'C16: and told so';
is_deeply [map { "$_->{actor} $_->{before} $_->{after}" } $world->sql(q{SELECT actor, before, after FROM billing.audit_log WHERE after ->> 'overage_on' = 'false'})],
    ['demo {"overage_on": true} {"overage_on": false}'], 'C16: audited';
is settings(POST => {overage => JSON::PP::true}, host => $other)->{overage}, 1, 'C16: on again, by the other host';
is $host->get('/any/?n=2', @demo)->status, 200, 'and it counts';
settles('0/50/12', 'G15: overage');

# --- the period ends; Stripe is told once
$stripe->clear_calls;
$stripe->end_period($subscription);
settled();
ok eval { wait_for(sub { balance() eq '50/0/0' }, 10, 'refilled') }, 'the renewal begins anew' or diag balance();
is_deeply [map { "$_->{quantity} $_->{amount} $_->{currency} $_->{meter}" } $world->sql('SELECT quantity, trim_scale(amount) AS amount, currency, meter FROM billing.usage_charges')],
    ['12 480 usd logo_overage'], 'G15: charged at the close of its period, at the rate of the plan';
ok eval { wait_for(sub { $world->sql(q{SELECT 1 FROM billing.usage_charges WHERE refusals > 0}) }, 15, 'refused') }, 'Stripe has no such meter yet';
my $refused = qr/Stripe refuses overage for the meter "logo_overage"/;
$_->expect_log($refused) for grep { $_->log_lines($refused) } $host, $other;
is_deeply [map { $_->{kind} } $world->sql(q{SELECT payload ->> 'alarm' AS kind FROM billing.outbox WHERE topic = 'alarm' AND payload ->> 'alarm' LIKE 'overage%'})],
    ['overage_refused'], 'which raises an alarm, once';
$stripe->meter('logo_overage');

# The event is carried out, its answer never comes, and the workers die that wait for it.
$stripe->fault(path => '/v1/billing/meter_events', after => 1, hang => 1);
try_now();
ok eval { wait_for(sub { $stripe->meter_sum('logo_overage', $customer) == 12 }, 15, 'told') }, 'G15: Stripe is told';
is sent(), 0, 'but nobody has heard so';
for my $each ($host, $other) {
    $each->kill9_workers;
    $each->expect_log(qr/exited on signal 9/);
}
ok eval { wait_for(sub { $host->get('/any/?n=1', @demo)->status == 200 }, 10, 'back') }, 'their successors serve';
# Another key, as it is after a refusal: the identifier alone makes it the same event.
$world->sql('UPDATE billing.usage_charges SET refusals = refusals + 1, next_try_at = clock_timestamp() RETURNING 1');
ok eval { wait_for(sub { sent() == 1 }, 20, 'noted') }, 'G15: told again, which Stripe knows it has been';
is $stripe->meter_sum('logo_overage', $customer), 12, 'G15: exactly once';

# --- agency: always
$stripe->meter('agency_logos');
$stripe->change_plan($subscription->{id}, 'price_agency_monthly');
settled();
is settings('GET')->{switchable}, 0, 'C16: agency is always on';
is settings(POST => {overage => JSON::PP::false}), '409 NOT_SWITCHABLE', 'C16: and cannot be switched off';
is $host->get('/any/?n=205', @demo)->status, 200, 'G15: without a cap';
ok eval { wait_for(sub { !$world->sql('SELECT 1 FROM billing.credit_holds') }, 10, 'decided') }, 'decided';
my ($over) = $world->sql(q{SELECT overage AS n FROM billing.credit_balances JOIN billing.credit_types USING (credit_no) WHERE credit_key = 'logo' AND overage > 0});

# Stripe is away when the last subscription ends.
$stripe->fault(path => '/v1/billing/meter_events', status => 500, count => 0);
$stripe->cancel_now($subscription->{id});
settled();
ok eval { wait_for(sub { $world->sql(q{SELECT 1 FROM billing.usage_charges WHERE meter = 'agency_logos' AND tries > 0}) }, 15, 'tried') },
    'G15: charged when the last subscription ends';
$stripe->clear_faults;
try_now();
ok eval { wait_for(sub { sent() == 2 }, 30, 'noted') }, 'G15: an outage delays it';
is $stripe->meter_sum('agency_logos', $customer), $over->{n}, 'G15: exactly once';
is_deeply [map { $_->{refusals} } $world->sql(q{SELECT refusals FROM billing.usage_charges WHERE meter = 'agency_logos'})], [0], 'and is nobody\'s fault';
is $stripe->log_text, '', 'the stand-in had nothing to complain about';
done_testing;
