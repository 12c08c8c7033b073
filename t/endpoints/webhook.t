# An event is taken if, and only if, somebody who knows the secret has signed these very bytes lately; what is taken is in PostgreSQL
# before the 200, byte for byte; and what belongs to another world changes nothing. W1 W2 W10 W11; security cases A30 A31 A33 A35 A37.
use v5.36;
use Billing::Test;
use Billing::Journey qw(problem answer_of);
use Digest::SHA qw(hmac_sha256_hex);
use JSON::PP ();

my $world = world(
    stripe => 1,
    locations => <<'END',
    billing_account $user;
    location = /billing/checkout { billing_checkout; }
    location = /billing/webhook { billing_webhook; }
    location = /rolling { billing_webhook; billing_webhook_secret whsec_old whsec_new; }
    location = /small { billing_webhook; billing_webhook_secret whsec_small; client_body_buffer_size 1k; }
    location = /narrow { billing_webhook tolerance=60s; billing_webhook_secret whsec_small; }
    location = /wide { billing_webhook tolerance=1h; billing_webhook_secret whsec_small; limit_except GET { allow all; } }
    location = /gated/webhook { billing on; billing_webhook; billing_webhook_secret whsec_small; }
END
);
my $host = $world->host;
my $secret = $world->webhook_secret;
my $json = JSON::PP->new->canonical;

my $number = 0;
sub event(%with) {
    return $json->encode({id => 'evt_test_' . ++$number, object => 'event', type => 'customer.subscription.updated', api_version => '2026-02-25.clover',
        created => time, livemode => JSON::PP::false, data => {object => {id => "sub_$number", object => 'subscription', customer => "cus_$number"}}, %with});
}
sub signature($body, %with) {
    my $time = $with{time} // time;
    return "t=$time," . join ',', map { 'v1=' . hmac_sha256_hex("$time.$body", $_) } @{$with{secrets} // [$with{secret} // $secret]};
}
sub send_to($path, $body, $signature, %headers) {
    return $host->request('POST', $path, body => $body,
        headers => {'Content-Type' => 'application/json; charset=utf-8', defined $signature ? ('Stripe-Signature' => $signature) : (), %headers});
}
sub deliver($body, %with) { send_to('/billing/webhook', $body, signature($body, %with)) }
sub row($body) { ($world->sql('SELECT type, status, last_error, livemode, customer_id, payload FROM billing.webhook_events WHERE event_id = ?', $json->decode($body)->{id}))[0] }
sub count() { ($world->sql('SELECT count(*) AS n FROM billing.webhook_events'))[0]{n} }

subtest 'W2: taken once' => sub {
    my $body = event();
    my $answer = deliver($body);
    is_deeply [$answer->status, $answer->body], [200, '{"received":true}'], 'received';
    is_deeply [$answer->status, $answer->body], [200, '{"received":true,"duplicate":true}'], 'again: a duplicate' for $answer = deliver($body);
    is row($body)->{payload}, $body, 'the signed bytes are kept';
    my $spaced = '  ' . event() . "\n";
    is deliver($spaced)->status, 200, 'white space is part of what is signed';
};

subtest 'W1: refused, and nothing of it is kept' => sub {
    my $before = count();
    my $body = event();
    my $now = time;
    my $good = hmac_sha256_hex("$now.$body", $secret);
    my %refused = (
        'no signature' => undef,
        'an empty one' => '',
        'another secret' => signature($body, secret => 'whsec_other'),
        'another body' => signature(event()),
        'too old' => signature($body, time => $now - 302),
        'from the future' => signature($body, time => $now + 310),
        'v0 only' => "t=$now,v0=$good",
        'upper case' => "t=$now,v1=" . uc $good,
        'cut short' => "t=$now,v1=" . substr($good, 0, 62),
        'no time' => "v1=$good",
        'two times' => "t=$now,t=$now,v1=$good",
        'a time that is none' => "t=${now}x,v1=$good",
        'a negative time' => "t=-$now,v1=$good",
        'a huge time' => "t=1180591620717411303424,v1=$good",
        'a hundred of them' => "t=$now," . join(',', ("v1=$good") x 100),
        'without its secret' => "t=$now,v1=" . hmac_sha256_hex("$now.$body", ''),
    );
    for my $what (sort keys %refused) {
        is answer_of(send_to('/billing/webhook', $body, $refused{$what})), '400 INVALID_SIGNATURE', "A30: $what";
    }
    is answer_of(deliver($_->[1])), '400 INVALID_EVENT', "A37: $_->[0], though it is signed" for
        ['nothing', ''], ['no JSON', 'x'], ['an array', '[]'], ['no id', '{"object":"event","type":"x"}'], ['no type', '{"object":"event","id":"evt_1"}'],
        ['half', substr($body, 0, 50)], ['two', $body . $body], ['its id twice', '{"id":"evt_a","id":"evt_b","object":"event","type":"x"}'],
        ['a nest', '{"id":"evt_a","type":"x","data":' . '[' x 3000 . ']' x 3000 . '}'];
    is $host->get('/billing/webhook', 'Stripe-Signature' => signature(''))->status, 405, 'GET';
    is count(), $before, 'nothing is kept';
    is answer_of(deliver($body)), '200', 'and the event itself is still taken';
    my @lines = $host->log_lines(qr/a webhook is refused/);
    ok @lines >= 1 && @lines <= 4, 'the log has one line of each worker, until a good event comes' or diag "@lines";
    is scalar(grep { /whsec_|v1=/ } $host->log_lines), 0, 'without payload or signature';
};

subtest 'W1: how old an event may be is configured' => sub {
    for my $case (['/narrow', 55, '200'], ['/narrow', 62, '400 INVALID_SIGNATURE'], ['/narrow', -70, '400 INVALID_SIGNATURE'],
        ['/wide', 3595, '200'], ['/wide', 3602, '400 INVALID_SIGNATURE'], ['/wide', -3590, '200'], ['/small', 295, '200'], ['/small', 302, '400 INVALID_SIGNATURE']) {
        my ($path, $age, $answer) = @$case;
        my $body = event();
        is answer_of(send_to($path, $body, signature($body, secret => 'whsec_small', time => time - $age))), $answer, "$path: $age s";
    }
};

subtest 'W1: secrets that are being rolled' => sub {
    for my $case (['the old one', ['whsec_old']], ['the new one', ['whsec_new']], ['both', [qw(whsec_gone whsec_new)]]) {
        my $body = event();
        is answer_of(send_to('/rolling', $body, signature($body, secrets => $case->[1]))), '200', $case->[0];
    }
    my $body = event();
    is answer_of(send_to('/rolling', $body, signature($body))), '400 INVALID_SIGNATURE', 'that of another location is another';
    $body = event();
    is answer_of(send_to('/gated/webhook', $body, signature($body, secret => 'whsec_small'))), '200', 'a gate around it does not close it';
};

subtest 'A35: sizes, and ways to send them' => sub {
    my $large = event(padding => 'x' x 300_000);
    is answer_of(deliver($large)), '200', '300 kB, by way of a file';
    is length row($large)->{payload}, length $large, 'whole';
    my $small = event(padding => 'y' x 5_000);
    is answer_of(send_to('/small', $small, signature($small, secret => 'whsec_small'))), '200', '5 kB through a buffer of 1 kB';
    is row($small)->{payload}, $small, 'whole';
    my $huge = event(padding => 'x' x 530_000);
    is answer_of(deliver($huge)), '413 BODY_TOO_LARGE', 'more than 512 kB';
    my $chunked = event(padding => 'z' x 40_000);
    my $chunks = join '', map { sprintf "%x\r\n%s\r\n", length, $_ } $chunked =~ /(.{1,3000})/gs;
    is answer_of(send_to('/billing/webhook', "${chunks}0\r\n\r\n", signature($chunked), 'Transfer-Encoding' => 'chunked')), '200', 'in chunks';
    is row($chunked)->{payload}, $chunked, 'whole';
    my $endless = event(padding => 'z' x 600_000);
    $chunks = join '', map { sprintf "%x\r\n%s\r\n", length, $_ } $endless =~ /(.{1,60000})/gs;
    is answer_of(send_to('/billing/webhook', "${chunks}0\r\n\r\n", signature($endless), 'Transfer-Encoding' => 'chunked')), '413 BODY_TOO_LARGE', 'too many of them';
};

subtest 'A33: what belongs to another world is kept and ignored' => sub {
    my @foreign = (
        [event(livemode => JSON::PP::true), qr/a live event, and the key is a test one/],
        [event(account => 'acct_other'), qr/connected account/],
        [event(object => 'v2.core.event', type => 'v2.core.account.updated', created => '2026-01-01T00:00:00Z', data => undef), qr/second kind/],
        [event(type => 'price.updated'), qr/no use for this type/],
    );
    for (@foreign) {
        my ($body, $why) = @$_;
        is answer_of(deliver($body)), '200', 'taken';
        like join(' ', @{row($body)}{qw(status last_error)}), qr/^ignored .*$why/, "ignored: $why";
        is problem(deliver($body))->{duplicate}, 1, 'once';
    }
    my $strange = event(data => {object => {id => 'sub_nul', object => 'subscription', customer => 'cus_nul', metadata => {x => "a\0b"}}});
    is answer_of(deliver($strange)), '200', 'A37: \u0000 in a text is taken';
};

subtest 'W11: an event of nobody we know waits' => sub {
    my $body = event(data => {object => {id => 'sub_parked', object => 'subscription', customer => 'cus_nobody', status => 'active'}});
    is answer_of(deliver($body)), '200', 'taken';
    wait_for(sub { row($body)->{status} eq 'parked' }, 10, 'it is parked');
    like row($body)->{last_error}, qr/unknown customer/, 'and says why';
};

subtest 'W2: what cannot be stored is not acknowledged' => sub {
    my $body = event();
    $world->db->pause;
    my $answer = deliver($body);
    $world->db->resume;
    is_deeply [answer_of($answer), !!$answer->header('Retry-After')], ['503 NOT_STORED', 1], 'PostgreSQL does not answer: 503';
    wait_for(sub { deliver($body)->status == 200 }, 10, 'sent again it is taken');
    ok row($body), 'and is there';
};

done_testing;
