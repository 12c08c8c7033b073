# The guide's commands are the command's: each of them runs, in the order in which they stand there, against a world where they have
# something to do. O7.
use v5.36;
use Billing::Process qw(root slurp);
use Billing::Test;
use Text::ParseWords qw(shellwords);

my $guide = slurp(root() . '/docs/operations.md');
my @commands = map { /^\$ (ngx-billing .*)$/mg } $guide =~ /^```console\n(.*?)^```/msg;
cmp_ok scalar(@commands), '>', 15, 'there are commands';

my $world = world(stripe => {portal => 0}, locations => 'billing on; billing_account $user; location / { proxy_pass http://app; }
    location = /billing/webhook { billing_webhook; }');
my $stripe = $world->stripe;
local $ENV{STRIPE_SECRET_KEY} = $stripe->key;
my $customer = $stripe->api(POST => '/v1/customers', {metadata => {account => 'demo'}})->json->{id};
$stripe->subscribe($customer, price => 'price_starter_monthly');
$stripe->wait_delivered;
my $event;
wait_for(sub { ($event) = map { $_->{event_id} } $world->sql(q{SELECT event_id FROM billing.webhook_events WHERE status = 'parked' LIMIT 1}) }, 10, 'an event');

my %own = (migrate => ['--dir', root() . '/migrations'], map { $_ => ['--stripe-api', $stripe->url] } qw(push import reconcile));
for my $command (@commands) {
    my (undef, @words) = shellwords($command);
    my ($subcommand) = grep { $own{$_} } @words;
    @words = map { $_ eq 'catalog.json' ? root() . '/conf/catalog.json' : $_ eq 'evt_...' ? $event : $_ } @words;
    my $said = $world->command(@words, $subcommand ? $own{$subcommand}->@* : ());
    is $said->{code}, 0, "O7: $command" or diag $said->{err};
}
is $world->account('demo')->{plan}, 'starter', 'and what they are for has happened';

my @subcommands = (['catalog', 'push'], ['import'], ['reconcile'], ['account', 'set'], map { ['events', $_] } qw(list show replay));
my %known = map { $_ => 1 } map { Billing::Test::run_command(@$_, '--help')->{out} =~ /(--[a-z][a-z-]+)/g } [], @subcommands;
my @unknown = grep { !$known{$_} } $guide =~ /(?<![\w-])(--[a-z][a-z-]+)/g;
is "@unknown", '', 'every option that it names is one';
done_testing;
