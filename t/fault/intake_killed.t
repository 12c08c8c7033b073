# The promise (P9, W2): an event that was answered with 200 is in PostgreSQL, once and byte for byte, whoever dies under load: workers by
# kill -9, PostgreSQL by kill -9, both; and an event that was there already is told apart, also when the same comes several times at once.
use v5.36;
use Billing::Client qw(requests);
use Billing::Test;
use Digest::SHA qw(hmac_sha256_hex);
use JSON::PP ();

# fsync: what PostgreSQL has acknowledged survives its kill -9.
my $world = world(stripe => 1, redis => 0, database => {fsync => 1}, locations => 'location = /billing/webhook { billing_webhook; }');
my $host = $world->host;
my $json = JSON::PP->new->canonical;

# Of a type that has no effect: this is about intake alone.
sub body($id) {
    return $json->encode({id => $id, object => 'event', type => 'product.created', created => time, livemode => JSON::PP::false,
        data => {object => {id => "prod_$id", object => 'product', name => 'x' x 3000}}});
}
sub delivery($body) {
    my $time = time;
    my $signature = "t=$time,v1=" . hmac_sha256_hex("$time.$body", $world->webhook_secret);
    return {address => $host->address, method => 'POST', path => '/billing/webhook', body => $body, headers => {'Stripe-Signature' => $signature}};
}

# New events, sixteen at a time, until it is ended; a line for each that was acknowledged.
sub start_load() {
    my $file = $world->directory . '/acknowledged';
    my $pid = fork // die "fork: $!\n";
    return {pid => $pid, file => $file} if $pid;
    open my $out, '>', $file or POSIX::_exit(1);
    $out->autoflush;
    for (my $number = 0;; $number += 32) {
        my @bodies = map { body("evt_$_") } $number .. $number + 31;
        my @answers = requests(16, map { delivery($_) } @bodies);
        print $out map { "$bodies[$_]\n" } grep { $answers[$_]->status == 200 } 0 .. $#bodies;
    }
}
sub acknowledged($load) { split /\n/, Billing::Process::slurp($load->{file}) }

my $load = start_load();
my $goes_on = sub ($what) {
    my $before = acknowledged($load);
    wait_for(sub { acknowledged($load) > $before + 100 }, 30, "events are taken $what");
};
$goes_on->('at first');
for my $round (1 .. 3) {
    $host->kill9_workers;
    $goes_on->('after kill -9 of the workers');
    $world->db->kill9;
    $world->db->start;
    $goes_on->('after kill -9 of PostgreSQL');
}
kill 'KILL', $load->{pid};
waitpid $load->{pid}, 0;

my $probe = 0;
wait_for(sub { !grep { $_->status != 200 } requests(30, map { delivery(body('evt_probe_' . ++$probe)) } 1 .. 30) }, 20, 'all workers have PostgreSQL again');
my @acknowledged = acknowledged($load);
my %stored = map { $_->{payload} => $_->{n} } $world->sql("SELECT convert_from(payload, 'UTF8') AS payload, count(*) AS n FROM billing.webhook_events GROUP BY 1");
cmp_ok scalar(@acknowledged), '>', 700, 'W2: many events were acknowledged meanwhile: ' . @acknowledged;
is scalar(grep { !$stored{$_} } @acknowledged), 0, 'P9: each of them is there';
is scalar(grep { $_ > 1 } values %stored), 0, 'once';

my @again = map { delivery($_) } map { ($_) x 3 } @acknowledged[-20 .. -1];
is scalar(grep { $_->status == 200 && $_->body eq '{"received":true,"duplicate":true}' } requests(30, @again)), 60, 'sent again, each is a duplicate';
my @fresh = map { my $body = body("evt_fresh_$_"); map { delivery($body) } 1 .. 3 } 1 .. 20;
my %told;
$told{$_->status . $_->body}++ for requests(30, @fresh);
is_deeply \%told, {'200{"received":true}' => 20, '200{"received":true,"duplicate":true}' => 40}, 'three of the same at once: one is new';

done_testing;
