# Who asks why an account is refused is told what nginx does, for each rule, reading and writing, and on what that rests: the words of
# `ngx-billing account explain` and the answers of the gate are the same. O1, G3.
use v5.36;
use Billing::Journey qw(answer_of);
use Billing::Process qw(patience);
use Billing::Test;
use JSON::PP ();

my @plans = qw(free starter pro agency);
my @features = qw(basic_wizard svg_export white_label);
my $world = world(locations => join "\n", 'billing on; billing_account $user;',
    'location /none/ { proxy_pass http://app; }',
    'location /quotas/requests/ { billing_quota requests; proxy_pass http://app; }',
    map({ "location /plans/$_/ { billing_plan $_; proxy_pass http://app; }" } @plans),
    map({ "location /features/$_/ { billing_feature $_; proxy_pass http://app; }" } @features));
my $host = $world->host;

sub explained($id, @more) { JSON::PP->new->utf8->boolean_values(0, 1)->decode($world->must('account', 'explain', $id, '--json', @more)) }
sub text($id, @more) { $world->must('account', 'explain', $id, @more) }
sub answers($id, $path) { map { answer_of($host->request($_, $path, headers => {Authorization => "Bearer test:$id"})) } qw(GET POST) }
sub verdict($told) { $told->{allowed} ? '200' : "$told->{status} $told->{code}" }

# Every rule of the location tree, and what the command says of each.
sub verdicts($told) {
    my %all = ('/none/' => $told->{verdicts}{no_rule});
    for my $group (qw(plans features quotas)) {
        $all{"/$group/$_/"} = $told->{verdicts}{$group}{$_} for $group eq 'features' ? @features : sort keys $told->{verdicts}{$group}->%*;
    }
    return \%all;
}

my $past = '2001-01-01T00:00:00Z';
my @accounts = (
    [plain => qr/^plain: allowed\n\n/],
    [stopped => qr/^stopped: reading is allowed, writing is refused with 403 WRITE_DISABLED\n  its writes are switched off/, '--writes', 'off'],
    [owing => qr/writing is refused with 402 MAINTENANCE\n  a payment has failed: reading goes on/, '--plan', 'pro', '--maintenance', 'payment'],
    [repaired => qr/an operator has made it read-only/, '--maintenance', 'operator'],
    [enforced => qr/^enforced: refused with 402 BILLING_ENFORCED\n  billing is enforced, the status is unpaid, and the grace ended at $past\n/,
        '--status', 'unpaid', '--enforced', 'on', '--grace-until', $past],
    [canceled => qr/^canceled: refused with 402 SUBSCRIPTION_INACTIVE\n  plan pro needs a live subscription, and the status is canceled\n/, '--plan', 'pro', '--status', 'canceled'],
    [lapsed => qr/a payment is due, and the time to pay it ended at $past/, '--plan', 'starter', '--status', 'past_due', '--grace-until', $past],
    [everything => qr/^everything: reading is refused with 402 BILLING_ENFORCED, writing is refused with 403 WRITE_DISABLED\n/,
        '--plan', 'pro', '--status', 'past_due', '--enforced', 'on', '--grace-until', $past, '--writes', 'off', '--maintenance', 'payment'],
    [excepted => qr/exceptions +feature white_label on\n +feature basic_wizard off\n +quota requests 3\n/,
        '--feature', 'white_label=on', '--feature', 'basic_wizard=off', '--limit', 'requests=3'],
    [empty => qr/^empty: allowed\n  quota requests is used up: 402 LIMIT_REQUESTS until \d{4}-/, '--limit', 'requests=0'],
    [paid => qr/^paid: allowed\n/, '--plan', 'agency'],
);
for my $account (@accounts) {
    my ($id, $like, @settings) = @$account;
    $world->sql('SELECT billing.ensure_accounts(?)', [$id]);
    $world->must('account', 'set', $id, @settings) if @settings;
    my $all = verdicts(explained($id));
    my %told = map { $_ => [verdict($all->{$_}{read}), verdict($all->{$_}{write})] } keys %$all;
    my %done = map { $_ => [answers($id, "${_}x")] } keys %$all;
    is_deeply \%told, \%done, "G3: $id: each rule is explained as nginx answers";
    my $text = text($id);
    like $text, $like, "O1: $id: the reason stands first";
    cmp_ok scalar(split /\n/, $text), '<=', 24, "O1: $id: on one screen";
}

subtest 'O1: a quota that is used up' => sub {
    $host->get('/quotas/requests/x', Authorization => 'Bearer test:eater') for 1 .. 20;
    is answer_of($host->get('/quotas/requests/x', Authorization => 'Bearer test:eater')), '402 LIMIT_REQUESTS', 'refused';
    wait_for(sub { text('eater') =~ /^  quota requests is used up: 402 LIMIT_REQUESTS until /m }, 5 * patience(), 'once it is reported');
    like text('eater'), qr/^quotas +requests: 20 of 20 used \(month\) until \S+, 0 with hosts$/m, 'so many of so many';
    $host->get('/quotas/requests/x', Authorization => 'Bearer test:paid') for 1 .. 3;
    like text('paid'), qr/^quotas +requests: \d+ of unlimited used \(month\) until \S+, \d+ with hosts\nhosts +\S+ reported last at /m,
        'what lies with hosts, and which hosts they may be';
};

subtest 'O1: credits' => sub {
    $world->sql(q{SELECT billing.deduct_credits('eater', 'logo', 3, 'explained')});
    like text('eater'), qr/^credits +logo: 1 left, 3 used\n +mockup: 4 left, 0 used$/m, 'G12: what is left, of each type';
};

subtest 'O1: stock' => sub {
    $world->sql(q{SELECT billing.stock_count('eater', 'brands', 2)});
    like text('eater'), qr/^stock +brands: 2 of 1$/m, 'G11: how many there are, of how many';
    $world->must('account', 'set', 'eater', '--stock', 'brands=unlimited');
    my $told = text('eater');
    like $told, qr/^stock +brands: 2 of unlimited$/m, 'G11: an exception';
    like $told, qr/^exceptions +stock brands unlimited$/m, 'is told as one';
    is $world->must('account', 'set', 'eater', '--stock', 'brands=default', '--json') =~ /"amount": ?1,/, 1, 'and ends';
};

subtest 'O1: what Stripe has told' => sub {
    $world->sql(q{SELECT * FROM billing.customer_link('paid', 'cus_paid')});
    $world->sql(q{INSERT INTO billing.subscriptions (subscription_id, account_id, status, plan_no, price_id, period_end)
        SELECT 'sub_paid', id, 'active', plan_no, 'price_agency_monthly', '2999-01-01' FROM billing.accounts WHERE external_id = 'paid'});
    $world->sql(q{SELECT billing.stripe_event_store('', 'evt_paid', 'invoice.paid', NULL, false, 1, 'cus_paid', '\x7b7d', 'no use for this type')});
    my $text = text('paid');
    like $text, qr/^customer +cus_paid$/m, 'the customer';
    like $text, qr/^subscriptions +sub_paid active, plan agency by price_agency_monthly, paid until 2999-01-01T00:00:00Z$/m, 'the subscription';
    like $text, qr/^events +\S+Z evt_paid invoice\.paid: ignored, no use for this type$/m, 'the events';
    like text('plain'), qr/^customer +none is linked$/m, 'nothing of it with another account';
    unlike text('plain'), qr/_paid/, 'really nothing';
};

subtest 'O1: what the cache holds' => sub {
    my $redis = $world->redis;
    my @look = ('--redis', $redis->address);
    wait_for(sub { explained('paid', @look)->{cache}{trusted} }, 5 * patience(), 'the cache has it');
    my $told = explained('paid', @look);
    is_deeply $told->{cache}, {address => $redis->address, answers => 1, stamp => $told->{account}{stamp}, trusted => 1}, 'the newest, and trusted';
    like text('paid', @look), qr/^cache +Redis at \S+ holds stamp [0-9a-f]{16}, PostgreSQL's own; trusted$/m, 'in words';
    $redis->client->hset('billing:account:{paid}', 'stamp', '0000010000000001');
    $redis->client->hset('billing:account:{paid}', 'run', 'another-run');
    like text('paid', @look), qr/0000010000000001, older than PostgreSQL's; not trusted, it is from before a restart of Redis$/m, 'an old one of an earlier life';
    $redis->client->del('billing:account:{paid}');
    like text('paid', @look), qr/holds nothing of it/, 'none';
    my $nowhere = $world->command('account', 'explain', 'paid', '--redis', 'unix:/nowhere/redis.sock');
    is $nowhere->{code}, 0, 'no Redis: PostgreSQL is explained all the same';
    like $nowhere->{out}, qr{^cache +Redis at unix:/nowhere/redis\.sock does not answer$}m, 'and that is said';
};

subtest 'O1: exit codes' => sub {
    my $nobody = $world->command('account', 'explain', 'nobody');
    is $nobody->{code} . $nobody->{err}, qq{1ngx-billing: no account "nobody"\n}, 'an unknown account is 1';
    is $world->sql(q{SELECT 1 FROM billing.accounts WHERE external_id = 'nobody'}), 0, 'and does not come into being';
    is $world->command('account', 'explain')->{code}, 2, 'no account named is 2';
    is $world->command('account', 'explain', 'paid', '--redis', 'rediss://x')->{code}, 2, 'an address that is none is 2';
    is Billing::Test::run_command('account', 'explain', 'paid', '--dsn', 'host=127.0.0.1 port=1 dbname=x')->{code}, 3, 'no database is 3';
};

done_testing;
