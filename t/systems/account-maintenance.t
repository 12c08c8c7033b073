# The example account-maintenance does what its application asks for, from its configuration alone: the owner pays, a failed payment lets
# reading go on, paying mends it, the end of a subscription takes the features and keeps the data, and without a free plan it locks the account.
# C3 C4 C8 C9 G3 G5 G9 W2 W4 W5 W7 W8 W9 W10 S4 S12 O6.
use v5.36;
use Billing::Example;
use Billing::Journey qw(answer_of problem);
use Billing::Process qw(root slurp);
use Billing::Test;
use Billing::Token;

my %env = (STRIPE_PRICE_PRO_MONTHLY => 'price_1ProMonthly', APP_URL => 'https://app.example.com', JWT_SECRET => 'example-' x 5);
local @ENV{keys %env} = values %env;
my $signer = Billing::Token->new('HS256', secret => $env{JWT_SECRET});
my $portal;
sub example(%option) {
    return Billing::Example->new('account-maintenance', env => \%env, webhook => '/api/webhooks/stripe', %option,
        prepare => sub ($world) { $portal = $world->stripe->portal_configuration->{id}; return (STRIPE_CUSTOMER_PORTAL_CONFIG => $portal) });
}
my $example = example();
my ($world, $host, $stripe) = ($example->world, $example->host, $example->world->stripe);
my $json = JSON::PP->new->canonical;

sub token($account, $person = 'owner') { $signer->token({sub => $person, account_id => $account, email => "$person\@$account.example", exp => time + 600}) }
sub as(@who) { (Authorization => 'Bearer ' . token(@who)) }
sub own($account) { $world->sql(q{SELECT billing.ensure_accounts($1)}, [$account]); $world->sql(q{SELECT billing.member_set($1, 'owner', 'owner'), billing.member_set($1, 'clerk', 'member')}, $account) }
sub post($path, $body, @who) { $host->post("/api/billing/$path", $json->encode($body), 'Content-Type' => 'application/json', as(@who)) }
sub state_of($account) {
    my $told = $host->get('/api/billing/status', as($account))->json;
    return "$told->{plan} $told->{status}" . ($told->{maintenance} ? ' maintenance' : '');
}
sub reports($account) { answer_of($host->get('/api/reports/x', as($account))) }
sub change($account) { answer_of($host->post('/api/things', '{}', as($account))) }
sub becomes($account, $wanted, $what) {
    my $seen = '';
    my $done = eval { wait_for(sub { ($seen = state_of($account)) eq $wanted }, 10, $what) };
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    is $seen, $wanted, $what;
    return;
}
sub gate_says($account, $what, $wanted, $ask) {
    eval { wait_for(sub { $ask->($account) eq $wanted }, 5, $what) };
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    is $ask->($account), $wanted, $what;
    return;
}
sub subscribed($account, %how) {
    own($account);
    post(checkout => {plan => 'pro'}, $account);
    my ($session) = grep { $_->{client_reference_id} eq $account } $stripe->all('checkout.session');
    $stripe->pay($session->{id}, %how);
    becomes($account, 'pro active', "$account has paid");
    return (grep { $_->{metadata}{account} eq $account } $stripe->all('subscription'))[0];
}

own($_) for qw(acme readers);
subtest 'what its README shows' => sub {
    is $example->walk_readme(OWNER => token('readers'), MEMBER => token('readers', 'clerk')), 5, 'is all there';
};

subtest 'C3 C9: who may pay' => sub {
    is answer_of(post(checkout => {plan => 'pro'}, 'acme', 'clerk')), '403 ROLE_REQUIRED', 'not a member';
    is answer_of(post(checkout => {plan => 'pro'}, 'acme', 'stranger')), '403 ROLE_REQUIRED', 'not who is none';
    is answer_of($host->post('/api/billing/checkout', '{"plan":"pro"}', 'Content-Type' => 'application/json')), '401 ACCOUNT_REQUIRED', 'not nobody';
    is answer_of($host->post('/api/billing/portal', '{}', 'Content-Type' => 'application/json', Authorization => 'Bearer nonsense')), '401 INVALID_TOKEN', 'nor a forged token';
    is answer_of(post(portal => {}, 'acme', 'clerk')), '403 ROLE_REQUIRED', 'nor the portal';
    is answer_of(post(portal => {}, 'acme')), '200', 'but the owner';
    my ($customer) = grep { ($_->{metadata}{account} // '') eq 'acme' } $stripe->all('customer');
    is $customer->{email}, 'owner@acme.example', 'C9: whose customer the portal has made';
    my ($call) = $stripe->calls(path => '/v1/billing_portal/sessions');
    is $call->{params}{configuration}, $portal, 'O6: with the configuration of STRIPE_CUSTOMER_PORTAL_CONFIG';
    is answer_of(post(checkout => {plan => 'pro'}, 'acme')), '200', 'a checkout';
    my ($session) = grep { $_->{client_reference_id} eq 'acme' } $stripe->all('checkout.session');
    is $session->{customer}, $customer->{id}, 'C4: uses it again';
    is state_of('acme'), 'free active', 'C8: and changes no plan';
    is reports('acme'), '403 FEATURE_NOT_IN_PLAN', 'G9: nor a feature';
};

my $subscription = subscribed('acme', later => 'declines');
my $other = subscribed('other');
subtest 'W5: paid' => sub {
    gate_says('acme', 'G9: features are on', '200', \&reports);
    is change('acme'), '200', 'and changes made';
};

subtest 'W9 G5: a payment fails' => sub {
    $stripe->end_period($subscription->{id});
    becomes('acme', 'pro past_due maintenance', 'W9: past due, and in maintenance');
    gate_says('acme', 'G5: changes are refused', '402 MAINTENANCE', \&change);
    is answer_of($host->get('/api/things', as('acme'))), '200', 'G5: reading goes on';
    is reports('acme'), '200', 'G5: of what the plan has too';
    is problem($host->post('/api/things', '{}', as('acme')))->{portalUrl}, 'https://app.example.com/api/billing/portal', 'and told where to pay';
    $example->settled;
    is state_of('other'), 'pro active', 'W4: nobody else is touched by it';
    is change('other'), '200', 'nor refused';
    my $to = post(portal => {}, 'acme')->json->{url};
    like $to, qr{/p/session/}, 'G5: the owner still reaches the portal';
    is $stripe->press($to, do => 'card')->status, 303, 'and pays there';
    becomes('acme', 'pro active', 'W8: all is restored');
    gate_says('acme', 'W8: to changes too', '200', \&change);
};

subtest 'W2 W10: events' => sub {
    $example->settled;
    my $before = state_of('acme');
    my ($event) = $stripe->events('invoice.paid');
    is_deeply [map { "$_->{status} $_->{body}" } $stripe->deliver($event)], ['200 {"received":true,"duplicate":true}'], 'W2: a stored event again: 200';
    $stripe->emit('product.created', object => {id => 'prod_x', object => 'product'});
    $example->settled;
    my ($unhandled) = $world->sql(q{SELECT status FROM billing.webhook_events WHERE type = 'product.created'});
    is $unhandled->{status}, 'ignored', 'W10: one that nobody handles: 200, stored and left alone';
    is state_of('acme'), $before, 'no change';
    my ($refused) = $stripe->deliver($event, secret => 'whsec_of_another');
    is $refused->{status}, 400, 'W1: one that is not signed by Stripe: 400';
};

subtest 'W2: an event that cannot be stored' => sub {
    $stripe->retry(0);
    $world->db->pause;
    $stripe->cancel_now($other->{id});
    wait_for(sub { grep { grep { ($_->{status} // 0) >= 500 } $_->{attempts}->@* } $stripe->deliveries(type => 'customer.subscription.deleted') }, 20, 'is answered with 5xx');
    pass 'is answered with 5xx';
    $world->db->resume;
    $stripe->retry(1);
    wait_for(sub { $stripe->deliver_pending; !grep { $_->{state} ne 'delivered' } $stripe->deliveries(type => 'customer.subscription.deleted') }, 20, 'and then taken');
    becomes('other', 'free active', 'W7: and has its effect: free');
    gate_says('other', 'W7: without the features', '403 FEATURE_NOT_IN_PLAN', \&reports);
    is change('other'), '200', 'W7: and not in maintenance';
    is_deeply [$world->sql(q{SELECT s.status, (SELECT count(*) FROM billing.invoices i WHERE i.account_id = a.id) AS invoices, m.role
        FROM billing.accounts a JOIN billing.subscriptions s ON s.account_id = a.id JOIN billing.account_members m ON m.account_id = a.id AND m.subject = 'owner'
        WHERE a.external_id = 'other'})], [{status => 'canceled', invoices => 2, role => 'owner'}], 'W7: its data are kept';
    is state_of('acme'), 'pro active', 'W4: those of another change nothing';
};

subtest 'S12: tables by the names that the application has for them' => sub {
    my $app = $example->reader;
    my $rows = sub ($sql) { $app->selectall_arrayref($sql) };
    is_deeply $rows->("SELECT * FROM app.$_"), [], "S4: $_: nothing without a name" for qw(accounts account_features billing_events);
    $app->do(q{SELECT set_config('billing.account_id', 'other', false)});
    is_deeply $rows->('SELECT id, plan_id, plan_status, maintenance_mode FROM app.accounts'), [['other', 'free', 'active', 0]], 'accounts: its own row';
    is_deeply $rows->('SELECT account_id, feature, enabled FROM app.account_features ORDER BY feature'), [['other', 'exports', 0], ['other', 'reports', 0]], 'account_features: each, off';
    $world->must(qw(account set acme --status canceled --maintenance payment --feature reports=off));
    $app->do(q{SELECT set_config('billing.account_id', 'acme', false)});
    is_deeply $rows->('SELECT id, plan_id, plan_status, maintenance_mode FROM app.accounts'), [['acme', 'pro', 'cancelled', 1]], "accounts: as the application's words are";
    is_deeply $rows->('SELECT feature, enabled FROM app.account_features ORDER BY feature'), [['exports', 1], ['reports', 0]], 'account_features: exceptions count';
    my $events = $rows->('SELECT * FROM app.billing_events');
    cmp_ok scalar(@$events), '>', 3, 'billing_events: those that were dealt with';
    is_deeply [grep { $_->[0] !~ /^evt_/ || $_->[2] ne 'acme' || !$_->[3] } @$events], [], 'S4: of this account, and when';
    ok scalar(grep { $_->[1] eq 'invoice.payment_failed' } @$events), 'and what they were';
    ok !eval { $app->do('SELECT * FROM billing.webhook_events'); 1 }, 'S4: what they carried is not shown';
    ok !eval { $app->do(q{DELETE FROM app.billing_events}); 1 }, 'S4: and nothing can be written';
    my ($all) = $world->sql('SELECT count(DISTINCT id) AS n FROM app.accounts');
    is $all->{n}, 3, 'the operator reads all';
};

subtest 'W7: without a free plan' => sub {
    my $catalog = JSON::PP->new->utf8->decode(slurp(root() . '/conf/examples/account-maintenance/catalog.json'));
    delete $catalog->{plans}{free}{free};
    my $shop = example(catalog => $catalog);
    ($world, $host, $stripe) = ($shop->world, $shop->host, $shop->world->stripe);
    own('acme');
    is state_of('acme'), 'free active', 'a new account begins with the first plan';
    my $held = subscribed('acme');
    gate_says('acme', 'and gets what it pays for', '200', \&reports);
    $stripe->cancel_now($held->{id});
    becomes('acme', 'pro canceled maintenance', 'its end: canceled, and locked');
    gate_says('acme', 'G7: to reading', '402 SUBSCRIPTION_INACTIVE', \&reports);
    gate_says('acme', 'G5: and to changes', '402 MAINTENANCE', \&change);
    is answer_of(post(checkout => {plan => 'pro'}, 'acme')), '200', 'the owner can pay again';
    my ($session) = grep { $_->{status} eq 'open' } $stripe->all('checkout.session');
    $stripe->pay($session->{id});
    becomes('acme', 'pro active', 'and is back');
};

done_testing;
