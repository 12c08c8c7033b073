# What Stripe knows and this side does not is found, told, and brought in order: events that never came, changes that were lost or made
# by hand. A dry run changes nothing, a second run finds nothing, nothing is given twice, and the audit knows what was changed by whom.
# By the command, and by the hosts themselves, one at a time. W12, O6, S11.
use v5.36;
use Billing::Test;
use Billing::Journey qw(everything);
use JSON::PP ();

my $world = world(hosts => 2, stripe => 1, locations => 'billing on; billing_account $user; location / { proxy_pass http://app; }
    location = /export { billing_feature asset_download; proxy_pass http://app; }
    location = /billing/webhook { billing_webhook; }');
my $stripe = $world->stripe;
my ($one, $two) = $world->hosts;
my $json = JSON::PP->new->utf8->canonical->boolean_values(0, 1);
my @stripe = ('--stripe-api', $stripe->url);
local $ENV{STRIPE_SECRET_KEY} = $stripe->key;

sub reconcile(@arguments) { $json->decode($world->must('reconcile', @stripe, '--json', @arguments)) }
sub settled() {
    wait_for(sub { !$world->sql(q{SELECT 1 FROM billing.webhook_events WHERE status IN ('received', 'processing')}) }, 20, 'all events are processed');
    return;
}
sub state_of($id) { join ' ', @{$world->account($id)}{qw(plan status)} }
sub credits_of($id) { $world->account($id)->{credits}{logo}{remaining} }
sub names($list, $key) { [map { $_->{$key} } @$list] }

my %customer;
sub customer($account) {
    $customer{$account} = $stripe->api(POST => '/v1/customers', {name => $account})->json->{id};
    $world->sql('SELECT billing.ensure_accounts(?)', [$account]);
    $world->sql('SELECT * FROM billing.customer_link(?, ?)', $account, $customer{$account});
    return $customer{$account};
}
sub subscribe($account, $price = 'price_starter_monthly') { $stripe->subscribe($customer{$account} // customer($account), price => $price)->{id} }

my %subscription = map { $_ => subscribe($_) } qw(ann bob);
$stripe->wait_delivered;
settled();
is_deeply [map { state_of($_) } qw(ann bob)], [('starter active') x 2], 'two accounts, told of by events';

subtest 'all is well' => sub {
    my $before = everything($world);
    my $found = reconcile();
    is_deeply [@$found{qw(missed drifted failed unlinked)}], [[], [], 0, 0], 'W12: nothing is found';
    cmp_ok $found->{events}, '>=', 4, 'in the events that there are';
    is_deeply everything($world), $before, 'and nothing is written';
};

subtest 'events that were lost' => sub {
    $stripe->retry(0);
    $_->quit for $one, $two;
    $stripe->change_plan($subscription{ann}, 'price_pro_monthly');
    wait_for(sub { grep { $_->{state} eq 'failed' } $stripe->deliveries }, 10, 'nobody takes the events');
    $_->start for $one, $two;
    $stripe->hold;    # from here on nothing is delivered either
    my $lost = subscribe('cid', 'price_pro_monthly');
    is_deeply [map { state_of($_) } qw(ann cid)], ['starter active', 'free active'], 'nobody knows';

    my $before = everything($world);
    my $dry = reconcile('--dry-run');
    my %types = map { $_ => 1 } names($dry->{missed}, 'type')->@*;
    ok $types{'customer.subscription.updated'} && $types{'customer.subscription.created'} && $types{'invoice.paid'}, 'W12: --dry-run names the events';
    is_deeply [sort map { "$_->{account} $_->{plan_before} $_->{plan}" } $dry->{drifted}->@*], ['ann starter pro', 'cid free pro'], 'and what would come of it';
    is_deeply everything($world), $before, 'and changes nothing';
    like $world->must('reconcile', @stripe, '--dry-run'), qr/^account cid \(cus_\w+\): free \(active\) -> pro \(active\)\n  sub_\w+ .* nothing here, .* at Stripe\n(?:.*\n)*nothing was changed$/m,
        'in lines too';

    my $found = reconcile();
    is_deeply names($found->{missed}, 'id'), names($dry->{missed}, 'id'), 'W12: they are stored';
    settled();
    is_deeply [map { state_of($_) } qw(ann cid)], [('pro active') x 2], 'W12: and applied, as if they had come';
    is credits_of('cid'), 50, 'with what belongs to the plan';
    $before = everything($world);
    $found = reconcile();
    is_deeply [@$found{qw(missed drifted failed)}], [[], [], 0], 'W12: a second run finds nothing';
    is_deeply everything($world), $before, 'and changes nothing';
    $stripe->release;
    settled();
    is_deeply [map { $_->{n} } $world->sql(q{SELECT count(*) AS n FROM billing.credit_ledger WHERE action <> 'allocate'})], [0], 'when they come after all, nothing is given again';
    is credits_of('cid'), 50, 'nor taken';
};

subtest 'what was changed by hand' => sub {
    my @cases = (
        ['an owing that is none', q{UPDATE billing.subscriptions SET status = 'unpaid' WHERE account_id = $1}, qr/^status: unpaid here, active at Stripe$/],
        ['an end that is none', q{UPDATE billing.subscriptions SET status = 'canceled', ended_at = now() WHERE account_id = $1}, qr/^status: canceled here, active at Stripe$/],
        ['a cancellation', q{UPDATE billing.subscriptions SET cancel_at = now() + interval '1 day' WHERE account_id = $1}, qr/^cancel_at: 20\S+ here, nothing at Stripe$/],
        ['a pause', q{UPDATE billing.subscriptions SET pause = 'void', paused_from = period_start WHERE account_id = $1}, qr/^pause: void here, nothing at Stripe$/],
        ['a longer month', q{UPDATE billing.subscriptions SET period_end = period_end + interval '1 year' WHERE account_id = $1}, qr/^period_end: /],
        ['a row that is gone', q{DELETE FROM billing.subscriptions WHERE account_id = $1}, qr/^status: nothing here, active at Stripe$/],
        ['one that Stripe has not', q{INSERT INTO billing.subscriptions (subscription_id, account_id, customer_id, status, prices)
            SELECT 'sub_invented', id, stripe_customer_id, 'active', '{price_agency_monthly}' FROM billing.accounts WHERE id = $1},
            qr/^status: active here, canceled at Stripe$/],
        ['an account off its subscription', q{UPDATE billing.accounts SET plan_no = (SELECT plan_no FROM billing.plans WHERE plan_key = 'agency'), status = 'unpaid' WHERE id = $1}, undef],
        ['the same in words', q{UPDATE billing.accounts SET status = 'canceled', plan_no = 1 WHERE id = $1}, undef],
    );
    my ($id) = map { $_->{id} } $world->sql(q{SELECT id FROM billing.accounts WHERE external_id = 'bob'});
    for my $case (@cases) {
        my ($what, $sql, $like) = @$case;
        my $credits = credits_of('bob');
        $world->sql($sql, $id);
        my $before = everything($world);
        is_deeply names(reconcile('--dry-run')->{drifted}, 'account'), ['bob'], "W12: $what: told";
        is_deeply everything($world), $before, 'and left';
        my $found = reconcile();
        my @lines = map { "$_->{what}: " . join ' ', ($_->{here} // 'nothing'), 'here,', ($_->{stripe} // 'nothing'), 'at Stripe' } $found->{drifted}[0]{drift}->@*;
        ok scalar(grep { $_ =~ $like } @lines), 'what it was' or diag "@lines" if $like;
        is state_of('bob'), 'starter active', 'mended';
        is credits_of('bob'), $credits, 'without a credit more or less';
        my ($row) = $world->sql(q{SELECT actor, action FROM billing.audit_log WHERE account_id = ? ORDER BY id DESC LIMIT 1}, $id);
        like "$row->{actor} $row->{action}", qr/^command:\w+ stripe\.reconcile$/, 'S11: the audit says who mended it';
        is_deeply reconcile()->{drifted}, [], 'once';
    }
    is $two->get('/export', Authorization => 'Bearer test:bob')->status, 200, 'and every host knows';
};

subtest 'one account' => sub {
    $world->sql(q{UPDATE billing.subscriptions SET status = 'unpaid'});
    is_deeply names(reconcile('--account', 'ann')->{drifted}, 'account'), ['ann'], '--account looks at one';
    is_deeply [sort { $a cmp $b } names(reconcile()->{drifted}, 'account')->@*], [qw(bob cid)], 'the others remain';
    $world->sql('SELECT billing.ensure_accounts(?)', ['eve']);
    for my $case ([nobody => qr/no account "nobody"/], [eve => qr/account eve has no customer at Stripe/]) {
        my $said = $world->command('reconcile', @stripe, '--account', $case->[0]);
        is $said->{code}, 1, $case->[0];
        like $said->{err}, $case->[1], 'says why not';
    }
};

subtest 'whoever owes' => sub {
    my $id = subscribe('fay');
    $stripe->release;
    settled();
    $stripe->hold;
    $stripe->new_card($customer{fay}, declines => 1, pay => 0);
    $stripe->end_period($id);
    $world->sql(q{DELETE FROM billing.stripe_passes});
    $world->must('reconcile', @stripe, '--account', 'fay');
    my $fay = $world->account('fay');
    is "$fay->{plan} $fay->{status}", 'starter past_due', 'is seen owing without an event';
    my ($days) = map { $_->{d} } $world->sql(q{SELECT extract(epoch FROM grace_until - now()) / 86400 AS d FROM billing.accounts WHERE external_id = 'fay'});
    ok $days > 6.9 && $days < 7.1, 'and has the grace that nginx gives by default' or diag $days;
    is_deeply reconcile('--account', 'fay', '--payment-failed', 'maintenance')->{drifted}, [], 'what was judged once stays so';
};

subtest 'O6: the key' => sub {
    my %said = (
        'on the command line' => [2, qr/seen by every user/, '--stripe-key', $stripe->key],
        'in a variable that is not there' => [2, qr/the environment has no NOWHERE/, '--stripe-key', 'env:NOWHERE'],
        'in a file that is not there' => [2, qr/cannot read \/nowhere/, '--stripe-key', 'file:/nowhere'],
        'no key' => [2, qr/in env:PATH is no secret key of Stripe/, '--stripe-key', 'env:PATH'],
    );
    for my $what (sort keys %said) {
        my ($code, $like, @arguments) = $said{$what}->@*;
        my $told = $world->command('reconcile', @stripe, @arguments);
        is $told->{code}, $code, $what;
        like $told->{err}, $like, 'says what to do';
        unlike $told->{err} . $told->{out}, qr/\Q@{[$stripe->key]}\E/, 'and does not repeat it';
    }
    my $file = $world->directory . '/stripe.key';
    Billing::Nginx::write_file($file, $stripe->key . "\n");
    for my $mode (0600, 0644) {
        chmod $mode, $file;
        local $ENV{STRIPE_SECRET_KEY};
        my $told = $world->command('reconcile', @stripe, '--dry-run', '--stripe-key', "file:$file");
        is $told->{code}, 0, sprintf 'a file of mode %o', $mode;
        is $told->{err} =~ /can be read by everybody; chmod 600/ ? 1 : 0, $mode == 0644 ? 1 : 0, 'A42: with a warning where everybody can read it';
    }
    local $ENV{STRIPE_SECRET_KEY} = 'sk_live_' . 'x' x 24;
    my $live = $world->command('reconcile', @stripe);
    is $live->{code}, 2, 'a live key over http';
    like $live->{err}, qr/only sent over https/, 'is not sent';
    is $world->command('reconcile', '--since', '31d', @stripe)->{code}, 2, 'longer ago than Stripe remembers';
};

subtest 'the key of another account' => sub {
    my $before = everything($world);
    my $other = Billing::Stripe->new;
    local $ENV{STRIPE_SECRET_KEY} = $other->key;
    my $said = $world->command('reconcile', '--stripe-api', $other->url);
    is $said->{code}, 1, 'is noticed';
    like $said->{err}, qr/account ann: Stripe does not know its customer/, 'and told';
    is_deeply everything($world), $before, 'W12: nobody loses anything by it';
    local $ENV{STRIPE_SECRET_KEY} = 'sk_test_wrong';
    $said = $world->command('reconcile', @stripe);
    is $said->{code}, 1, 'a key that Stripe does not know';
    like $said->{err}, qr/does not let the secret key read/, 'is told';
    $stripe->close_port;
    local $ENV{STRIPE_SECRET_KEY} = $stripe->key;
    $said = $world->command('reconcile', @stripe);
    is $said->{code}, 3, 'Stripe away';
    like $said->{err}, qr/no answer from Stripe/, 'is told';
    $stripe->open_port;
    is_deeply everything($world), $before, 'and nothing has changed';
};

# The hosts' own passes.
sub due($kind = 'subscriptions', %with) {
    $world->sql(q{INSERT INTO billing.stripe_passes AS p (kind, finished_at, seen_until, held_until) VALUES (?, '-infinity', now() - interval '1 h', ?)
        ON CONFLICT (kind) DO UPDATE SET finished_at = '-infinity', seen_until = excluded.seen_until, held_until = excluded.held_until},
        $kind, $with{held_until} // '-infinity');
    return;
}
sub finished($kind) { ($world->sql(q{SELECT finished_at > now() - interval '1 min' AS yes FROM billing.stripe_passes WHERE kind = ?}, $kind))[0]{yes} }

subtest 'the hosts do it by themselves' => sub {
    subscribe('gil');    # nothing is delivered
    $stripe->clear_calls;
    due('events', held_until => '2100-01-01T00:00:00Z');    # another host has it
    $world->sql(q{UPDATE billing.subscriptions SET status = 'unpaid' WHERE subscription_id = ?}, $subscription{bob});
    due('subscriptions');
    wait_for(sub { finished('subscriptions') }, 20, 'a pass over the subscriptions');
    is state_of('bob'), 'starter active', 'W12: what had drifted is mended';
    like +($world->sql(q{SELECT actor FROM billing.audit_log WHERE action = 'stripe.reconcile' ORDER BY id DESC LIMIT 1}))[0]{actor}, qr/^jobs:./, 'S11: audited';
    is scalar(grep { scalar $_->log_lines(qr/account bob was not as Stripe has it/) } $one, $two), 1, 'and logged';
    is scalar($stripe->calls(path => '/v1/events')), 0, 'W12: the pass that another host has is left to it';
    due('events');
    wait_for(sub { finished('events') }, 20, 'a pass over the events');
    wait_for(sub { state_of('gil') eq 'starter active' }, 10, 'W12: what had not come is applied');
    my %asked;
    $asked{$_->{params}{types} ? JSON::PP->new->canonical->encode($_->{params}{types}) : ''}++ for $stripe->calls(path => '/v1/events');
    is_deeply [grep { $_ > 1 } values %asked], [], 'W12: by one host, which asks once for each twenty types';
    is scalar(grep { scalar $_->log_lines(qr/event evt_\w+ customer\.subscription\.created has never come; it is stored/) } $one, $two), 1, 'which says so';
    is_deeply reconcile()->{drifted}, [], 'the command finds nothing more';
};

subtest 'the months of a yearly price' => sub {
    my $logos = sub { ($world->sql(q{SELECT b.used || ' ' || (SELECT count(*) FROM billing.credit_ledger l WHERE l.account_id = a.id AND l.idem_key LIKE 'month:%:logo')
        AS x FROM billing.credit_balances b JOIN billing.credit_types USING (credit_no) JOIN billing.accounts a ON a.id = b.account_id
        WHERE external_id = 'gil' AND credit_key = 'logo'}))[0]{x} };
    $world->sql(q{UPDATE billing.subscriptions SET period_start = now() - interval '40 days', anchor = now() - interval '40 days',
        period_end = now() + interval '320 days' WHERE account_id = (SELECT id FROM billing.accounts WHERE external_id = 'gil')});
    $world->sql(q{UPDATE billing.credit_balances b SET used = 3, period_start = s.period_start, period_end = (billing.credit_period(s, s.period_start)).ends
        FROM billing.subscriptions s WHERE s.account_id = b.account_id
        AND b.account_id = (SELECT id FROM billing.accounts WHERE external_id = 'gil')});
    is $logos->(), '3 0', 'a month that is over, and nobody has looked';
    due('months');
    wait_for(sub { finished('months') }, 20, 'W8: a pass over those that are due');
    is $logos->(), '0 1', 'W8: the credits of the next month have come, without an event';
};

subtest 'what is not kept' => sub {
    my $kept = sub { ($world->sql(q{SELECT count(*) AS n FROM billing.webhook_events WHERE payload <> ''}))[0]{n} };
    my $before = $kept->();
    cmp_ok $before, '>', 3, 'events with what they carried';
    $world->sql(q{UPDATE billing.webhook_events SET processed_at = now() - interval '31 d' WHERE event_id IN
        (SELECT event_id FROM billing.webhook_events WHERE status = 'processed' ORDER BY event_id LIMIT 2)});
    $world->sql(q{INSERT INTO billing.checkout_sessions (session_id, account_id, mode, status, url)
        SELECT 'cs_over', id, 'payment', 'complete', 'https://x.example' FROM billing.accounts WHERE external_id = 'bob'});
    due('purge');
    wait_for(sub { finished('purge') }, 20, 'a host purges by itself');
    is $kept->(), $before - 2, 'what events carried a month ago is forgotten';
    is_deeply [$world->sql(q{SELECT url FROM billing.checkout_sessions WHERE session_id = 'cs_over'})], [{url => undef}], 'and the address of a checkout that is over';
};
done_testing;
