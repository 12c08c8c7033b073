# Promise: nobody writes our log lines or our fields: what clients, applications or events bring along starts no line of its own, moves no
# cursor, splits no answer. A39, A41.
use v5.36;
use Billing::Process qw(slurp);
use Billing::Stripe::Webhooks ();
use Billing::Test;
use JSON::PP ();

my $catalog = Billing::Test->sample_catalog;
my $world = world(stripe => 1, catalog => $catalog, locations => <<'END');
    billing_account $arg_account;
    billing_unknown_account create;
    location /gated/ { billing on; billing_pass_headers on; billing_quota requests settle=$upstream_http_x_billing_cost; proxy_pass http://app; add_header X-Plan $billing_plan always; }
    location = /billing/webhook { billing_webhook; }
END
my $host = $world->host;
my $json = JSON::PP->new->utf8->canonical;

# Each line of the log is nginx's own, and nothing in it moves a terminal's cursor.
sub log_is_whole($what) {
    my @strange = grep { !m{^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[\w+\] } } split /\n/, slurp($host->error_log);
    is_deeply \@strange, [], "A41: $what: each line is one of nginx's";
    unlike slurp($host->error_log), qr/[\x00-\x08\x0b-\x1f\x7f]/, "A41: $what: no control character";
    return;
}

my $forged = "x\n2026/01/01 00:00:00 [alert] 1#1: all is well\e[2J";
my $escaped = join '', map { sprintf '%%%02x', ord } split //, $forged;
is $host->get("/gated/x?account=$escaped")->status, 400, 'an account of that kind is none';
log_is_whole('an account');

for my $field (qw(id type api_version account)) {
    my $event = {id => 'evt_1', object => 'event', api_version => '2026-02-25.clover', created => time, livemode => JSON::PP::false, type => 'customer.updated',
        data => {object => {id => 'cus_1', object => 'customer'}}, $field => $forged};
    my $body = $json->encode($event);
    my $answer = $host->post('/billing/webhook', $body, 'Content-Type' => 'application/json',
        'Stripe-Signature' => Billing::Stripe::Webhooks::signature($body, time, $world->webhook_secret));
    ok $answer->status == 200 || $answer->status == 400, "an event whose $field is of that kind: " . $answer->status;
}
wait_for(sub { !$world->sql(q{SELECT 1 FROM billing.webhook_events WHERE status IN ('received', 'processing')}) }, 20, 'those that were taken are over');
log_is_whole('events');

is $host->get('/gated/x?account=a&used=%1b%5b2J')->status, 200, 'what an application reports is only read';
log_is_whole('a report');
$host->expect_log(qr/the use of requests was reported/);

# A39: names that the operator chose reach fields as they are, or not at all.
ok !eval { $world->sql(q{UPDATE billing.plans SET attributes = jsonb_build_object('priority', E'1\r\nX-Evil: 1') WHERE plan_key = 'free' RETURNING 1}); 1 },
    'A39: an attribute of two lines is none';
$world->sql(q{UPDATE billing.plans SET display_name = E'Free\r\nSet-Cookie: a=b' WHERE plan_key = 'free' RETURNING 1});
my $answer;
ok eval { wait_for(sub { ($answer = $host->get('/gated/x?account=a'))->status == 200 }, 10, 'an answer') }, 'a plan with a line in its name';
is $answer->header('Set-Cookie'), undef, 'A39: makes no field of an answer';
log_is_whole('a plan');
done_testing;
