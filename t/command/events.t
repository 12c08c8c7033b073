# The operator sees what Stripe has told, and can have it processed once more, without anything being applied twice, without seeing
# what is personal unless asked for, and with the audit knowing who did it. O1, O6, S11, W3.
use v5.36;
use Billing::Test;
use JSON::PP ();

my $world = world(stripe => 1, locations => 'billing on; billing_account $user; location / { proxy_pass http://app; }
    location = /billing/webhook { billing_webhook; }');
my $stripe = $world->stripe;
my $json = JSON::PP->new->utf8->canonical->boolean_values(0, 1);

sub data(@arguments) { $json->decode($world->must('events', @arguments, '--json')) }
sub status_of($event) { ($world->sql('SELECT status FROM billing.webhook_events WHERE event_id = ?', $event))[0]{status} }
sub becomes($event, $status) { wait_for(sub { status_of($event) eq $status }, 20, "$event is $status, not " . status_of($event)) }
sub settled() {
    $stripe->wait_delivered;
    wait_for(sub { !$world->sql(q{SELECT 1 FROM billing.webhook_events WHERE status IN ('received', 'processing')}) }, 20, 'all events are processed');
    return;
}
sub plan_of($id) { $world->account($id)->{plan} }

# All that an event could have changed; what a replay writes itself is left out.
sub everything() {
    return ($world->sql(q{SELECT (SELECT count(*) FROM billing.audit_log WHERE action <> 'event.replay') AS audit,
        (SELECT count(*) FROM billing.outbox) AS outbox, (SELECT count(*) FROM billing.credit_ledger) AS ledger,
        (SELECT jsonb_agg(b ORDER BY b) FROM billing.credit_balances b) AS balances,
        (SELECT jsonb_agg(to_jsonb(a) - 'fetch_seq' - 'applied_seq' ORDER BY a.id) FROM billing.accounts a) AS accounts,
        (SELECT jsonb_agg(to_jsonb(s) - 'changed_at' ORDER BY s) FROM billing.subscriptions s) AS subscriptions}))[0];
}

# A customer of an account, who subscribes at Stripe.
sub customer($account, %with) {
    my $customer = $stripe->api(POST => '/v1/customers', {email => "$account-secret\@example.com"})->json->{id};
    $world->sql('SELECT billing.ensure_accounts(?)', [$account]);
    $world->sql('SELECT * FROM billing.customer_link(?, ?)', $account, $customer) if $with{linked} // 1;
    $stripe->subscribe($customer, price => 'price_starter_monthly');
    return $customer;
}

customer('ann');
my $stranger = customer('bob', linked => 0);
settled();
my ($created) = grep { $_->{type} eq 'customer.subscription.created' && $_->{account} } data('list')->@*;

subtest 'list' => sub {
    my $all = data('list');
    ok @$all > 4, 'O1: what has come is listed';
    is_deeply [sort { $b cmp $a } map { $_->{received_at} } @$all], [map { $_->{received_at} } @$all], 'the newest first';
    my %by;
    push $by{$_->{status}}->@*, $_ for @$all;
    is_deeply [sort keys %by], [qw(ignored parked processed)], 'processed, ignored, and parked because nobody knows the customer';
    for my $status (sort keys %by) {
        is_deeply [map { $_->{id} } data('list', '--status', $status)->@*], [map { $_->{id} } $by{$status}->@*], "--status $status";
    }
    is_deeply [map { $_->{account} } data('list', '--account', 'ann')->@*], [('ann') x grep { ($_->{account} // '') eq 'ann' } @$all], '--account';
    is_deeply data('list', '--account', 'bob'), [], 'of an account that has none';
    is scalar(data('list', '--limit', 2)->@*), 2, '--limit';
    is scalar(data('list', '--since', '1h')->@*), scalar(@$all), '--since: so long ago';
    is_deeply data('list', '--since', '2100-01-01T00:00:00Z'), [], 'or a time';
    my $text = $world->must('events', 'list', '--status', 'parked');
    like $text, qr/^20\S+Z  parked      evt_\w+  customer\.subscription\.created  \(unknown customer\)$/m, 'a line for each';
    is $world->command('events', 'list', '--account', 'nobody')->{code}, 1, 'no such account';
    is $world->command('events', 'list', '--status', 'gone')->{code}, 2, 'no such state';
    is $world->command('events', 'list', '--since', 'soon')->{code}, 1, 'no time';
};

subtest 'show' => sub {
    my $event = data('show', $created->{id});
    is_deeply [@$event{qw(status account type failures trouble)}], ['processed', 'ann', 'customer.subscription.created', 0, undef], 'O1: what is known';
    like $world->must('events', 'show', $created->{id}), qr/^status: processed$/m, 'in lines';
    my ($told) = grep { $_->{type} eq 'customer.created' } data('list')->@*;
    my $answers = join '', map { $world->must('events', @$_) } ['list'], ['list', '--json'], ['show', $told->{id}], ['show', $told->{id}, '--json'];
    unlike $answers, qr/secret|payload/, 'O7: what it carries is not printed unasked';
    is data('show', $told->{id}, '--payload')->{payload}{data}{object}{object}, 'customer', 'but for who asks';
    like $world->must('events', 'show', $told->{id}, '--payload'), qr/^payload: \{\n.*-secret\@example\.com/ms, 'in lines too';
    my $none = $world->command('events', 'show', 'evt_none');
    is $none->{code}, 1, 'no such event';
    like $none->{err}, qr/no event "evt_none"/, 'which is said';
};

subtest 'W3: what was applied is not applied twice' => sub {
    my $before = everything();
    my @applied = map { $_->{id} } data('list', '--status', 'processed')->@*;
    is_deeply [sort { $a cmp $b } data('replay', @applied)->{replayed}->@*], [sort @applied], 'all that were processed, again';
    settled();
    is_deeply [map { status_of($_) } @applied], [('processed') x @applied], 'they are processed again';
    is_deeply everything(), $before, 'and nothing has changed';
};

subtest 'what is kept no longer' => sub {
    my ($purged) = grep { $_->{status} eq 'processed' && $_->{id} ne $created->{id} } data('list')->@*;
    $world->sql(q{UPDATE billing.webhook_events SET payload = '', purged = true WHERE event_id = ?}, $purged->{id});
    my $said = $world->command('events', 'replay', $purged->{id});
    is $said->{code}, 1, 'is not replayed';
    like $said->{out}, qr/^$purged->{id}  is known, but what it carried is kept no longer/m, 'and why is told';
    is status_of($purged->{id}), 'processed', 'it stays processed';
    is_deeply [@{data('show', '--payload', $purged->{id})}{qw(purged payload)}], [1, undef], 'it is shown without it';
};

subtest 'W3: who was given up is taken up again' => sub {
    my ($parked) = grep { $_->{type} eq 'customer.subscription.created' } data('list', '--status', 'parked')->@*;
    is $world->command('events', 'replay', $parked->{id})->{code}, 0, 'a parked one is tried';
    becomes($parked->{id}, 'parked');
    is data('show', $parked->{id})->{attempts}, 2, 'and parked again: nobody knows the customer still';
    $world->sql(q{UPDATE billing.webhook_events SET status = 'dead', failures = 5, last_error = 'of old' WHERE status = 'parked'});
    my $dead = data('list', '--status', 'dead');
    $world->sql('SELECT * FROM billing.customer_link(?, ?)', 'bob', $stranger);
    is plan_of('bob'), 'free', 'a link does not wake the dead';
    is_deeply data('replay', '--dead', '--since', '2100-01-01T00:00:00Z'), {replayed => [], busy => [], purged => [], unknown => []}, '--since';
    my $said = $world->must('events', 'replay', '--dead');
    is scalar(() = $said =~ /^evt_\w+  to be processed again$/mg), scalar(@$dead), '--dead: all of them';
    settled();
    is plan_of('bob'), 'starter', 'what they say is applied';
    is_deeply [map { "@$_{qw(status failures)}" } map { data('show', $_->{id}) } @$dead], [('processed 0') x @$dead], 'each with new tries';
    my ($row) = $world->sql(q{SELECT actor, before ->> 'status' AS before, after ->> 'status' AS after, after ->> 'event' AS event
        FROM billing.audit_log WHERE action = 'event.replay' AND before ->> 'status' = 'dead' ORDER BY id LIMIT 1});
    is_deeply [$row->{actor} =~ /^command:\w+$/ ? 1 : $row->{actor}, $row->{before}, $row->{after}, scalar grep { $_->{id} eq $row->{event} } @$dead],
        [1, 'dead', 'received', 1], 'S11: the audit names who did it';
};

subtest 'what is of another world stays so' => sub {
    $stripe->emit('customer.subscription.deleted', object => {id => 'sub_x', object => 'subscription', customer => $stranger}, livemode => 1);
    settled();
    my ($foreign) = grep { $_->{livemode} } data('list', '--status', 'ignored')->@*;
    $world->must('events', 'replay', $foreign->{id});
    settled();
    is_deeply [@{data('show', $foreign->{id})}{qw(status attempts trouble)}], ['ignored', 1, 'a live event, and the key is a test one'],
        'W3: replayed, it is judged anew, and ignored again';
    is plan_of('bob'), 'starter', 'without an effect';
};

subtest 'wrong uses' => sub {
    my $unknown = $world->command('events', 'replay', 'evt_none', $created->{id});
    is $unknown->{code}, 1, 'one that is not there';
    like $unknown->{err}, qr/^ngx-billing: no event "evt_none"$/m, 'is named';
    like $unknown->{out}, qr/^\Q$created->{id}\E  to be processed again$/m, 'the other is replayed';
    settled();
    is $world->command('events', 'replay')->{code}, 2, 'nothing named';
    is $world->command('events', 'replay', '--dead', $created->{id})->{code}, 2, 'both';
    $world->sql(q{UPDATE billing.webhook_events SET status = 'processing', next_attempt_at = now() + interval '1 h' WHERE event_id = ?}, $created->{id});
    my $busy = $world->command('events', 'replay', $created->{id});
    is_deeply [$busy->{code}, $busy->{out}], [1, "$created->{id}  is being processed at this moment\n"], 'one that is in work';
    is status_of($created->{id}), 'processing', 'is left alone';
};
done_testing;
