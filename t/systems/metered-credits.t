# The example metered-credits does what its application asks for, from its configuration alone: its acceptance list by name, AC-01 to AC-32
# (what is in SQL alone is t/sql's, AC-17 and AC-32; what a page shows is the page's), and what its rows ask for: C1 C3 C4 C5 C6 C9 C13 C15
# C16, G11 G12 G13 G15 G25 G26, W1 W2 W5-W9, S4 S10, N1, O6.
use v5.36;
use Billing::Example;
use Billing::Journey qw(answer_of problem);
use Billing::Process qw(wait_for);
use Billing::Test;
use Billing::Token;

my %env = (STRIPE_PRICE_ID_STARTER => 'price_1Starter', STRIPE_PRICE_ID_PRO => 'price_1Pro', STRIPE_PRICE_ID_AGENCY => 'price_1Agency',
    STRIPE_SUCCESS_URL => 'https://app.example.com/wizard/complete?session_id={CHECKOUT_SESSION_ID}',
    STRIPE_CANCEL_URL => 'https://app.example.com/wizard/checkout?canceled=true', APP_URL => 'https://app.example.com',
    JWT_SECRET => 'of_the_example_' x 3, BILLING_API_TOKEN => 'tok_of_the_example_alone');
local @ENV{keys %env} = values %env;
my $example = Billing::Example->new('metered-credits', env => \%env, webhook => '/api/v1/webhooks/stripe');
my ($world, $host, $stripe) = ($example->world, $example->host, $example->world->stripe);
my $json = JSON::PP->new->canonical->boolean_values(0, 1);
my $issuer = Billing::Token->new('HS256', secret => $env{JWT_SECRET});
my ($true, $false) = (JSON::PP::true, JSON::PP::false);
$stripe->meter("${_}_overage") for qw(logo mockup video);

sub token($user) { $issuer->token({sub => $user, exp => time + 600}) }
sub as($user) { (Authorization => 'Bearer ' . token($user)) }
sub billing($user, $path, $body = {}) { $host->post("/api/v1/billing/$path", $json->encode($body), 'Content-Type' => 'application/json', defined $user ? as($user) : ()) }
sub subscription($user) { $json->decode($host->get('/api/v1/billing/subscription', as($user))->body) }
sub left($user, $credit = 'logo') { (subscription($user)->{credits} // {})->{$credit}{remaining} }
sub logos($user, $count, %with) { $host->post("/api/v1/generate/logo?count=$count", '{}', as($user), %with) }
sub internal($action, $body) { $json->decode($host->post("/internal/credits/$action", $json->encode($body), 'Content-Type' => 'application/json', Authorization => "Bearer $env{BILLING_API_TOKEN}")->body) }
sub session_of($user) { (grep { $_->{client_reference_id} eq $user } $stripe->all('checkout.session'))[-1] }
sub subscription_of($user) { (grep { $_->{metadata}{userId} eq $user } $stripe->all('subscription'))[-1]{id} }
sub becomes($user, $what, $wanted, $of) {
    my $now = '';
    ok eval { wait_for(sub { ($now = $of->() // '') eq $wanted }, 15, $what) }, "$what: $wanted" or diag "$user: $now";
    return;
}
sub buy($user, $tier) {
    billing($user, 'checkout-session', {tier => $tier});
    $stripe->pay(session_of($user)->{id});
    becomes($user, "$user has bought $tier", "$tier active", sub { my $of = subscription($user); "$of->{tier} $of->{status}" });
    $example->settled;
    return;
}
sub notices($user, $topic) { map { $json->decode($_->{payload}) } $world->sql(q{SELECT payload::text AS payload FROM billing.outbox o JOIN billing.accounts a ON a.id = o.account_id
    WHERE external_id = ? AND topic = ? ORDER BY o.id}, $user, $topic) }
sub settled_credits($user, $wanted, $what) { becomes($user, $what, $wanted, sub { $world->sql('SELECT 1 FROM billing.credit_holds') ? 'held' : left($user) }) }

subtest 'S10: somebody new' => sub {
    my $new = subscription('new');
    is_deeply [@$new{qw(tier status subscription)}], ['free', 'active', undef], 'AC-25: the free tier, no subscription';
    is_deeply $new->{credits}, {logo => {remaining => 4, used => 0, overage => 0}, mockup => {remaining => 4, used => 0, overage => 0}, periodEnd => undef}, 'AC-14: four logos and four mockups';
    is_deeply [@{$new->{tierConfig}}{qw(displayName price brandLimit)}], ['Free', 0, 1], 'C13: tierConfig';
    is logos('new', 4)->status, 200, 'all are spent';
    settled_credits('new', 0, 'AC-14: once');
    is left('new', 'mockup'), 4, 'G12: of one kind alone';
};

subtest 'AC-27: not for nobody' => sub {
    is answer_of(billing(undef, $_)), '401 ACCOUNT_REQUIRED', "AC-27: $_" for qw(checkout-session portal-session settings);
    is answer_of($host->get('/api/v1/billing/subscription')), '401 ACCOUNT_REQUIRED', 'AC-27: subscription';
    is answer_of($host->post('/api/v1/generate/logo?count=1', '{}')), '401 ACCOUNT_REQUIRED', 'nor generations';
    is answer_of($host->get('/api/v1/billing/subscription', Authorization => 'Bearer ' . Billing::Token->new('HS256', secret => 'z' x 40)->token({sub => 'new', exp => time + 60}))),
        '401 INVALID_TOKEN', 'a token of somebody else';
    is $host->post('/internal/credits/check', '{}', as('new'))->status, 401, 'C15: what is for jobs is not for users';
};

subtest 'AC-01: a checkout' => sub {
    my $answer = billing('ann', 'checkout-session', {tier => 'starter'});
    is answer_of($answer), '200', 'AC-01: answers';
    my $session = session_of('ann');
    is $answer->json->{checkoutUrl}, $session->{url}, 'AC-01: {checkoutUrl}';
    is_deeply [@$session{qw(mode success_url cancel_url)}], ['subscription', @env{qw(STRIPE_SUCCESS_URL STRIPE_CANCEL_URL)}], 'AC-03, AC-04: leads back to the wizard';
    is_deeply [@{$session->{metadata}}{qw(userId tier)}], ['ann', 'starter'], 'C6: metadata by the names that the application reads';
    is subscription('ann')->{tier}, 'free', 'C8: nothing has changed yet';
    is answer_of(billing('ann', 'checkout-session', {tier => 'gold'})), '400 UNKNOWN_PLAN', 'a tier that there is not';
    $stripe->pay($session->{id});
    becomes('ann', 'AC-08: paid', 'starter active', sub { my $of = subscription('ann'); "$of->{tier} $of->{status}" });
    $example->settled;
    is join(' ', map { left('ann', $_) } qw(logo mockup)), '20 30', 'AC-08: the balances of the tier';
    is scalar(my @rows = $world->sql(q{SELECT 1 FROM billing.subscriptions JOIN billing.accounts a ON a.id = account_id WHERE external_id = 'ann'})), 1, 'AC-08: a row of its subscription';
    is_deeply [map { "$_->{tier} $_->{status}" } notices('ann', 'subscription:activated')], ['starter active'], 'N1: the front end is told';
};

subtest 'AC-02, AC-05: who has a subscription' => sub {
    my $answer = billing('ann', 'checkout-session', {tier => 'pro'});
    is answer_of($answer), '409 ALREADY_SUBSCRIBED', 'AC-02: is refused a second one';
    is_deeply [map { defined $answer->json->{$_} ? 1 : 0 } qw(error currentTier message portalUrl)], [(1) x 4], 'AC-02: {error, currentTier, message, portalUrl}' or diag $answer->body;
    is $answer->json->{currentTier}, 'starter', 'AC-02: with its tier';
    is scalar(grep { ($_->{metadata}{userId} // '') eq 'ann' } $stripe->all('customer')), 1, 'AC-05: one customer, made at the first checkout';
};

subtest 'AC-21: the portal' => sub {
    like billing('ann', 'portal-session')->json->{portalUrl}, qr{/p/session/}, 'AC-21: {portalUrl}';
    is billing('nobody', 'portal-session')->status, 404, 'C9: 404 without a customer';
    $stripe->new_card(session_of('ann')->{customer});
    $example->settled;
    is subscription('ann')->{tier}, 'starter', 'AC-24: a new card there changes nothing here';
};

subtest 'AC-06, AC-07: webhooks' => sub {
    my ($event) = grep { $_->{data}{object}{client_reference_id} eq 'ann' } $stripe->events('checkout.session.completed');
    is_deeply [map { "$_->{status} $_->{body}" } $stripe->deliver($event)], ['200 {"received":true,"duplicate":true}'], 'AC-07: the same event again';
    my $body = '{"id":"evt_forged","object":"event","type":"invoice.paid","created":1,"livemode":false,"data":{"object":{}}}';
    is $host->post('/api/v1/webhooks/stripe', $body, 'Content-Type' => 'application/json')->status, 400, 'AC-06, AC-29: without a signature';
    is $host->post('/api/v1/webhooks/stripe', $body, 'Stripe-Signature' => 't=' . time . ',v1=' . '0' x 64)->status, 400, 'AC-06, AC-29: with a bad one';
    $example->settled;
    is left('ann'), 20, 'and nothing has changed';
    $host->quit;
    $host->start;
    is left('ann'), 20, 'AC-13: what was accepted is there after a restart';
};

subtest 'AC-26: too few' => sub {
    is logos('ann', 16)->status, 200, 'sixteen of twenty';
    settled_credits('ann', 4, 'four are left');
    my $told = logos('ann', 5);
    is answer_of($told), '402 INSUFFICIENT_CREDITS', 'AC-26: five more are refused';
    is_deeply [@{$told->json}{qw(error creditType remaining required needsUpgrade upgradeUrl)}],
        ['Insufficient credits', 'logo', 4, 5, 1, 'https://app.example.com/api/v1/billing/checkout-session'], 'AC-26: with what the wizard shows';
    is_deeply [@{internal(check => {account => 'ann', credit => 'logo', quantity => 5})}{qw(allowed needsUpgrade)}], [0, 1], 'AC-15: a check of five with four left on starter';
};

subtest 'AC-18: a job that fails later' => sub {
    my $reservation = logos('ann', 4)->json->{headers}{'x-billing-reservation'};
    settled_credits('ann', 0, 'four are taken for a job');
    is internal(refund => {account => 'ann', credit => 'logo', key => $reservation, quantity => 4, reason => 'job failed'})->{success}, 1, 'it fails';
    is left('ann'), 4, 'AC-18: the balance is restored';
    is internal(refund => {account => 'ann', credit => 'logo', key => $reservation, reason => 'again'})->{success}, 1, 'told twice';
    is left('ann'), 4, 'AC-18: once';
    is logos('ann', 2, 'Idempotency-Key' => 'click')->status, 200, 'a click';
    settled_credits('ann', 2, 'is charged');
    is logos('ann', 2, 'Idempotency-Key' => 'click')->status, 200, 'G17: and clicked twice';
    settled_credits('ann', 2, 'G17: is charged once');
};

subtest 'AC-11, AC-19, AC-20: a renewal' => sub {
    buy('ren', 'starter');
    is logos('ren', 5)->status, 200, 'five are used';
    settled_credits('ren', 15, 'fifteen are left');
    my $first = ($world->sql(q{SELECT b.period_start AS at FROM billing.credit_balances b JOIN billing.accounts a ON a.id = account_id WHERE external_id = 'ren' AND credit_no = 0}))[0]{at};
    my $reservation = ($world->sql(q{SELECT split_part(idem_key, ':', 2) AS name FROM billing.credit_ledger l JOIN billing.accounts a ON a.id = account_id WHERE external_id = 'ren' AND l.action = 'deduct'}))[0]{name};
    internal(refund => {account => 'ren', credit => 'logo', key => $reservation, quantity => 1, reason => 'one failed'});
    $stripe->end_period(subscription_of('ren'));
    becomes('ren', 'AC-19: 20 of 20 after the renewal', '20/0', sub { my $logo = subscription('ren')->{credits}{logo}; "$logo->{remaining}/$logo->{used}" });
    isnt(($world->sql(q{SELECT b.period_start AS at FROM billing.credit_balances b JOIN billing.accounts a ON a.id = account_id WHERE external_id = 'ren' AND credit_no = 0}))[0]{at}, $first, 'AC-11: and the refill has moved');
    is_deeply [map { "$_->{action} $_->{quantity} $_->{balance_after}" } $world->sql(q{SELECT l.action, l.quantity, l.balance_after FROM billing.credit_ledger l
        JOIN billing.accounts a ON a.id = account_id JOIN billing.credit_types USING (credit_no) WHERE external_id = 'ren' AND credit_key = 'logo' AND l.id >= (SELECT max(x.id) FROM billing.credit_ledger x
        WHERE x.account_id = l.account_id AND x.credit_no = l.credit_no AND x.action = 'allocate') ORDER BY l.id})],
        ['allocate 20 20', 'deduct -5 15', 'refund 1 16', 'refill 20 20'], 'AC-20: four rows of the ledger, with action and balance';
    is scalar(notices('ren', 'subscription:renewed')), 1, 'N1: told';
};

subtest 'AC-09, AC-22: another tier' => sub {
    buy('eve', 'starter');
    is logos('eve', 10)->status, 200, 'ten are used';
    settled_credits('eve', 10, 'ten are left');
    $stripe->change_plan(subscription_of('eve'), $env{STRIPE_PRICE_ID_PRO});
    becomes('eve', 'AC-09, AC-22: by the portal', 'pro 50/100/10', sub { my $of = subscription('eve'); join ' ', $of->{tier}, join '/', map { $of->{credits}{$_}{remaining} // 0 } qw(logo mockup video) });
    is_deeply [map { $_->{tier} } notices('eve', 'subscription:updated')], ['pro'], 'AC-09: and the browser can be told';
};

subtest 'AC-16: overage' => sub {
    is_deeply [@{internal(check => {account => 'eve', credit => 'logo', quantity => 60})}{qw(allowed overageAllowed)}], [1, 1], 'AC-16: a check of 60 with 50 left on pro';
    is logos('eve', 60)->status, 200, 'G15: and they are had';
    becomes('eve', 'of which ten are overage', '0/50/10', sub { my $logo = subscription('eve')->{credits}{logo}; join '/', @$logo{qw(remaining used overage)} });
    is answer_of(billing('eve', 'settings', {overage => $false})), '200', 'C16: switched off by its owner';
    is answer_of(logos('eve', 1)), '402 INSUFFICIENT_CREDITS', 'C16: no more';
    billing('eve', 'settings', {overage => $true});
    is logos('eve', 1)->status, 200, 'and on again';
    wait_for(sub { !$world->sql('SELECT 1 FROM billing.credit_holds') }, 10, 'settled');
    $stripe->end_period(subscription_of('eve'));
    my ($customer) = session_of('eve')->{customer};
    becomes('eve', 'G15: at the end of the period Stripe counts them', 11, sub { $stripe->meter_sum('logo_overage', $customer) });
    buy('age', 'agency');
    is answer_of(billing('age', 'settings', {overage => $false})), '409 NOT_SWITCHABLE', 'C16: on agency it is always on';
};

subtest 'AC-12: a payment that fails' => sub {
    buy('due', 'starter');
    $stripe->new_card((grep { $_->{metadata}{userId} eq 'due' } $stripe->all('customer'))[0]{id}, declines => 1);
    $stripe->end_period(subscription_of('due'));
    becomes('due', 'AC-12: past due', 'past_due', sub { subscription('due')->{status} });
    becomes('due', 'AC-12: told, for browser and mail', 'starter 1', sub { my ($told) = notices('due', 'subscription:payment-failed'); $told && "$told->{tier} $told->{attemptCount}" });
    is logos('due', 1)->status, 200, 'G8: for a while it goes on';
    wait_for(sub { !$world->sql('SELECT 1 FROM billing.credit_holds') }, 10, 'settled');
};

subtest 'AC-23, AC-10: cancelled' => sub {
    my $id = subscription_of('ann');
    $stripe->cancel($id);
    becomes('ann', 'AC-23: cancelAtPeriodEnd', 1, sub { subscription('ann')->{subscription}{cancelAtPeriodEnd} });
    is subscription('ann')->{tier}, 'starter', 'AC-23: until then all is as it was';
    $stripe->end_period($id);
    becomes('ann', 'AC-23, AC-10: free at its end, with the free allocation', 'free 4/4', sub { my $of = subscription('ann'); join ' ', $of->{tier}, join '/', map { $of->{credits}{$_}{remaining} // '-' } qw(logo mockup) });
    is_deeply [map { $_->{tier} } notices('ann', 'subscription:canceled')], ['free'], 'N1: told';
};

subtest 'brands, features, chat, priority' => sub {
    my $brand = sub ($method, $user) { answer_of($host->request($method, '/api/v1/brands', headers => {as($user)}, body => '{}')) };
    is $brand->(POST => 'new'), '200', 'G11: one brand on free';
    wait_for(sub { !$world->sql('SELECT 1 FROM billing.stock_holds') }, 10, 'made');
    is $brand->(POST => 'new'), '402 LIMIT_BRANDS', 'G11: not a second one';
    is $brand->(DELETE => 'new'), '200', 'one is deleted';
    wait_for(sub { subscription('new')->{usage}{brands} == 0 }, 10, 'gone');
    is $brand->(POST => 'new'), '200', 'G11: and another made';
    is_deeply [@{subscription('age')}{qw(limits usage)}], [{brands => undef}, {brands => 0}], 'G11: agency has no limit';
    is answer_of($host->post('/api/v1/generate/video', '{}', as('ren'))), '403 FEATURE_NOT_IN_PLAN', 'G6: no videos on starter';
    is answer_of($host->post('/api/v1/generate/video', '{}', as('age'))), '200', 'on agency there are';
    is answer_of($host->post('/api/v1/chat', '{}', as('new'))), '403 FEATURE_NOT_IN_PLAN', 'no chat on free';
    is_deeply [map { $host->post('/api/v1/chat', '{}', as('ren'))->status } 1 .. 11], [(200) x 10, 429], 'G25: ten messages a minute on starter';
    is $host->post('/api/v1/chat', '{}', as('age'))->json->{headers}{'x-billing-priority'}, 1, 'G26: the tier\'s priority';
    wait_for(sub { !$world->sql('SELECT 1 FROM billing.credit_holds UNION ALL SELECT 1 FROM billing.stock_holds') }, 10, 'settled');
};

subtest 'AC-30, AC-31: rows of one\'s own' => sub {
    my $reader = $world->db->dbi;
    $reader->do('SET ROLE billing_reader');
    $reader->do(q{SELECT set_config('billing.account_id', 'ann', false)});
    is_deeply $reader->selectcol_arrayref('SELECT external_id FROM billing.accounts'), ['ann'], 'AC-30: no row of others';
    ok !eval { $reader->do('SELECT 1 FROM billing.webhook_events'); 1 }, 'AC-31: webhook_events shows nothing';
};

subtest 'AC-28: no card data' => sub {
    is_deeply [map { "$_->{table_name}.$_->{column_name}" } $world->sql(q{SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'billing'
        AND column_name ~* 'card|cvc|cvv|pan$|expir(y|ation)_month'})], [], 'AC-28: no such column';
};

subtest 'what its README shows' => sub {
    my $reservation = logos('u2', 3)->json->{headers}{'x-billing-reservation'};
    settled_credits('u2', 1, 'three are taken for a job');
    is $example->walk_readme(TOKEN => token('reader'), RESERVATION => $reservation), 8, 'is all there';
};

done_testing;
