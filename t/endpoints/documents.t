# Promise (C12, C13): who speaks for an account reads all that it has and may have, in the members that the applications of systems C and D
# know; nobody else reads anything.
use v5.36;
use Billing::Journey qw(answer_of);
use Billing::Process qw(wait_for);
use Billing::Test;

my $catalog = Billing::Test->sample_catalog;
$catalog->{quotas}{calls} = {windows => {day => {period => 'day'}, month => {period => 'month'}}};
$catalog->{plans}{free}{quotas}{calls} = {day => 5, month => 50};
$catalog->{plans}{pro}{quotas}{calls} = {day => undef, month => undef};
$catalog->{plans}{pro}{credits}{logo} = {quantity => 50, overage => {amount => '40'}};
$catalog->{plans}{free}{attributes} = {priority => 10, brand_limit => 1};
$catalog->{plans}{pro}{attributes} = {priority => 1, brand_limit => 10};
my $world = world(catalog => $catalog, stripe => 1, locations => <<'END');
    billing_account $user;
    location /api/ { billing on; billing_quota requests; billing_quota calls window=day; proxy_pass http://app; }
    location = /billing/checkout { billing_checkout redirect; }
    location = /billing/webhook { billing_webhook; }
    location = /billing/status { billing_status; billing_role $http_x_test_role owner; }
    location = /me/entitlements { billing_entitlements quota=requests preview=chatbot; }
    location = /me/window { billing_entitlements quota=calls:day; }
    location = /me/preview { billing_entitlements preview=logo_generation; }
    location ~ ^/of/(?<whose>[^/]+)/entitlements$ { billing_account $whose; billing_entitlements quota=requests preview=chatbot; }
    location /known/ { billing_unknown_account deny; location = /known/status { billing_status; } location = /known/entitlements { billing_entitlements quota=requests; } }
END
my $host = $world->host;
my ($true, $false) = (1, 0);
my @demo = (Authorization => 'Bearer demo-token');
sub as($account) { return (Authorization => "Bearer test:$account") }
sub status(@who) { my $answer = $host->get('/billing/status', @who); return $answer->status == 200 ? $answer->json : answer_of($answer) }
sub short($path, @who) { my $answer = $host->get($path, @who); return $answer->status == 200 ? $answer->json : answer_of($answer) }

# --- C13: somebody new
my $new = $host->get('/billing/status', as('new'));
is $new->status, 200, 'C13: somebody who was never here';
is $new->header('Cache-Control'), 'no-store', 'kept by nobody';
my $document = $new->json;
is_deeply [@$document{qw(account plan tier status subscription maintenance writeEnabled billingEnforced graceUntil)}],
    ['new', 'free', 'free', 'active', undef, $false, $true, $false, undef], 'C13: has the free plan, and no subscription';
is_deeply $document->{tierConfig}, {displayName => 'Free', price => 0, priority => 10, brandLimit => 1,
    features => [sort $catalog->{plans}{free}{features}->@*]}, "C13: tierConfig, with the plan's attributes";
is_deeply $document->{features}, [sort $catalog->{plans}{free}{features}->@*], 'its features';
is_deeply $document->{limits}, {requests => 20, 'calls:day' => 5, 'calls:month' => 50, brands => 1}, 'C13: limits of quotas and stocks';
is_deeply $document->{usage}, {requests => 0, 'calls:day' => 0, 'calls:month' => 0, brands => 0}, 'C13: usage by the same names';
like $document->{resets}{requests}, qr/^\d{4}-\d\d-01T00:00:00Z$/, 'and when they begin anew';
is_deeply $document->{credits}, {logo => {remaining => 4, used => 0, overage => 0}, mockup => {remaining => 4, used => 0, overage => 0}, periodEnd => undef},
    'C13: credits by type';
is_deeply $document->{overage}, {overage => $false, switchable => $false}, 'no overage';
is_deeply [map { "$_->{plan}" . ($_->{current} ? '*' : '') } $document->{plans}->@*], [qw(free* starter pro agency)], 'C13: the plans, the cheapest first';
is_deeply $document->{plans}[2]{prices}, {month => {amount => 79, currency => 'usd'}, year => {amount => 790, currency => 'usd'}}, 'with their prices';
is_deeply $document->{plans}[3]{limits}, {requests => undef, brands => undef}, 'no limit is null';
is_deeply [@$document{qw(stripeConfigured testMode)}], [$true, $true], 'C13: whether Stripe is configured, and whether for tests';

# --- C13: a customer
my $to = $host->post('/billing/checkout', '{"plan":"pro"}', @demo, 'Content-Type' => 'application/json')->header('Location');
is $world->stripe->press($to, do => 'pay')->status, 303, 'pro is bought';
ok eval { wait_for(sub { status(@demo)->{plan} eq 'pro' }, 10, 'pro') }, 'and applied';
$world->stripe->wait_delivered;
is $host->get('/api/x', @demo)->status, 200, 'used';
ok eval { wait_for(sub { status(@demo)->{usage}{requests} == 1 }, 10, 'usage') }, 'C13: usage, as soon as the host has told it';
$document = status(@demo);
is_deeply [@$document{qw(plan tier status)}], ['pro', 'pro', 'active'], 'C13: plan and status';
is_deeply [@{$document->{tierConfig}}{qw(displayName price brandLimit)}], ['Pro', 79, 10], 'C13: tierConfig: the price in whole units';
my $subscription = $document->{subscription};
is_deeply [@$subscription{qw(status cancelAtPeriodEnd cancelAt trialEnd price)}],
    ['active', $false, undef, undef, {amount => 79, currency => 'usd', interval => 'month'}], 'AC-25: the subscription';
like "$subscription->{currentPeriodStart} $subscription->{currentPeriodEnd}", qr/^\S+T\S+Z \S+T\S+Z$/, 'AC-25: and its period';
is $document->{credits}{logo}{remaining}, 50, 'AC-25: credits.logo.remaining';
is $document->{credits}{periodEnd}, $subscription->{currentPeriodEnd}, 'C13: credits.periodEnd';
is_deeply $document->{overage}, {overage => $true, switchable => $true}, 'its switch';
$world->stripe->cancel(map { $_->{id} } $world->stripe->all('subscription'));
ok eval { wait_for(sub { status(@demo)->{subscription}{cancelAtPeriodEnd} }, 10, 'canceled') }, 'AC-23: cancelAtPeriodEnd';

# --- C12
is_deeply short('/me/entitlements', as('short')), {tier => 'free', quota => 20, remaining => 20, previewAllowed => $false}, 'C12: the short form';
is $host->get('/api/x', as('short'))->status, 200, 'used';
ok eval { wait_for(sub { short('/me/entitlements', as('short'))->{remaining} == 19 }, 10, 'usage') }, 'C12: what is left';
is_deeply short('/me/entitlements', @demo), {tier => 'pro', quota => 50000, remaining => 49999, previewAllowed => $true}, 'C12: of another plan';
is_deeply short('/me/window', as('short')), {tier => 'free', quota => 5, remaining => 4, previewAllowed => $false}, 'C12: of one window';
is_deeply short('/me/preview', as('short')), {tier => 'free', quota => undef, remaining => undef, previewAllowed => $true}, 'C12: of a feature alone';
is_deeply short('/of/short/entitlements'), {tier => 'free', quota => 20, remaining => 19, previewAllowed => $false}, 'C12: by path, where the operator trusts it';
$world->must(qw(account set short --limit requests=unlimited --feature chatbot=on));
is_deeply short('/me/entitlements', as('short')), {tier => 'free', quota => undef, remaining => undef, previewAllowed => $true}, 'C12: exceptions count';
is_deeply [@{status(as('short'))->{features}}[0 .. 1]], ['basic_wizard', 'chatbot'], 'C13: in both';

# --- nobody else
for my $path ('/billing/status', '/me/entitlements') {
    is answer_of($host->get($path)), '401 ACCOUNT_REQUIRED', "$path: C3, AC-27: not for nobody";
    is answer_of($host->get("$path?user_id=demo", as('new'))), '403 NOT_YOURS', 'A16: not of another';
    is answer_of($host->get("$path?user_id=new", as('new'))), '200', 'of oneself';
    is $host->request('POST', $path, headers => {as('new')}, body => '')->status, 405, 'nothing to change';
    my $head = $host->request('HEAD', $path, headers => {as('new')});
    is $head->status . $head->body, 200, 'HEAD';
}
is answer_of($host->get('/billing/status', as('new'), 'X-Test-Role' => 'guest')), '200', 'who may only look needs no role';
is short($_, as('stranger')), '403 UNKNOWN_ACCOUNT', "$_: where strangers are refused" for '/known/status', '/known/entitlements';
is scalar(my @rows = $world->sql(q{SELECT 1 FROM billing.accounts WHERE external_id = 'stranger'})), 0, 'they are not made';
is status(as('../x')), '400 INVALID_ACCOUNT', 'what is no account';

$world->db->pause;
is status(@demo), '503 BILLING_UNAVAILABLE', 'without PostgreSQL';
$world->db->resume;
ok eval { wait_for(sub { ref status(@demo) }, 20, 'back') }, 'and with it again';

done_testing;
