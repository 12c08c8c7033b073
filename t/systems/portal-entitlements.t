# The example portal-entitlements does what its application asks for, from its configuration alone: writes are counted and refused for four
# reasons, reads and the free plan never; checkout, portal, status and both addresses of the webhook; and without Stripe it starts and says so.
# C1 C7 C9 C10 C13 G3 G5 G8 G9 G10 W1 W2.
use v5.36;
use Billing::Example;
use Billing::Journey qw(answer_of problem);
use Billing::Process qw(wait_for);
use Billing::Test;

my %env = (STRIPE_PRICE_PRO_MONTHLY => 'price_1ProMonthly', APP_URL => 'https://app.example.com');
local @ENV{keys %env} = values %env;
# The application's login, which here believes whatever it is told.
my %login = (
    'upstream app {' => 'server { listen 127.0.0.1:%%PORT_login%%; location / { add_header X-Account $http_x_account; return 204; } } upstream app {',
    "proxy_pass http://app;\n            proxy_pass_request_body off;" => "proxy_pass http://127.0.0.1:%%PORT_login%%;\n            proxy_pass_request_body off;",
);
sub example(%option) {
    return Billing::Example->new('portal-entitlements', env => \%env, webhook => '/stripe/webhook', %option, replace => \%login);
}
my $example = example();
my ($world, $host, $stripe) = ($example->world, $example->host, $example->world->stripe);
my $json = JSON::PP->new->canonical->boolean_values(0, 1);

sub as($account) { ('X-Account' => $account) }
sub converse($account) { answer_of($host->post('/conversations', '{}', as($account))) }
sub message($account) { answer_of($host->post('/conversations/7/messages', '{}', as($account))) }
sub look($account) { answer_of($host->get('/conversations', as($account))) }
sub status($account) { $json->decode($host->get('/portal/billing/status', as($account))->body) }
sub billing($account, $path, $body = {}, %with) { $host->post("/portal/billing/$path", $json->encode($body), 'Content-Type' => 'application/json', as($account), %with) }
sub session_of($account) { (grep { $_->{client_reference_id} eq $account } $stripe->all('checkout.session'))[-1] }
sub soon($what, $wanted, $ask) {
    my $seen = '';
    eval { wait_for(sub { ($seen = $ask->()) eq $wanted }, 10, $what) };
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    is $seen, $wanted, $what;
    return;
}

subtest 'what its README shows' => sub {
    is $example->walk_readme, 5, 'is all there';
};

subtest 'G10: limits' => sub {
    is_deeply [map { converse('ann') } 1 .. 3], ['200', '200', '402 LIMIT_CONVERSATIONS'], 'two conversations on the free plan';
    is_deeply [map { message('ann') } 1 .. 6], [('200') x 5, '402 LIMIT_MESSAGES'], 'five messages';
    is_deeply [map { look('ann') } 1 .. 3], [('200') x 3], 'reading is neither counted nor refused';
    is $world->app->count('/conversations/7/messages'), 5, 'the application is asked at its own address';
    is $host->post('/counted/conversations', '{}', as('ann'))->status, 404, 'and nobody finds another';
    soon('C13: usage', '2/2 5/5', sub { my $of = status('ann'); join ' ', map { "$of->{usage}{$_}/$of->{limits}{$_}" } qw(conversations messages) });
};

subtest 'C1 C7: a checkout' => sub {
    is answer_of(billing('ann', 'checkout', {planKey => 'gold'})), '400 UNKNOWN_PLAN', 'a plan that there is not';
    my $answer = billing('ann', 'checkout', {planKey => 'pro', returnUrl => 'https://staging.example.com/billing'});
    is answer_of($answer), '200', 'answers';
    my $session = session_of('ann');
    is $answer->json->{url}, $session->{url}, 'with its address';
    like $session->{success_url}, qr{^https://staging\.example\.com/billing}, 'C7: and leads back where the portal is';
    billing('eve', 'checkout', {returnUrl => 'https://evil.example/billing'});
    like session_of('eve')->{success_url}, qr{^https://app\.example\.com/billing\?}, 'C7: to none but the portal';
    $stripe->pay($session->{id});
    soon('paid', 'pro active', sub { my $of = status('ann'); "$of->{plan} $of->{status}" });
    soon('G10: more conversations', '200', sub { converse('ann') });
    is message('ann'), '200', 'and messages';
    is_deeply [@{status('ann')->{plans}[1]}{qw(plan current)}], ['pro', 1], 'C13: the plans';
    is_deeply [@{status('ann')}{qw(stripeConfigured)}], [1], 'C13: Stripe is configured';
    like billing('ann', 'portal')->json->{url}, qr{/p/session/}, 'C9: the portal';
    is answer_of(billing('bob', 'portal')), '404 NO_CUSTOMER', 'C9: for customers';
    is answer_of($host->get('/portal/billing/status')), '401 ACCOUNT_REQUIRED', 'C3: nothing for nobody';
};

subtest 'W1 W2: webhooks' => sub {
    my ($event) = grep { ($_->{data}{object}{client_reference_id} // '') eq 'ann' } $stripe->events('checkout.session.completed');
    is_deeply [map { "$_->{status} $_->{body}" } $stripe->deliver($event)], ['200 {"received":true,"duplicate":true}'], 'the same event again';
    my $other = $stripe->webhook(url => 'http://' . $host->address . '/webhooks/stripe', secret => $host->{env}{STRIPE_WEBHOOK_SECRET});
    is_deeply [map { $_->{status} } $stripe->deliver($event)], [200, 200], 'and at the other address';
    $stripe->remove_webhook($other->{id});
    is $host->post($_, '{}', 'Stripe-Signature' => 't=1,v1=00')->status, 400, "W1: a bad signature at $_" for '/stripe/webhook', '/webhooks/stripe';
};

subtest 'what stops writing' => sub {
    $world->must(qw(account set ann --writes off));
    soon('G3: the kill switch', '403 WRITE_DISABLED', sub { message('ann') });
    is look('ann'), '200', 'reading goes on';
    $world->must(qw(account set ann --writes on));
    soon('and on again', '200', sub { message('ann') });
    $world->must(qw(account set ann --status past_due --enforced on --grace-until 2001-01-01T00:00:00Z));
    soon('G9: enforcement after grace', '402 BILLING_ENFORCED', sub { message('ann') });
    $world->must(qw(account set ann --enforced off --status unpaid));
    soon('G8: no live subscription', '402 SUBSCRIPTION_INACTIVE', sub { message('ann') });
    $world->must(qw(account set free --status unpaid)) if $world->sql(q{SELECT billing.ensure_accounts('{free}')});
    is message('free'), '200', 'the free plan needs none';
};

subtest 'C10: without Stripe' => sub {
    my $bare = example(without_stripe => 1);
    my $here = $bare->host;
    my $ask = sub ($path) { $here->post("/portal/billing/$path", '{}', 'Content-Type' => 'application/json', as('dev')) };
    is answer_of($here->post('/conversations', '{}', as('dev'))), '200', 'it starts, and gates';
    is answer_of($ask->($_)), '503 BILLING_NOT_CONFIGURED', "$_ says so" for qw(checkout portal);
    is $here->get('/portal/billing/status', as('dev'))->json->{stripeConfigured}, 0, 'and so does the status';
    is $here->post('/stripe/webhook', '{}')->status, 503, 'events are not taken';
};

done_testing;
