# The example minimal-tiers does what its application asks for, from its configuration alone: tiers are bought, a portal opened, a tier had
# without paying while the application is made, entitlements told for whom the caller names; other routes are untouched. C1 C2 C9 C11 C12 C17
# O6 S8 S12.
use v5.36;
use Billing::Example;
use Billing::Journey qw(answer_of problem);
use Billing::Test;

my %env = (CASUAL_PRICE_ID => 'price_1CasualMonthly', PRO_PRICE_ID => 'price_1ProMonthly', APP_URL => 'https://app.example.com',
    SUCCESS_URL => 'https://app.example.com/paid?session_id={CHECKOUT_SESSION_ID}', CANCEL_URL => 'https://app.example.com/pricing');
local @ENV{keys %env} = values %env;
my $example = Billing::Example->new('minimal-tiers', env => \%env, webhook => '/api/billing/webhook');
my ($world, $host, $stripe) = ($example->world, $example->host, $example->world->stripe);
my $json = JSON::PP->new->canonical;

sub post($path, $body) { $host->post("/api/billing/$path", $json->encode($body), 'Content-Type' => 'application/json') }
sub entitlements($user) { $host->get("/me/entitlements?user_id=$user")->json }
sub session_of($user) { (grep { $_->{client_reference_id} eq $user } $stripe->all('checkout.session'))[-1] }

subtest 'what its README shows' => sub {
    is $example->walk_readme, 9, 'is all there';
};

subtest 'C1: a checkout' => sub {
    my $answer = post(checkout => {tier => 'casual', user_id => 'ann'});
    is answer_of($answer), '200', 'answers';
    my $session = session_of('ann');
    is $answer->json->{url}, $session->{url}, 'with its address';
    is_deeply [@$session{qw(mode success_url cancel_url)}], ['subscription', @env{qw(SUCCESS_URL CANCEL_URL)}], 'O6: the pages are those of the environment';
    is $session->{metadata}{price}, 'price_1CasualMonthly', 'O6, S8: and so is the price';
    is_deeply entitlements('ann'), {tier => 'free', quota => 3, remaining => 3, previewAllowed => 0}, 'C8: which changes nothing yet';
    is answer_of(post(checkout => {tier => 'gold', user_id => 'ann'})), '404 UNKNOWN_PLAN', 'C2: an unknown tier';
    is answer_of(post(checkout => {tier => 'free', user_id => 'ann'})), '400 NO_PRICE', 'C2: one that is not sold';
    $stripe->pay($session->{id});
    wait_for(sub { entitlements('ann')->{tier} eq 'casual' }, 10, 'paid');
    is_deeply entitlements('ann'), {tier => 'casual', quota => 50, remaining => 50, previewAllowed => 1}, 'C12: and after it has been paid';
    is answer_of(post(checkout => {tier => 'pro', user_id => 'ann'})), '409 ALREADY_SUBSCRIBED', 'C5: not a second one';
    like post(portal => {user_id => 'ann'})->json->{url}, qr{/p/session/}, 'C9: the portal';
    is_deeply [map { @$_{qw(external_id)} } $world->sql(q{SELECT external_id FROM billing.accounts WHERE stripe_customer_id IS NOT NULL AND external_id = 'ann'})], ['ann'], 'C4: of her customer';
};

subtest 'C17: a checkout of nobody' => sub {
    my $answer = post(checkout => {tier => 'pro'});
    my $session = session_of('anon');
    is $answer->json->{url}, $session->{url}, 'leads to a session';
    is $session->{customer}, undef, 'without a customer';
    $stripe->pay($session->{id});
    $example->settled;
    is_deeply [$world->sql(q{SELECT FROM billing.accounts a JOIN billing.plans p USING (plan_no) WHERE p.plan_key = 'pro'})], [], 'and nobody is pro by it';
};

subtest 'C9: who is no customer' => sub {
    my $answer = post(portal => {user_id => 'bob'});
    is $answer->status . ' ' . problem($answer)->{error}, '501 no_customer', 'is told so';
    is answer_of(post(portal => {})), '401 ACCOUNT_REQUIRED', 'nor is nobody';
    is answer_of(post(portal => {user_id => 'bob', customer_id => session_of('ann')->{customer}})), '403 NOT_YOURS', "A16: and ann's customer is not his";
};

subtest 'C11: a tier for nothing' => sub {
    my $answer = post(upgrade => {tier => 'pro', user_id => 'dan'});
    is $answer->status . ' ' . $answer->body =~ s/\s//gr, '200 {"ok":true}', 'the answer';
    is_deeply entitlements('dan'), {tier => 'pro', quota => undef, remaining => undef, previewAllowed => 1}, 'the plan has changed';
    is_deeply $host->get('/me/entitlements/dan')->json, entitlements('dan'), 'C12: by path the same';
    is answer_of(post(upgrade => {tier => 'gold', user_id => 'dan'})), '404 UNKNOWN_PLAN', 'an unknown tier';
    is answer_of($host->get('/me/entitlements')), '401 ACCOUNT_REQUIRED', 'C12: of nobody';
};

subtest 'generations' => sub {
    is join(' ', map { $host->get('/api/generate?user_id=eve')->status } 1 .. 4), '200 200 200 402', 'three are free';
    wait_for(sub { entitlements('eve')->{remaining} == 0 }, 10, 'and used');
    is answer_of($host->get('/api/generate')), '401 ACCOUNT_REQUIRED', 'not for nobody';
    is $host->get('/other/route')->status, 200, 'other routes are untouched';
    is $host->request('POST', '/me', body => 'x')->status, 200, 'whatever is asked of them';
};

subtest 'other errors are 500 with a safe message' => sub {
    $stripe->fault(status => 400);
    my $answer = post(checkout => {tier => 'pro', user_id => 'fay'});
    is answer_of($answer), '500 STRIPE_REFUSED', 'Stripe refuses';
    $stripe->clear_faults;
    $stripe->close_port;
    is answer_of(post(checkout => {tier => 'pro', user_id => 'fay'})), '500 STRIPE_UNAVAILABLE', 'Stripe is away';
    $stripe->open_port;
    my $key = $stripe->key;
    unlike $answer->body, qr/\Q$key\E|price_1/, 'and says nothing of either';
    is answer_of(post(checkout => {tier => 'pro', user_id => 'fay'})), '200', 'and then it goes on';
    $world->db->pause;
    is answer_of(post(checkout => {tier => 'pro', user_id => 'gil'})), '500 BILLING_UNAVAILABLE', 'PostgreSQL is away';
    $world->db->resume;
    is wait_for(sub { answer_of(post(checkout => {tier => 'pro', user_id => 'gil'})) eq '200' }, 20, 'and back'), 1, 'and then it goes on';
};

subtest 'with a live key' => sub {
    my ($code, $output) = $host->test_config($example->conf =~ s/key=env:STRIPE_SECRET_KEY api=\S+;/key=sk_live_abc;/r);
    like $output, qr/"billing_upgrade" gives plans away, and the key of billing_stripe is a live one; remove either/, 'C11: nobody gives tiers away';
    my $live = $example->conf =~ s/key=env:STRIPE_SECRET_KEY api=\S+;/key=sk_live_abc;/r =~ s/billing_dev_mode on;//r =~ s/location = \S+upgrade \{.*?\}//sr;
    ($code, $output) = $host->test_config($live);
    is $code, 0, 'C17: all else may stay, for it is for one machine' or diag $output;
    ($code, $output) = $host->test_config($live =~ s/deny all;//r);
    like $output, qr/"billing_account_from" lets whoever reaches this location act for any account, and the key of billing_stripe is a live one/, 'C17: but not without that';
};

subtest 'S12: profiles, by the name that the application has for it' => sub {
    my $app = $example->reader;
    is_deeply $app->selectall_arrayref('SELECT * FROM app.profiles'), [], 'S4: nothing without a name';
    $app->do(q{SELECT set_config('billing.account_id', 'ann', false)});
    is_deeply $app->selectall_arrayref('SELECT * FROM app.profiles'), [['ann', 'casual']], 'S4: and of one account with it';
    is_deeply $app->selectall_arrayref(q{SELECT plan_tier FROM app.profiles WHERE id = 'dan'}), [], 'S4: no other';
    ok !eval { $app->do(q{UPDATE app.profiles SET plan_tier = 'pro'}); 1 }, 'S4: which it cannot write';
    my @mine = $world->sql(q{SELECT plan_tier FROM app.profiles WHERE id = 'dan'});
    is $mine[0]{plan_tier}, 'pro', 'the operator reads all';
};

done_testing;
