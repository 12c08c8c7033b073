# A host with `billing_jobs off` gates and stores events as every host does, and leaves publishing and processing to the others: while
# none of them is up the work waits, and nothing of it is lost. W2, S5.
use v5.36;
use Billing::Test;
use Billing::Journey qw(answer_of);

my $world = world(
    hosts => 2, stripe => {webhook => {url => 'http://127.0.0.1:1/'}},
    locations => <<'END',
    billing_account $user;
    location /export/ { billing on; billing_feature asset_download; proxy_pass http://app; }
    location = /billing/checkout { billing_checkout; }
    location = /billing/webhook { billing_webhook; }
END
);
my ($busy, $idle) = $world->hosts;
$idle->write_config($idle->{conf}, BILLING => "$idle->{vars}{BILLING} billing_jobs off;");
$idle->reload;
my @demo = (Authorization => 'Bearer demo-token');
is answer_of($idle->get('/export/x', @demo)), '403 FEATURE_NOT_IN_PLAN', 'the idle host gates';
is answer_of($idle->request('POST', '/billing/checkout?plan=pro', headers => {@demo})), '200', 'and sells';

$busy->quit;
my $stripe = $world->stripe;
$stripe->webhook(url => 'http://' . $idle->address . '/billing/webhook', secret => $world->webhook_secret);
my ($session) = $stripe->all('checkout.session');
$stripe->pay($session->{id});
my $waiting = sub { ($world->sql(q{SELECT count(*) AS n FROM billing.webhook_events WHERE status = 'received'}))[0]{n} };
wait_for(sub { $waiting->() >= 5 }, 10, 'the events are stored and wait');
is answer_of($idle->get('/export/x', @demo)), '403 FEATURE_NOT_IN_PLAN', 'nobody processes them';

$busy->start;
wait_for(sub { $waiting->() == 0 }, 10, 'the other host processes them');
wait_for(sub { $idle->get('/export/x', @demo)->status == 200 }, 5, 'and the idle host hears of it');
pass 'nothing is lost';
done_testing;
