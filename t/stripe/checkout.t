# The promise: a checkout goes the ways it goes at Stripe: nothing comes into being before it is paid; then customer, subscription or
# payment, invoice and events do, with the metadata where Stripe puts it; delayed payments complete unpaid; sessions expire.
use v5.36;
use Billing::Process qw(root);
use Billing::Stripe;
use Test::More;

my $stripe = Billing::Stripe->new(catalog => root() . '/conf/catalog.json');

sub post($path, %params) {
    my $answer = $stripe->api(POST => "/v1/$path", \%params);
    die "$path: " . $answer->body . "\n" if $answer->status != 200;
    return $answer->json;
}

sub get($path, %params) { $stripe->api(GET => "/v1/$path", \%params)->json }
sub customer(%with) { post('customers', email => 'ann@example.com', name => 'Ann', %with)->{id} }

sub checkout($price, %with) {
    return post('checkout/sessions', mode => 'subscription', success_url => 'http://127.0.0.1:1/done?s={CHECKOUT_SESSION_ID}&x=1',
        cancel_url => 'http://127.0.0.1:1/back', line_items => [{price => $price, quantity => 1}], %with);
}

sub told() { $stripe->told }

subtest 'a subscription' => sub {
    my $customer = customer();
    told();
    my $session = checkout('price_pro_monthly', customer => $customer, client_reference_id => 'acct-7', metadata => {a => 'session'},
        subscription_data => {metadata => {a => 'subscription'}});
    is_deeply [@$session{qw(status payment_status subscription invoice customer amount_total currency client_reference_id)}],
        ['open', 'unpaid', undef, undef, $customer, 7900, 'usd', 'acct-7'], 'an open session';
    is_deeply [told()], [], 'tells of nothing';
    is_deeply [map { scalar get($_)->{data}->@* } qw(subscriptions invoices payment_intents)], [0, 0, 0], 'and makes nothing';
    like $session->{url}, qr{^\Q@{[$stripe->url]}\E/c/pay/cs_test_\w+$}, 'it has an address';

    my $page = $stripe->visit($session->{url});
    is $page->status, 200, 'with a page';
    like $page->body, qr/Pro.*USD 79\.00 \/ month.*Due today.*USD 79\.00/s, 'that says what is bought';
    unlike $page->body, qr/<script/, 'without scripts';
    my $back = $stripe->press($session->{url}, do => 'cancel');
    is_deeply [$back->status, $back->header('Location')], [303, 'http://127.0.0.1:1/back'], 'its Cancel goes back';
    my $declined = $stripe->press($session->{url}, do => 'pay', by => 'declined');
    is $declined->status, 402, 'a declined card';
    like $declined->body, qr/role="alert">Your card was declined/, 'is told of';
    is get("checkout/sessions/$session->{id}")->{status}, 'open', 'and leaves it open';
    my $paid = $stripe->press($session->{url}, do => 'pay', by => 'card');
    is_deeply [$paid->status, $paid->header('Location')], [303, "http://127.0.0.1:1/done?s=$session->{id}&x=1"],
        'its Pay goes on, with the id in its place';
    is $stripe->press($session->{url}, do => 'pay')->status, 410, 'once';
    like $stripe->visit($session->{url})->body, qr/has been paid/, 'as the page says then';

    my $done = get("checkout/sessions/$session->{id}", expand => ['line_items']);
    is_deeply [@$done{qw(status payment_status url)}], ['complete', 'paid', undef], 'the session is complete';
    is_deeply $done->{metadata}, {a => 'session'}, 'with its metadata';
    is $done->{line_items}{data}[0]{price}{id}, 'price_pro_monthly', 'and its items, when asked for';
    my $subscription = get("subscriptions/$done->{subscription}");
    is_deeply [@$subscription{qw(status customer cancel_at_period_end cancel_at latest_invoice)}], ['active', $customer, 0, undef,
        $done->{invoice}], 'a subscription';
    is_deeply $subscription->{metadata}, {a => 'subscription'}, 'with metadata of its own';
    is $subscription->{billing_mode}{type}, 'flexible', 'in flexible mode, as clover has it';
    my ($item) = $subscription->{items}{data}->@*;
    is_deeply [$item->{price}{id}, $item->{quantity}], ['price_pro_monthly', 1], 'with an item';
    cmp_ok $item->{current_period_end} - $item->{current_period_start}, '>=', 28 * 86400, 'for a month';
    my $invoice = get("invoices/$done->{invoice}", expand => ['payments']);
    is_deeply [@$invoice{qw(status billing_reason amount_paid attempt_count)}], ['paid', 'subscription_create', 7900, 1], 'a paid invoice';
    is_deeply $invoice->{parent}{subscription_details}{metadata}, {a => 'subscription'}, "with the subscription's metadata";
    is_deeply $invoice->{lines}{data}[0]{period}, {start => $item->{current_period_start}, end => $item->{current_period_end}},
        'for the period';
    my $intent = $invoice->{payments}{data}[0]{payment}{payment_intent};
    is get("payment_intents/$intent")->{status}, 'succeeded', 'by a payment';
    is get('invoice_payments', payment => {type => 'payment_intent', payment_intent => $intent})->{data}[0]{invoice}, $invoice->{id},
        'which leads to the invoice';
    is_deeply [told()], [qw(payment_intent.created charge.succeeded payment_method.attached checkout.session.completed invoice.created
        customer.subscription.created invoice.finalized customer.updated customer.subscription.updated invoice_payment.paid invoice.updated
        invoice.paid invoice.payment_succeeded payment_intent.succeeded)], 'the events';
    my ($created) = $stripe->events('customer.subscription.created');
    my ($updated) = $stripe->events('customer.subscription.updated');
    is_deeply [$created->{data}{object}{status}, $updated->{data}{object}{status}, $updated->{data}{previous_attributes}{status}],
        ['incomplete', 'active', 'incomplete'], 'a subscription is born incomplete';
    is $updated->{created} - $created->{created}, 0, 'and active in the same second';
    is_deeply [map { scalar $_->@* } map { get('subscriptions', customer => $customer, %$_)->{data} } {}, {status => 'all'},
        {status => 'canceled'},
        {price => 'price_pro_monthly'}, {price => 'price_starter_monthly'}], [1, 1, 0, 1, 0], 'it is listed';
};

subtest 'a pack' => sub {
    my $customer = customer();
    told();
    my $session = checkout('price_logo_pack_10', mode => 'payment', customer => $customer,
        payment_intent_data => {metadata => {pack => 'logo_10'}});
    $stripe->pay($session->{id});
    my $done = get("checkout/sessions/$session->{id}");
    is_deeply [@$done{qw(status payment_status subscription invoice)}], ['complete', 'paid', undef, undef], 'is paid';
    my $intent = get("payment_intents/$done->{payment_intent}");
    is_deeply [@$intent{qw(amount status customer)}], [1000, 'succeeded', $customer], 'by a payment';
    is_deeply $intent->{metadata}, {pack => 'logo_10'}, 'with metadata of its own';
    is_deeply get("charges/$intent->{latest_charge}")->{metadata}, {pack => 'logo_10'}, 'as has the charge';
    is_deeply [told()], [qw(payment_intent.created charge.succeeded checkout.session.completed payment_intent.succeeded)], 'the events';

    my $part = $stripe->refund($session->{id}, amount => 400);
    is_deeply [@$part{qw(amount status charge payment_intent)}], [400, 'succeeded', $intent->{latest_charge}, $intent->{id}],
        'a part is refunded';
    is_deeply [told()], [qw(charge.refunded refund.created charge.refund.updated)], 'with events';
    my $charge = get("charges/$intent->{latest_charge}");
    is_deeply [@$charge{qw(amount_refunded refunded)}], [400, 0], 'the charge adds them up';
    post('refunds', payment_intent => $intent->{id});
    $charge = get("charges/$charge->{id}", expand => ['refunds']);
    is_deeply [@$charge{qw(amount_refunded refunded)}, scalar $charge->{refunds}{data}->@*], [1000, 1, 2], 'until it is whole';
    is $stripe->api(POST => '/v1/refunds', {charge => $charge->{id}})->json->{error}{code}, 'charge_already_refunded', 'and no more';
    told();
    $stripe->fail_refund($part->{id});
    is_deeply [told()], [qw(charge.updated charge.refund.updated refund.updated refund.failed)], 'a refund that fails';
    is_deeply [map { "$_->{amount} $_->{status}" } get('refunds', charge => $charge->{id})->{data}->@*], ['600 succeeded', '400 failed'],
        'stays in the list';
    is get("charges/$charge->{id}")->{amount_refunded}, 600, 'and counts no more';
    my $dispute = $stripe->dispute($session->{id});
    $stripe->close_dispute($dispute->{id}, 'lost');
    is_deeply [told()], [qw(charge.dispute.created charge.dispute.funds_withdrawn charge.dispute.updated charge.dispute.closed)],
        'a dispute';
};

subtest 'entitlements' => sub {
    my $customer = customer();
    my @all = map { "feature_$_" } 1 .. 12;
    told();
    $stripe->entitle($customer, @all);
    is_deeply [told()], ['entitlements.active_entitlement_summary.updated'], 'are told of';
    my $summary = ($stripe->events('entitlements.active_entitlement_summary.updated'))[-1]{data}{object};
    is_deeply [scalar $summary->{entitlements}{data}->@*, $summary->{entitlements}{has_more}], [10, 1], 'ten of them';
    my $list = get('entitlements/active_entitlements', customer => $customer, limit => 100);
    is_deeply [sort map { $_->{lookup_key} } $list->{data}->@*], [sort @all], 'and listed, all of them';
    is $stripe->api(GET => '/v1/entitlements/active_entitlements')->status, 400, 'of a customer';
    $stripe->entitle($customer);
    is scalar get('entitlements/active_entitlements', customer => $customer)->{data}->@*, 0, 'until they end';
};

subtest 'payments that are known later' => sub {
    for my $well (1, 0) {
        my $customer = customer();
        told();
        my $pack = checkout('price_logo_pack_10', mode => 'payment', customer => $customer);
        $stripe->pay($pack->{id}, delayed => 1);
        my $done = get("checkout/sessions/$pack->{id}");
        is_deeply [@$done{qw(status payment_status)}], ['complete', 'unpaid'], 'a pack is complete and not paid';
        is_deeply [told()], [qw(payment_intent.created checkout.session.completed payment_intent.processing)], 'is told of';
        $stripe->settle_later($pack->{id}, $well);
        is get("checkout/sessions/$pack->{id}")->{payment_status}, $well ? 'paid' : 'unpaid', $well ? 'then it is paid' : 'then it is not';
        is +(told())[-1], 'checkout.session.async_payment_' . ($well ? 'succeeded' : 'failed'), 'as is told';

        my $plan = checkout('price_pro_monthly', customer => $customer);
        $stripe->press($plan->{url}, do => 'pay', by => 'debit');
        my $subscription = get("checkout/sessions/$plan->{id}", expand => ['subscription'])->{subscription};
        is $subscription->{status}, 'incomplete', 'a subscription waits too';
        $stripe->advance(2 * 86400);
        is get("subscriptions/$subscription->{id}")->{status}, 'incomplete', 'for days';
        $stripe->settle_later($plan->{id}, $well);
        is get("subscriptions/$subscription->{id}")->{status}, $well ? 'active' : 'incomplete_expired', $well ? 'then it is active'
            : 'then it is over';
    }
};

subtest 'without a customer' => sub {
    told();
    my $session = checkout('price_starter_monthly', customer_email => 'bob@example.com');
    is $session->{customer}, undef, 'there is none';
    $stripe->pay($session->{id});
    my $done = get("checkout/sessions/$session->{id}", expand => ['customer']);
    is $done->{customer}{email}, 'bob@example.com', 'a subscription makes one';
    is +(told())[0], 'customer.created', 'and tells of it';
    my $pack = checkout('price_logo_pack_10', mode => 'payment');
    $stripe->pay($pack->{id}, email => 'guest@example.com');
    $done = get("checkout/sessions/$pack->{id}");
    is_deeply [$done->{customer}, $done->{customer_details}{email}], [undef, 'guest@example.com'], 'a pack makes none';
};

subtest 'a trial' => sub {
    told();
    my $session = checkout('price_pro_monthly', customer => customer(), subscription_data => {trial_period_days => 14});
    $stripe->pay($session->{id});
    my $done = get("checkout/sessions/$session->{id}", expand => ['subscription', 'invoice']);
    is_deeply [$done->{payment_status}, $done->{amount_total}], ['no_payment_required', 0], 'is not paid';
    is $done->{subscription}{status}, 'trialing', 'is a subscription on trial';
    is $done->{subscription}{items}{data}[0]{current_period_end}, $done->{subscription}{trial_end}, 'to the end of the trial';
    is_deeply [@{$done->{invoice}}{qw(status total)}], ['paid', 0], 'with an invoice over nothing';
    ok !grep({ $_ eq 'charge.succeeded' } my @told = told()), 'no charge';
    ok scalar(grep { $_ eq 'invoice.paid' } @told), 'yet it is paid';
};

subtest 'the end of a session' => sub {
    told();
    my $session = checkout('price_pro_monthly');
    my $expired = post("checkout/sessions/$session->{id}/expire");
    is_deeply [@$expired{qw(status url)}], ['expired', undef], 'by a call';
    is_deeply [told()], ['checkout.session.expired'], 'is told of';
    my $again = $stripe->api(POST => "/v1/checkout/sessions/$session->{id}/expire");
    is $again->status, 400, 'once';
    is $stripe->press($session->{url}, do => 'pay')->status, 410, 'it cannot be paid';
    $session = checkout('price_pro_monthly', expires_at => $stripe->now + 1860);
    $stripe->advance(1800);
    is get("checkout/sessions/$session->{id}")->{status}, 'open', 'in time';
    $stripe->advance(61);
    is get("checkout/sessions/$session->{id}")->{status}, 'expired', 'it ends by itself';
    is_deeply [get('checkout/sessions', status => 'expired')->{data}->@* > 1, scalar get('checkout/sessions',
        customer => 'cus_none')->{data}->@*], [1, 0], 'sessions are listed';
};

subtest 'a customer goes' => sub {
    my $customer = customer();
    my $id = $stripe->subscribe($customer, price => 'price_pro_monthly')->{id};
    my $session = checkout('price_pro_monthly', customer => $customer);
    told();
    is $stripe->api(DELETE => "/v1/customers/$customer")->json->{deleted}, 1, 'by a call';
    is_deeply [told()], [qw(customer.subscription.deleted customer.deleted)], 'with its subscriptions';
    is get("subscriptions/$id")->{status}, 'canceled', 'which can still be read';
    ok !eval { $stripe->pay($session->{id}); 1 }, 'an open session cannot be paid any more';
    is get('subscriptions', customer => $customer, status => 'all')->{data}[0]{id}, $id, 'and listed';
};

is $stripe->log_text, '', 'the stand-in had nothing to complain about';
done_testing;
