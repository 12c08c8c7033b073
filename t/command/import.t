# Who paid before this gate was there is let through on its first day: Stripe's customers are matched to accounts, linked, and brought to
# what events would have made of them. What does not match is told, a dry run changes nothing, a second run finds nothing, and events that
# come later, or were parked, give nothing twice. O8.
use v5.36;
use Billing::Test;
use Billing::Journey qw(everything);
use JSON::PP ();

my $world = world(start => 0, stripe => 1, locations => 'billing on; billing_account $user; billing_unknown_account deny;
    location / { proxy_pass http://app; }
    location = /export { billing_feature asset_download; proxy_pass http://app; }
    location = /billing/webhook { billing_webhook; }');
my $stripe = $world->stripe;
my $json = JSON::PP->new->utf8->canonical->boolean_values(0, 1);
my @stripe = ('--stripe-api', $stripe->url);
local $ENV{STRIPE_SECRET_KEY} = $stripe->key;
$stripe->hold;    # nobody listens yet

sub import_with($code, @arguments) {
    my $said = $world->command('import', @stripe, '--json', @arguments);
    is $said->{code}, $code, "exit code $code" or diag $said->{err};
    return $json->decode($said->{out});
}
sub state_of($id) { join ' ', @{$world->account($id)}{qw(plan status)} }
sub logos($id) { $world->account($id)->{credits}{logo}{remaining} }
sub outcomes($told, $what) { [sort map { $_->{customer} } grep { $what->($_) } $told->{told}->@*] }
sub settled() {
    $stripe->wait_delivered;
    wait_for(sub { !$world->sql(q{SELECT 1 FROM billing.webhook_events WHERE status IN ('received', 'processing')}) }, 30, 'all events are processed');
    return;
}

my %id;
sub customer($name, %with) { $id{$name} = $stripe->api(POST => '/v1/customers', \%with)->json->{id} }
sub named($name, %with) { customer($name, metadata => {account => $name}, %with) }
sub subscribe($name, $price = 'price_starter_monthly', %with) { $stripe->subscribe($id{$name}, price => $price, %with) }

named('owing');
my $owed = subscribe('owing');
$stripe->new_card($id{owing}, declines => 1, pay => 0);
$stripe->end_period($owed->{id});
named('paying', email => 'paying@example.com', name => 'P. Aying');
subscribe('paying');
named('trying');
subscribe('trying', 'price_pro_yearly', trial_days => 7);
named('gone');
$stripe->control('portal', subscription => subscribe('gone')->{id}, action => 'cancel_now');
named('leaving');
$stripe->cancel(subscribe('leaving')->{id});
customer('bought for');
subscribe('bought for', 'price_pro_monthly', metadata => {account => 'bought'});
customer('old', metadata => {account => 'twice'});
subscribe('old');
customer('new', metadata => {account => 'twice'});
named('bare');
$stripe->price(id => 'price_of_old', amount => 900, interval => 'month');
named('odd');
subscribe('odd', 'price_of_old');
customer('strange', metadata => {account => 'no account id'});
subscribe('strange');
customer('nameless');
subscribe('nameless');
customer('silent');
named('taken');
subscribe('taken');
$world->sql('SELECT billing.ensure_accounts(?)', [qw(taken bare)]);
$world->sql('SELECT * FROM billing.customer_link(?, ?)', 'taken', 'cus_before');
named("many-$_") for 1 .. 90;    # more than a page
subscribe('many-1');

subtest 'another name in the metadata' => sub {
    my $said = $world->command('import', @stripe, '--match', 'metadata:userId', '--dry-run');
    is $said->{code}, 1, 'who pays would be refused';
    like $said->{err}, qr/no customer has "userId" in its metadata; if nginx\.conf has "billing_metadata account=NAME", write --match metadata:NAME/,
        'O8: and where to look is told';
    unlike $world->command('import', @stripe, '--dry-run')->{err}, qr/in its metadata/, 'by default it is the name that checkouts write';
};

subtest 'a dry run' => sub {
    my $before = everything($world);
    my $told = import_with(1, '--dry-run');
    is_deeply everything($world), $before, 'O8: changes nothing';
    is $told->{customers}, 104, 'and has looked at all';
    is_deeply [map { "$_->{account} $_->{look}{plan} $_->{look}{status}" } grep { $_->{customer} eq $id{trying} } $told->{told}->@*], ['trying pro trialing'],
        'and tells what would become of each';
    my $text = $world->command('import', @stripe, '--dry-run')->{out};
    like $text, qr/^\Q$id{paying}\E  is account paying, which is new\naccount paying \(\Q$id{paying}\E\): free \(active\) -> starter \(active\)$/m, 'in lines';
    like $text, qr/^\Q$id{nameless}\E  PAYS: nothing tells whose it is$/m, 'and who is not known';
    like $text, qr/^4 who pay would be refused: see above\nnothing was changed$/m, 'and how many';
};

my ($linked, %logos);
subtest 'imported' => sub {
    my $told = import_with(1);
    $linked = $told->{linked};
    is $told->{left}, 4, 'O8: code 1: four who pay are left';
    my %why = map { $_->{customer} => $_->{problem} } grep { $_->{problem} } $told->{told}->@*;
    is_deeply \%why, {
        $id{nameless} => 'nothing tells whose it is', $id{strange} => 'what names its account is no account id',
        $id{taken} => 'account taken has customer cus_before', $id{odd} => 'account odd pays for a price that the catalog does not have',
        $id{new} => "account twice has customer $id{old}",
    }, 'O8: each with the reason';
    my %wanted = (paying => 'starter active', trying => 'pro trialing', owing => 'starter past_due', leaving => 'starter active',
        gone => 'free active', bought => 'pro active', twice => 'starter active', bare => 'free active', odd => 'free active', taken => 'free active',
        'many-1' => 'starter active', 'many-90' => 'free active');
    is_deeply {map { $_ => state_of($_) } keys %wanted}, \%wanted, 'O8: the others have what they pay for';
    is $world->account('twice')->{stripe_customer_id}, $id{old}, 'of two customers the one that pays';
    is $world->account('bare')->{stripe_customer_id}, $id{bare}, 'one without a subscription is linked';
    is_deeply [@{$world->account('paying')}{qw(email name)}], ['paying@example.com', 'P. Aying'], 'with email and name';
    ok $world->account('leaving')->{cancel_at}, 'what ends at the end of its period is known to';
    my ($days) = map { $_->{d} } $world->sql(q{SELECT extract(epoch FROM grace_until - now()) / 86400 AS d FROM billing.accounts WHERE external_id = 'owing'});
    ok $days > 6.9 && $days < 7.1, 'who owes has the grace' or diag $days;
    %logos = map { $_ => logos($_) } keys %wanted;
    is_deeply [@logos{qw(paying trying owing gone odd)}], [20, 50, 20, 4, 4], 'and the credits of the plan';
    my ($row) = $world->sql(q{SELECT string_agg(DISTINCT split_part(actor, ':', 1) || ' ' || action, ', ' ORDER BY split_part(actor, ':', 1) || ' ' || action) AS rows
        FROM billing.audit_log l JOIN billing.accounts a ON a.id = l.account_id WHERE external_id = 'paying'});
    is $row->{rows}, 'command customer.link, command stripe.import, event account.change, event credits.allocate', 'S11: all of it is audited';
};

subtest 'once more' => sub {
    my $before = everything($world);
    my $told = import_with(1);
    is_deeply [@$told{qw(linked created changed left)}], [0, 0, 0, 4], 'O8: a second run finds nothing';
    is_deeply everything($world), $before, 'and changes nothing';
    is_deeply $json->decode($world->must('reconcile', @stripe, '--json', '--dry-run'))->{drifted}, [], 'nor does reconcile';
};

subtest 'the first day' => sub {
    $_->start for $world->hosts;
    my $host = $world->host;
    is $host->get('/export', Authorization => "Bearer test:$_")->status, 200, "O8: $_ is let through" for qw(paying trying owing leaving bought twice many-1);
    is $host->get('/export', Authorization => "Bearer test:$_")->status, 403, "$_ is not" for qw(gone bare many-77);
    $stripe->release;
    settled();
    is_deeply {map { $_ => logos($_) } keys %logos}, \%logos, 'O8: events of what has been imported give nothing again';
    is $host->get('/export', Authorization => 'Bearer test:paying')->status, 200, 'and take nothing';
};

subtest 'by a list' => sub {
    ok $world->sql(q{SELECT 1 FROM billing.webhook_events WHERE status = 'parked' AND customer_id = ?}, $id{nameless}), 'events of somebody unknown are parked';
    my $list = $world->directory . '/list.csv';
    Billing::Nginx::write_file($list, "customer,account\n$id{nameless},\"listed\"\r\n$id{silent},quiet\n");
    my $told = import_with(1, '--match', "csv:$list");
    is_deeply [@$told{qw(linked created)}], [2, 2], 'O8: csv:FILE';
    settled();
    is state_of('listed'), 'starter active', 'it has what it pays for';
    is logos('listed'), 20, 'once';
    ok !$world->sql(q{SELECT 1 FROM billing.webhook_events WHERE status = 'parked' AND customer_id = ?}, $id{nameless}), 'O8: and its parked events are applied';
    for my $case (["x,y\n$id{silent}", qr/line 2: write customer,account/], ["$id{silent},a\n$id{silent},b\n", qr/line 2: \Q$id{silent}\E is there twice/]) {
        Billing::Nginx::write_file($list, $case->[0]);
        my $said = $world->command('import', @stripe, '--match', "csv:$list");
        is $said->{code}, 2, 'a list that is none';
        like $said->{err}, $case->[1], 'says where';
    }
};

subtest 'by email' => sub {
    $stripe->hold;
    customer($_, email => "$_\@Example.com") for qw(mona nick);
    subscribe($_) for qw(mona nick);
    $world->sql('SELECT billing.ensure_accounts(?)', [qw(m n1 n2)]);
    $world->must('account', 'set', 'm', '--email', 'Mona@example.com');
    $world->must('account', 'set', $_, '--email', 'nick@example.com') for qw(n1 n2);
    my $told = import_with(1, '--match', 'email');
    is state_of('m'), 'starter active', 'O8: email';
    my ($nick) = grep { $_->{customer} eq $id{nick} } $told->{told}->@*;
    is $nick->{problem}, 'several accounts have its email', 'but for one alone';
    is_deeply [map { state_of($_) } qw(n1 n2)], [('free active') x 2], 'else nobody gets it';
};

subtest 'wrong uses' => sub {
    is $world->command('import', @stripe, '--match', $_)->{code}, 2, "--match $_" for 'name', 'metadata:', 'csv:/nowhere';
    is $world->command('import', @stripe, '--payment-failed', $_)->{code}, 2, "--payment-failed '$_'" for 'never', 'grace soon';
    $stripe->fault(path => '/v1/customers', status => 403);
    my $said = $world->command('import', @stripe);
    is $said->{code}, 1, 'a key that may not read customers';
    like $said->{err}, qr{does not let the secret key read /v1/customers}, 'is told';
};
done_testing;
