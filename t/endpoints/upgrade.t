# C11: for development a plan can be had without paying, and nowhere else: not from another machine, not beside live money.
use v5.36;
use Billing::Test;
use Billing::Journey qw(answer_of within_a_second);

my $world = world(
    stripe => 1,
    http => 'billing_dev_mode on;',
    locations => <<'END',
    billing_account $user;
    set_real_ip_from 127.0.0.1;
    location /export/ { billing on; billing_feature asset_download; proxy_pass http://app; }
    location = /api/billing/upgrade { billing_upgrade; }
    location = /known/upgrade { billing_unknown_account deny; billing_upgrade; }
    location = /billing/webhook { billing_webhook; }
END
);
my $host = $world->host;
my $json = JSON::PP->new->canonical;

sub upgrade($account, $body, %with) {
    my $path = delete $with{path} // '/api/billing/upgrade';
    return $host->request('POST', $path, body => $json->encode($body), headers => {'Content-Type' => 'application/json', Authorization => "Bearer test:$account", %with});
}

subtest 'C11: a plan for nothing' => sub {
    is answer_of($host->get('/export/x', Authorization => 'Bearer test:dev')), '403 FEATURE_NOT_IN_PLAN', 'before';
    my $answer = upgrade('dev', {tier => 'pro'});
    is $answer->status . ' ' . $answer->body =~ s/\s//gr, '200 {"ok":true}', 'A: the answer';
    is $world->account('dev')->{plan}, 'pro', 'the plan has changed';
    within_a_second($world, 'and the gate knows', 200, GET => '/export/x', Authorization => 'Bearer test:dev');
    is answer_of(upgrade('dev', {plan => 'gold'})), '400 UNKNOWN_PLAN', 'a plan that there is not';
    is answer_of(upgrade('dev', {})), '400 UNKNOWN_PLAN', 'none';
    is answer_of(upgrade('dev', {plan => 'pro', user_id => 'somebody'})), '403 NOT_YOURS', 'A16: not for another';
    is answer_of(upgrade('dev', {plan => 'pro', user_id => 'dev'})), '200', 'for oneself';
    is answer_of(upgrade('stranger', {plan => 'pro'}, path => '/known/upgrade')), '403 UNKNOWN_ACCOUNT', 'where strangers are refused, they are';
    is answer_of($host->request('POST', '/api/billing/upgrade', body => '{"tier":"pro"}', headers => {'Content-Type' => 'application/json'})), '401 ACCOUNT_REQUIRED', 'not for nobody';
    is $host->get('/api/billing/upgrade?plan=pro', Authorization => 'Bearer test:dev')->status, 405, 'A14: not by a link';
    is_deeply [map { $_->{actor} } $world->sql(q{SELECT DISTINCT l.actor FROM billing.audit_log l JOIN billing.accounts a ON a.id = l.account_id
        WHERE a.external_id = 'dev' AND l.action LIKE 'account.%' AND l.after ->> 'plan' = 'pro'})], ['development'], 'S11: and it is written down';
};

subtest 'A15: who is elsewhere finds nothing' => sub {
    is answer_of(upgrade('far', {plan => 'pro'}, 'X-Real-IP' => '192.0.2.1')), '404 NOT_FOUND', 'an address of another machine';
    is answer_of(upgrade('far', {plan => 'pro'}, 'X-Real-IP' => '127.8.9.10')), '200', 'another one of this machine';
};

subtest 'C11: not where money has been' => sub {
    $world->sql(q{SELECT billing.stripe_event_store('', 'evt_live', 'x', NULL, true, 1, NULL, '{}', 'live')});
    is answer_of(upgrade('dev', {plan => 'agency'})), '403 LIVE', 'after a live event';
    is $world->account('dev')->{plan}, 'pro', 'nothing changes';
};

done_testing;
