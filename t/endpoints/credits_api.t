# Promise: C15: the application's own back ends check, take, commit, refund, grant and adjust credits, and state the count of a stock, each call once for its key however
# often it is repeated; nobody else can. A job that fails long after its request was answered gives its credits back. AC-14, AC-15, AC-18.
use v5.36;
use Billing::Test;
use Billing::Process qw(new_directory wait_for);
use Billing::Journey qw(answer_of);

my $token = 'tok_' . join '', map { ('a' .. 'z', 0 .. 9)[rand 36] } 1 .. 32;
my $secret = new_directory() . '/token';
Billing::Nginx::write_file($secret, "$token\n");
chmod 0600, $secret;
my $world = world(locations => <<"END");
    billing_account \$user;
    location /internal/credits/ { billing_credits_api token=file:$secret; }
    location /known/credits/ { billing_unknown_account deny; billing_credits_api token=file:$secret; }
    location /jobs/ { billing on; billing_pass_headers on; billing_credits logo 4; proxy_pass http://app; }
    location /sealed/ { billing_credits_api certificate; }
END
my $host = $world->host;
my $json = JSON::PP->new->canonical;

sub call($action, $body, %with) {
    my $path = delete $with{path} // '/internal/credits/';
    return $host->request('POST', $path . $action, body => ref $body ? $json->encode($body) : $body,
        headers => {'Content-Type' => 'application/json', Authorization => "Bearer $token", %with});
}
sub balance($account) {
    my ($row) = $world->sql(q{SELECT remaining || '/' || used AS b FROM billing.credit_balances JOIN billing.credit_types USING (credit_no)
        JOIN billing.accounts a ON a.id = account_id WHERE external_id = ? AND credit_key = 'logo'}, $account);
    return $row ? $row->{b} : 'none';
}

subtest 'each call' => sub {
    is_deeply call('check', {account => 'a', credit => 'logo', quantity => 1})->json->{code}, 'UNKNOWN_ACCOUNT', 'a check makes no account';
    my $taken = call('take', {account => 'a', credit => 'logo', quantity => 1, key => 'k1', job => 'render 7'});
    is $taken->status, 200, 'S10: a taking does';
    is_deeply $taken->json, {success => 1, balance_after => 3, is_overage => 0, overage_quantity => 0}, 'AC-14: of four one is taken';
    is_deeply call('take', {account => 'a', credit => 'logo', quantity => 1, key => 'k1'})->json, {%{$taken->json}, repeated => 1}, 'G17: once for each key';
    is_deeply call('check', {account => 'a', credit => 'logo', quantity => 5})->json,
        {allowed => 0, remaining => 3, required => 5, needsUpgrade => 1, overageAllowed => 0}, 'AC-15: a check of more than there is';
    is_deeply call('check', {account => 'a', credit => 'logo', quantity => 3})->json,
        {allowed => 1, remaining => 3, required => 3, needsUpgrade => 0, overageAllowed => 0}, 'and of what there is';
    is_deeply call('check', {account => 'a', credit => 'video', quantity => 1})->json,
        {allowed => 0, remaining => 0, required => 1, needsUpgrade => 1, overageAllowed => 0}, 'C15: without a balance';
    my $short = call('take', {account => 'a', credit => 'logo', quantity => 9, key => 'k2'});
    is $short->status, 402, 'too few';
    is_deeply [$short->json->@{qw(status code error title success balance_after)}], [402, 'INSUFFICIENT_CREDITS', 'Insufficient credits', 'Insufficient credits', 0, 3], 'says so';
    is call('take', {account => 'a', creditType => 'logo', amount => '2', hold => 60}, 'Idempotency-Key' => 'k3')->status, 200, 'a key in its field; held';
    is balance('a'), '1/3', 'held units are taken';
    is_deeply call('commit', {account => 'a', credit => 'logo', key => 'k3', quantity => 1})->json, {success => 1, balance_after => 2}, 'C15: committed, to what it was worth';
    is_deeply call('refund', {account => 'a', credit => 'logo', key => 'k1'})->json, {success => 1, refunded => 1, balance_after => 3}, 'C15: refunded';
    is_deeply call('refund', {account => 'a', credit => 'logo', key => 'k1'})->json, {success => 1, refunded => 0, balance_after => 3}, 'once';
    is answer_of(call('take', {account => 'a', credit => 'logo', quantity => 1, key => 'k1'})), '409 REFUNDED', 'what was refunded cannot be taken again';
    is answer_of(call('commit', {account => 'a', credit => 'logo', key => 'nothing'})), '404 NOTHING_TAKEN', 'nothing to commit';
    is_deeply call('grant', {account => 'a', credit => 'logo', quantity => 5, key => 'g', reason => 'sorry'})->json, {success => 1, balance_after => 8}, 'C15: granted';
    is_deeply call('grant', {account => 'a', credit => 'logo', quantity => 5, key => 'g', reason => 'sorry'})->json, {success => 1, repeated => 1, balance_after => 8}, 'once';
    is_deeply call('adjust', {account => 'a', credit => 'logo', quantity => -3, key => 'j', reason => 'mistake'})->json, {success => 1, balance_after => 5}, 'C15: adjusted';
    is answer_of(call('adjust', {account => 'a', credit => 'logo', quantity => -30, key => 'j2'})), '402 INSUFFICIENT_CREDITS', 'never below zero';
    is_deeply [map { "$_->{action} $_->{reason}" } $world->sql(q{SELECT action, reason FROM billing.credit_ledger WHERE reason IN ('sorry', 'mistake') ORDER BY id})],
        ['grant sorry', 'adjust mistake'], 'the ledger says why';
    is((map { $_->{job_id} } $world->sql(q{SELECT job_id FROM billing.credit_ledger WHERE idem_key = 'take:k1:logo'}))[0], 'render 7', 'S3: and for which job');
};

subtest 'what cannot be meant so' => sub {
    my %good = (account => 'a', credit => 'logo', quantity => 1, key => 'x');
    for my $case (
        ['no account', {%good, account => ''}, '400 INVALID_REQUEST'], ['no type', {%good, credit => ''}, '400 INVALID_REQUEST'],
        ['no quantity', {%good, quantity => ''}, '400 INVALID_REQUEST'], ['no key', {%good, key => ''}, '400 INVALID_REQUEST'],
        ['a quantity that is none', {%good, quantity => '1e3'}, '400 INVALID_REQUEST'], ['zero', {%good, quantity => 0}, '400 INVALID_QUANTITY'],
        ['less than nothing', {%good, quantity => -1}, '400 INVALID_QUANTITY'], ['beyond 64 bits', {%good, quantity => '9223372036854775808'}, '400 INVALID_REQUEST'],
        ['a key with a colon', {%good, key => 'a:b'}, '400 INVALID_KEY'], ['an unknown type', {%good, credit => 'gold'}, '400 UNKNOWN_CREDIT'],
        ['a hold of a year', {%good, hold => 31536000}, '400 INVALID_REQUEST'], ['a reason of two lines', {%good, reason => "a\nb"}, '400 INVALID_REQUEST'],
        ['an id that can be none', {%good, account => "a'b"}, '404 UNKNOWN_ACCOUNT'], ['no JSON', '{', '400 INVALID_REQUEST'],
    ) {
        is answer_of(call('take', $case->[1])), $case->[2], $case->[0];
    }
    is answer_of(call('steal', \%good)), '404 NOT_FOUND', 'an action that there is not';
    is answer_of(call('take', {%good, account => 'stranger'}, path => '/known/credits/')), '404 UNKNOWN_ACCOUNT', 'where strangers are not made, they are not';
    is $host->get('/internal/credits/check', Authorization => "Bearer $token")->status, 405, 'GET does nothing';
};

subtest 'C15, G11: the count of a stock' => sub {
    my %told = (success => 1, current => 0, reserved => 0, limit => 1, remaining => 1);
    is_deeply call('stock', {account => 'a', stock => 'brands'})->json, \%told, 'told';
    is_deeply call('stock', {account => 'a', stock => 'brands', current => 3, reason => 'imported'})->json, {%told, current => 3, remaining => 0}, 'stated, more than allowed too';
    is_deeply call('stock', {account => 'a', stock => 'brands', current => '0', key => 's1'})->json, \%told, 'none are left';
    is_deeply call('stock', {account => 'a', stock => 'brands', current => 2}, 'Idempotency-Key' => 's1')->json, {%told, repeated => 1}, 'G17: once for a key';
    is_deeply [map { "$_->{action} $_->{quantity} $_->{reason}" } $world->sql('SELECT * FROM billing.stock_ledger ORDER BY id')], ['set 3 imported', 'set -3 stated'], 'the ledger says why';
    is answer_of(call('stock', {account => 'maker', stock => 'brands'})), '404 UNKNOWN_ACCOUNT', 'a question makes no account';
    is call('stock', {account => 'maker', stock => 'brands', current => 1})->json->{current}, 1, 'S10: a statement does';
    is answer_of(call('stock', $_->[1])), $_->[2], $_->[0] for ['no account', {stock => 'brands'}, '400 INVALID_REQUEST'], ['no stock', {account => 'a', current => 1}, '400 INVALID_REQUEST'],
        ['an unknown stock', {account => 'a', stock => 'gold'}, '400 UNKNOWN_STOCK'], ['a count that is none', {account => 'a', stock => 'brands', current => '1e3'}, '400 INVALID_REQUEST'],
        ['less than none', {account => 'a', stock => 'brands', current => -1}, '400 INVALID_QUANTITY'], ['a key with a colon', {account => 'a', stock => 'brands', current => 1, key => 'a:b'}, '400 INVALID_KEY'];
};

subtest 'never public' => sub {
    for my $wrong ('', 'Bearer ', "Bearer ${token}x", 'Bearer ' . substr($token, 1), "Basic $token", 'Bearer test:a') {
        my $answer = call('grant', {account => 'a', credit => 'logo', quantity => 1, key => 'theft'}, Authorization => $wrong);
        is answer_of($answer), '401 INVALID_TOKEN', 'not with "' . substr($wrong, 0, 10) . '..."';
    }
    is answer_of(call('check', {account => 'a', credit => 'logo', quantity => 1}, path => '/sealed/')), '401 INVALID_TOKEN', 'not without a certificate, where one is asked for';
    is_deeply [grep { /\Q$token/ } $host->log_lines], [], 'the token is in no log line';
};

subtest 'AC-18: a job that fails' => sub {
    my $accepted = $host->post('/jobs/status/202', '{}', Authorization => 'Bearer test:worker');
    is $accepted->status, 202, 'the application has taken the job';
    my $reservation = $accepted->json->{headers}{'x-billing-reservation'};
    like $reservation, qr/^g\.\d+\.\d+$/, 'and knows what its taking is called';
    ok eval { wait_for(sub { balance('worker') eq '0/4' && !$world->sql('SELECT 1 FROM billing.credit_holds') }, 10, 'committed') }, 'which is paid for';
    is_deeply call('refund', {account => 'worker', credit => 'logo', key => $reservation, reason => 'rendering failed'})->json,
        {success => 1, refunded => 4, balance_after => 4}, 'an hour later it fails: refunded';
    is balance('worker'), '4/0', 'AC-18: the balance is as it was';
};

subtest 'PostgreSQL away' => sub {
    $world->db->pause;
    my $answer = call('take', {account => 'a', credit => 'logo', quantity => 1, key => 'away'});
    is answer_of($answer), '503 BILLING_UNAVAILABLE', 'nobody can tell';
    $world->db->resume;
    my $again;
    ok eval { wait_for(sub { ($again = call('take', {account => 'a', credit => 'logo', quantity => 1, key => 'away'}))->status == 200 }, 15, 'back') },
        'the same call again takes once, whatever became of the first';
    is $again->json->{balance_after}, 4, 'of five';
};
done_testing;
