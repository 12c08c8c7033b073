# What Stripe tells, through real nginx: the events of one purchase in all their orders allocate once; a whole life told backwards, shuffled
# and twice ends as it does in order; what is refunded, disputed, paused or granted reaches every host within a second; each event leaves
# one line in the log, which says nothing of what was sent. W3 W4 W5 W10, O7, S11, N1.
use v5.36;
use Billing::Journey qw(everywhere within_a_second);
use Billing::Test;
use List::Util qw(shuffle);

my @demo = (Authorization => 'Bearer demo-token');
sub as($account) { (Authorization => "Bearer test:$account") }

my $world = world(hosts => 2, stripe => 1, billing => 'billing_payment_disputed maintenance;', locations => <<'END');
    billing on;
    billing_account $user;
    location /plain/ { proxy_pass http://app; }
    location /export/ { billing_feature asset_download; proxy_pass http://app; }
    location /label/ { billing_feature white_label; proxy_pass http://app; }
    location = /billing/checkout { billing_checkout; }
    location = /billing/webhook { billing_webhook; }
END
my $stripe = $world->stripe;

# --- what customers do ---

# Buys a plan or a pack; the checkout session.
sub bought($account, $plan, %how) {
    my $answer = $world->host->post('/billing/checkout', qq({"plan":"$plan"}), as($account), 'Content-Type' => 'application/json');
    die "checkout of $account: " . $answer->status . ' ' . $answer->body . "\n" if $answer->status != 200;
    my ($session) = grep { ($_->{url} // '') eq $answer->json->{url} } $stripe->all('checkout.session');
    $stripe->pay($session->{id}, %how);
    return $session->{id};
}

sub subscription_of($account) { (grep { ($_->{metadata}{account} // '') eq $account } $stripe->all('subscription'))[-1] }

sub settled() {
    $stripe->wait_delivered(within => 30);
    wait_for(sub { !$world->sql(q{SELECT 1 FROM billing.webhook_events WHERE status IN ('received', 'processing')}) }, 30,
        'all events are processed');
    return;
}

# --- what became of them ---

sub value($sql, @bind) { ((values %{($world->sql($sql, @bind))[0] // {}}))[0] }

sub credits($account) {
    return value(q{SELECT string_agg(credit_key || ' ' || remaining || '/' || bought, ', ' ORDER BY credit_key) FROM billing.credit_balances b
        JOIN billing.credit_types USING (credit_no) JOIN billing.accounts a ON a.id = b.account_id WHERE external_id = ?}, $account);
}

# What a life leaves, without ids and times.
sub end_of($account) {
    my $state = value(q{SELECT plan_key || ' ' || a.status || ' ' || maintenance FROM billing.accounts a JOIN billing.plans USING (plan_no)
        WHERE external_id = ?}, $account);
    my $money = value(q{SELECT string_agg(concat_ws(' ', action, amount, currency), ', ' ORDER BY action, amount) FROM billing.audit_log l
        JOIN billing.accounts a ON a.id = l.account_id WHERE external_id = ? AND action ~ '^(payment|refund|dispute)'}, $account);
    my $told = value(q{SELECT string_agg(topic, ' ' ORDER BY topic) FROM billing.outbox o JOIN billing.accounts a ON a.id = o.account_id
        WHERE external_id = ? AND topic <> 'subscription:updated'}, $account);
    return join ' | ', $state, credits($account), $money, $told;
}

subtest 'W4, W5: the three events of a purchase in all six orders' => sub {
    my @three = qw(invoice.paid customer.subscription.created checkout.session.completed);
    my @permutations = ([0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]);
    my @accounts = map { 'order-' . join '', @$_ } @permutations;
    $world->host->get('/plain/x', as($_)) for @accounts;
    $stripe->hold;
    bought($_, 'starter') for @accounts;
    my %account_of = map { $_->{customer} => $_->{metadata}{account} } $stripe->all('subscription');
    for my $step (0 .. 2) {
        my @held = $stripe->deliveries(state => 'held');
        my @places = grep {
            my $event = $held[$_];
            my $object = $stripe->object($event->{event})->{data}{object};
            my $account = $account_of{$object->{customer} // ''} // '';
            my ($which) = grep { $accounts[$_] eq $account } 0 .. $#accounts;
            defined $which && $event->{type} eq $three[$permutations[$which][$step]];
        } 0 .. $#held;
        is scalar @places, 6, 'one for each account';
        $stripe->release(order => \@places, keep => 1);
        wait_for(sub { value(q{SELECT count(*) FROM billing.webhook_events WHERE status = 'processed'}) == 6 * ($step + 1) }, 20,
            'they are worked off');
        within_a_second($world, "$accounts[$_]: after $three[$permutations[$_][$step]]", 200, GET => '/export/x', as($accounts[$_])) for 0 .. 5;
    }
    $stripe->release;
    settled();
    for my $account (@accounts) {
        is credits($account), 'logo 20/0, mockup 20/0', "$account: the plan's credits";
        is value(q{SELECT string_agg(quantity::text, ' ') FROM billing.credit_ledger l JOIN billing.accounts a ON a.id = account_id
            WHERE external_id = ? AND idem_key LIKE 'alloc:sub_%'}, $account), '16 16', 'allocated once, for each type';
        is value(q{SELECT count(*) FROM billing.outbox o JOIN billing.accounts a ON a.id = o.account_id WHERE external_id = ?
            AND topic = 'subscription:activated'}, $account), 1, 'told once';
    }
};

subtest 'W4: a life in order, backwards, shuffled and twice' => sub {
    srand(my $seed = $ENV{BILLING_SEED} // time);
    my %told = ('in-order' => sub { {} }, backwards => sub { {order => 'reverse'} },
        map { ("shuffled-$_" => sub ($count) { {order => [shuffle((0 .. $count - 1) x 2)]} }) } 1 .. 3);
    my (%end, $lived);
    for my $account (sort keys %told) {
        $world->host->get('/plain/x', as($account));
        $stripe->hold;
        bought($account, 'starter');
        my $subscription = subscription_of($account);
        my $pack = bought($account, 'logo_10');
        $stripe->refund($pack, amount => 300);
        $stripe->fail_refund($stripe->refund($pack, amount => 200)->{id});
        $stripe->change_plan($subscription->{id}, 'price_pro_monthly');
        my $dispute = $stripe->dispute($pack, amount => 500);
        $stripe->close_dispute($dispute->{id}, 'lost');
        $stripe->api(POST => "/v1/subscriptions/$subscription->{id}", {pause_collection => {behavior => 'void'}});
        $stripe->end_period($subscription->{id});
        my @held = $stripe->deliveries(state => 'held');
        $lived //= [map { $_->{type} } @held];
        $stripe->release($told{$account}->(scalar @held)->%*);
        settled();
        $end{$account} = end_of($account);
    }
    cmp_ok scalar(@$lived), '>', 20, scalar(@$lived) . " events (seed $seed)";
    is $end{'in-order'}, 'pro paused payment | logo 52/2, mockup 50/0, video 10/0 | dispute.lost 500 usd, payment.disputed 500 usd, '
        . 'payment.refunded 200 usd, payment.refunded 300 usd, payment.succeeded 1000 usd, payment.succeeded 2900 usd, payment.succeeded 5000 usd, refund.failed 200 usd | '
        . 'subscription:activated subscription:payment-disputed', 'as Stripe has it';
    is $end{$_}, $end{'in-order'}, "$_: the same" for sort keys %end;
    everywhere($world, 'the plan without access: not paid for', '402 SUBSCRIPTION_INACTIVE', GET => '/export/x', as('backwards'));
};

subtest 'W6, W11: several items, and prices that nobody knows' => sub {
    $world->host->get('/plain/x', as('items'));
    my $answer = $world->host->post('/billing/checkout', '{"plan":"starter"}', as('items'), 'Content-Type' => 'application/json');
    my ($customer) = grep { ($_->{metadata}{account} // '') eq 'items' } $stripe->all('customer');
    $stripe->price(id => "price_addon_$_", amount => 500, interval => $_) for qw(month year);
    my $unmapped = $stripe->subscribe($customer->{id}, price => 'price_addon_month');
    settled();
    everywhere($world, 'a price that nobody knows opens nothing', '403 FEATURE_NOT_IN_PLAN', GET => '/export/x', as('items'));
    is value(q{SELECT count(*) FROM billing.outbox WHERE topic = 'alarm' AND payload ->> 'alarm' = 'unknown_price'}), 1, 'but raises an alarm';
    my $mixed = $stripe->subscribe($customer->{id}, price => ['price_addon_year', 'price_starter_monthly']);
    within_a_second($world, 'a plan that is not the first item', 200, GET => '/export/x', as('items'));
    settled();
    my ($end) = map { $_->{current_period_end} } grep { $_->{price}{id} eq 'price_starter_monthly' } $mixed->{items}{data}->@*;
    is value('SELECT billing.unix(period_end) FROM billing.accounts WHERE external_id = ?', 'items'), $end, 'with the period of its item';
    $stripe->cancel_now($unmapped->{id});
    settled();
    everywhere($world, 'W6: the end of another subscription takes nothing', 200, GET => '/export/x', as('items'));
};

subtest 'W8: an invoice of twelve lines, the plan on the last' => sub {
    $world->host->get('/plain/x', as('dozen'));
    $world->host->post('/billing/checkout', '{"plan":"starter"}', as('dozen'), 'Content-Type' => 'application/json');
    my ($customer) = grep { ($_->{metadata}{account} // '') eq 'dozen' } $stripe->all('customer');
    $stripe->price(id => "price_part_$_", amount => 100, interval => 'month') for 1 .. 11;
    my $subscription = $stripe->subscribe($customer->{id}, price => [(map { "price_part_$_" } 1 .. 11), 'price_starter_monthly']);
    settled();
    $world->sql('SELECT billing.deduct_credits(?, ?, 17, ?)', 'dozen', $_, "spent-$_") for qw(logo mockup);
    like credits('dozen'), qr{^logo 3/0, mockup 3/0}, 'most of the credits are spent';
    $stripe->end_period($subscription);
    settled();
    my ($paid) = grep { $_->{data}{object}{customer} eq $customer->{id} } reverse $stripe->events('invoice.paid');
    is_deeply [scalar $paid->{data}{object}{lines}{data}->@*, $paid->{data}{object}{lines}{has_more}], [10, 1], 'its event shows ten';
    like credits('dozen'), qr{^logo 20/0, mockup 20/0}, 'the renewal refills';
    is_deeply [$world->sql(q{SELECT event_id, last_error FROM billing.webhook_events WHERE status = 'dead'})], [], 'no event is left over';
};

subtest 'W5: payments that take their time' => sub {
    my %credits = (1 => 'logo 14/10, mockup 4/0', 0 => 'logo 4/0, mockup 4/0');
    for my $well (1, 0) {
        my $account = "pack-later-$well";
        $world->host->get('/plain/x', as($account));
        my $session = bought($account, 'logo_10', delayed => 1);
        settled();
        is credits($account), $credits{0}, 'a pack that is not paid yet gives nothing';
        $stripe->hold;
        $stripe->settle_later($session, $well);
        $stripe->release(order => 'reverse', times => 2);
        settled();
        is credits($account), $credits{$well}, $well ? 'paid, it does, once' : 'and never, if it is not';

        $account = "plan-later-$well";
        $world->host->get('/plain/x', as($account));
        $session = bought($account, 'starter', delayed => 1);
        settled();
        everywhere($world, 'neither does a plan', '403 FEATURE_NOT_IN_PLAN', GET => '/export/x', as($account));
        $stripe->settle_later($session, $well);
        within_a_second($world, $well ? 'paid, it does' : 'and never, if it is not', $well ? 200 : '403 FEATURE_NOT_IN_PLAN',
            GET => '/export/x', as($account));
        settled();
        is value(q{SELECT string_agg(DISTINCT c.status, ' ') FROM billing.checkout_sessions c JOIN billing.accounts a ON a.id = c.account_id
            WHERE external_id = ?}, $account), 'complete', 'the checkout is over';
    }
};

subtest 'W10: refunds' => sub {
    $world->host->get('/plain/x', @demo);
    my $answer = $world->host->post('/billing/checkout', '{"plan":"logo_10"}', @demo, 'Content-Type' => 'application/json');
    my ($session) = grep { ($_->{url} // '') eq $answer->json->{url} } $stripe->all('checkout.session');
    $stripe->press($session->{url}, do => 'pay', by => 'card');
    wait_for(sub { credits('demo') =~ /^logo 14/ }, 10, 'a pack');
    my $refund = $stripe->refund($session->{id}, amount => 400);
    wait_for(sub { credits('demo') =~ m{^logo 10/6} }, 10, 'a part goes back');
    settled();
    is credits('demo'), 'logo 10/6, mockup 4/0', 'once, though three events tell of it';
    $stripe->fail_refund($refund->{id});
    wait_for(sub { credits('demo') =~ m{^logo 14/10} }, 10, 'it fails');
    pass 'a refund that fails brings the credits back';

    my $dispute = $stripe->dispute($session->{id});
    within_a_second($world, 'W10: a dispute: changes', '402 MAINTENANCE', POST => '/plain/x');
    everywhere($world, 'reading goes on', 200, GET => '/plain/x');
    is value(q{SELECT count(*) FROM billing.outbox WHERE topic = 'subscription:payment-disputed' AND account_id =
        (SELECT id FROM billing.accounts WHERE external_id = 'demo')}), 1, 'N1: told once';
    $stripe->close_dispute($dispute->{id}, 'won');
    within_a_second($world, 'W10: won', 200, POST => '/plain/x');
    is credits('demo'), 'logo 14/10, mockup 4/0', 'nothing was taken';

    bought('demo', 'starter');
    within_a_second($world, 'a plan', 200, GET => '/export/x');
    my $invoice = subscription_of('demo')->{latest_invoice};
    $stripe->refund($invoice);
    settled();
    everywhere($world, 'W10: its payment goes back: the plan stays', 200, GET => '/export/x');
    is value(q{SELECT amount || ' ' || currency FROM billing.audit_log WHERE action = 'payment.refunded' AND invoice_id = ?}, $invoice),
        '2900 usd', 'S11: audited with its invoice, once';
    $stripe->cancel_now(subscription_of('demo')->{id});
    within_a_second($world, 'until it is canceled', '403 FEATURE_NOT_IN_PLAN', GET => '/export/x');
};

subtest 'W10: entitlements' => sub {
    my ($customer) = grep { ($_->{metadata}{account} // '') eq 'demo' } $stripe->all('customer');
    my @many = ((map { "unheard-of-$_" } 1 .. 110), 'white_label');
    everywhere($world, 'a feature that the plan lacks', '403 FEATURE_NOT_IN_PLAN', GET => '/label/x');
    $stripe->entitle($customer->{id}, @many);
    within_a_second($world, 'Stripe grants it, among a hundred that nobody knows', 200, GET => '/label/x');
    $stripe->hold;
    $stripe->entitle($customer->{id});
    $stripe->entitle($customer->{id}, @many, 'asset_download');
    $stripe->release(order => 'reverse', times => 2);
    within_a_second($world, 'told backwards and twice: what Stripe has now', 200, GET => '/export/x');
    settled();
    everywhere($world, 'and the other', 200, GET => '/label/x');
    $stripe->entitle($customer->{id}, 'asset_download');
    within_a_second($world, 'what it loses is taken away', '403 FEATURE_NOT_IN_PLAN', GET => '/label/x');
    everywhere($world, 'and no more', 200, GET => '/export/x');
};

subtest 'W10: pauses, trials, customers' => sub {
    my $account = 'pauses';
    $world->host->get('/plain/x', as($account));
    bought($account, 'starter');
    within_a_second($world, 'a plan', 200, GET => '/export/x', as($account));
    my $subscription = subscription_of($account);
    $stripe->api(POST => "/v1/subscriptions/$subscription->{id}", {pause_collection => {behavior => 'void'}});
    settled();
    everywhere($world, 'W10: invoices are voided: what was paid is had', 200, GET => '/export/x', as($account));
    $stripe->end_period($subscription->{id});
    within_a_second($world, 'W10: to its end', '402 SUBSCRIPTION_INACTIVE', GET => '/export/x', as($account));
    $stripe->api(POST => "/v1/subscriptions/$subscription->{id}", {pause_collection => ''});
    within_a_second($world, 'W10: collected again', 200, GET => '/export/x', as($account));

    my $trial = $stripe->subscribe($subscription->{customer}, price => 'price_pro_monthly', trial_days => 7, card => 'none',
        without_card => 'pause', metadata => {account => $account});
    $stripe->cancel_now($subscription->{id});
    settled();
    is value(q{SELECT count(*) FROM billing.outbox WHERE topic = 'subscription:trial-ending'}), 0, 'a trial';
    $stripe->advance(5 * 86400);
    settled();
    is value(q{SELECT payload ->> 'tier' FROM billing.outbox WHERE topic = 'subscription:trial-ending'}), 'pro', 'W10: its end is told, once';
    everywhere($world, 'until then', 200, GET => '/export/x', as($account));
    $stripe->advance(3 * 86400);
    within_a_second($world, 'W10: it ends without a card: paused', '402 SUBSCRIPTION_INACTIVE', GET => '/export/x', as($account));
    $stripe->new_card($subscription->{customer});
    $stripe->api(POST => "/v1/subscriptions/$trial->{id}/resume");
    within_a_second($world, 'W10: resumed', 200, GET => '/export/x', as($account));

    $stripe->api(POST => "/v1/customers/$subscription->{customer}", {email => 'canary@b.example', name => 'Canary'});
    settled();
    is value('SELECT email || name FROM billing.accounts WHERE external_id = ?', $account), 'canary@b.exampleCanary', 'W10: email and name';
    $stripe->delete_customer($subscription->{customer});
    within_a_second($world, 'W10: a customer that is deleted', '403 FEATURE_NOT_IN_PLAN', GET => '/export/x', as($account));
    settled();
    bought($account, 'starter');
    within_a_second($world, 'W10: whose account makes a new one', 200, GET => '/export/x', as($account));
    isnt subscription_of($account)->{customer}, $subscription->{customer}, 'at its next checkout';
};

subtest 'O7: one line for each event' => sub {
    settled();
    my %lines;
    for my $line (map { $_->log_lines(qr/billing: event evt_/) } $world->hosts) {
        $lines{$1}++ if $line =~ /billing: event (evt_\w+) [a-z_.]+(?: of account [\w-]+: |: ignored, |: parked, )\S/;
    }
    my @all = map { $_->{event_id} } $world->sql(q{SELECT event_id FROM billing.webhook_events WHERE status IN ('processed', 'ignored')});
    cmp_ok scalar @all, '>', 200, scalar(@all) . ' events';
    is_deeply [grep { ($lines{$_} // 0) != 1 } @all], [], 'have a line each, with type, account and outcome';
    is scalar(grep { /canary|\bcus_|\bsub_1|\bch_3|\bpi_3|\bre_3/i } map { $_->log_lines(qr/billing: event/) } $world->hosts), 0,
        'and say nothing of what was sent';
    is value(q{SELECT count(*) FROM billing.webhook_events WHERE status NOT IN ('processed', 'ignored')}), 0, 'W3: no event is left over';
};

is $stripe->log_text, '', 'the stand-in had nothing to complain about';
done_testing;
