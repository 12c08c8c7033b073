# With a key and a signing secret in the environment script/demo sells by Stripe itself. Stripe is far away from here: its stand-in is told
# to sell nothing, so that all there is has been made by the demo.
use v5.36;
use Billing::Client qw(request);
use Billing::Process qw(new_directory root slurp wait_for);
use Billing::Stripe;
use JSON::PP ();
use Test::More;

my $stripe = Billing::Stripe->new;
my $secret = 'whsec_demo';
my $log = new_directory() . '/demo.log';
my %env = (STRIPE_SECRET_KEY => $stripe->key, STRIPE_WEBHOOK_SECRET => $secret, STRIPE_API => $stripe->url);

my $live = Billing::Process->start(name => 'script/demo', log => $log, env => {%env, STRIPE_SECRET_KEY => 'sk_live_canary'}, command => [root() . '/script/demo']);
isnt $live->wait_exit(60), 0, 'a live key is refused';
like slurp($log), qr/a demo is for the test mode/, 'in words';

my $demo = Billing::Process->start(name => 'script/demo', log => $log, env => \%env, command => [root() . '/script/demo']);
my $address = wait_for(sub { slurp($log) =~ /Stop with Ctrl-C/ && (slurp($log) =~ m{stripe listen --forward-to http://([\w.:]+)/billing/webhook})[0] }, 120, 'the demo says where it is');
ok $address, 'the demo stands, and says how events reach it';
unlike slurp($log), qr/\Q$secret\E|\Q@{[$stripe->key]}\E/, 'without a secret';
ok +(grep { $_->{name} eq 'Pro' } $stripe->all('product')), 'what the catalog has is for sale there';
cmp_ok scalar($stripe->all('price')), '>', 3, 'and prices there';

# As "stripe listen" does it.
$stripe->webhook(url => "http://$address/billing/webhook", secret => $secret);
sub get($path) { request($address, 'GET', $path) }
is get('/export/x')->status, 403, 'a feature of a better plan';
my $url = JSON::PP::decode_json(request($address, 'POST', '/billing/checkout', body => '{"plan":"pro"}', headers => {'Content-Type' => 'application/json'})->body)->{url};
my ($session) = $stripe->all('checkout.session');
is $url, $session->{url}, 'a checkout leads to a session there';
$stripe->pay($session->{id});
ok eval { wait_for(sub { get('/export/x')->status == 200 }, 10, 'the feature') }, 'which is paid, and the feature is there';
my ($dsn) = slurp($log) =~ /--dsn '([^']+)' events list/;
my $events = qx(@{[root()]}/build/ngx-billing --dsn '$dsn' events list);
like $events, qr/checkout\.session\.completed/, 'what it says of the command is so';
kill INT => $demo->pid;
is $demo->wait_exit(60), 0, 'Ctrl-C stops all of it';
$stripe->stop;
done_testing;
