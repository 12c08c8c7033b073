# A worker that is being replaced hands the host's work over at once, however long its last connection takes, and finishes the events
# that it has in work: none is dropped, none is processed twice, and none waits for it. W3 (a reload, kill -9); O3.
use v5.36;
use Billing::Test;

my $world = world(stripe => 1, workers => 1, locations => <<'END');
    location / { billing on; billing_account $user; billing_unknown_account free; proxy_pass http://app; proxy_read_timeout 60s; }
    location = /billing/webhook { billing_webhook; }
END
my $host = $world->host;
my $stripe = $world->stripe;

# As the webhook endpoint stores it: "look again at this customer".
sub store($id, $customer) {
    my $body = qq({"id":"$id","object":"event","type":"customer.subscription.updated","data":{"object":{"id":"sub_x","object":"subscription","customer":"$customer"}}});
    $world->sql("SELECT billing.stripe_event_store('', ?, 'customer.subscription.updated', NULL, false, NULL, ?, convert_to(?, 'UTF8'), NULL)",
        $id, $customer, $body);
    return;
}
sub event($id) { join ' ', @{($world->sql('SELECT status, failures, waits, attempts FROM billing.webhook_events WHERE event_id = ?', $id))[0]}{qw(status failures waits attempts)} }
sub becomes($id, $state, $seconds, $what) { wait_for(sub { event($id) eq $state }, $seconds, "$what: $state") }

my $customer = $stripe->api('POST', '/v1/customers', {name => 'A'})->json->{id};
$world->sql("SELECT billing.ensure_accounts(ARRAY['acct'])");
$world->sql('SELECT billing.customer_link(?, ?)', 'acct', $customer);
store('evt_1', 'cus_nobody');
becomes('evt_1', 'parked 0 0 1', 10, 'the first worker processes events');

my ($old) = $host->workers;
my $slow = $host->connect;
print $slow "GET /slow/12 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer demo-token\r\nConnection: close\r\n\r\n";
wait_for(sub { $world->app->count('/slow/12') == 1 }, 5, 'a request that takes long');
$stripe->fault(path => '/v1/subscriptions', delay => 3, count => 1);
store('evt_2', $customer);
wait_for(sub { event('evt_2') =~ /^processing/ }, 5, 'an event in work, at a Stripe that takes long');

kill 'HUP', $host->master;
wait_for(sub { my @workers = $host->workers; @workers == 1 && $workers[0] != $old }, 10, 'the new worker serves');
becomes('evt_2', 'processed 0 0 1', 10, 'what was in work is finished by who began it');
store('evt_3', 'cus_nobody');
store('evt_4', $customer);
becomes('evt_3', 'parked 0 0 1', 5, 'what comes then is processed');
becomes('evt_4', 'processed 0 0 1', 5, 'by the new one');
ok Billing::Process::process_alive($old), 'while the old one still waits for its last request';
my $answer = do { local $/; <$slow> };
like $answer, qr{^HTTP/1\.1 200 }, 'which is answered';
wait_for(sub { !Billing::Process::process_alive($old) }, 10, 'and then it ends');

# Five workers are killed while they process one event, which has nothing to do with it.
$stripe->fault(path => '/v1/subscriptions', hang => 1, count => 0);
store('evt_5', $customer);
for my $attempt (1 .. 5) {
    becomes('evt_5', "processing 0 0 $attempt", 10, "attempt $attempt is in work");
    $host->kill9_worker;
    $stripe->clear_faults if $attempt == 5;
    $world->sql(q{UPDATE billing.webhook_events SET next_attempt_at = now() WHERE event_id = 'evt_5'});    # its lease is over
}
becomes('evt_5', 'processed 0 0 6', 15, 'W3: five workers were killed in processing it, and it is applied');
done_testing;
