# The promise: time passes at the stand-in as it does at Stripe: periods of calendar months, renewals an hour after a period's end,
# failed ones tried again and given up as set, trials with their warning, cancellations at their date; each told of in order.
use v5.36;
use Billing::Process qw(root);
use Billing::Stripe;
use POSIX qw(strftime);
use Test::More;
use Time::Local qw(timegm_posix);

my $hour = 3600;
my $day = 86400;
my $stripe = Billing::Stripe->new(catalog => root() . '/conf/catalog.json');

sub post($path, %params) {
    my $answer = $stripe->api(POST => "/v1/$path", \%params);
    die "$path: " . $answer->body . "\n" if $answer->status != 200;
    return $answer->json;
}

sub get($path, %params) { $stripe->api(GET => "/v1/$path", \%params)->json }
sub customer() { post('customers', email => 'ann@example.com')->{id} }
sub subscription($id) { get("subscriptions/$id") }
sub status($id) { subscription($id)->{status} }
sub period($id) { @{subscription($id)->{items}{data}[0]}{qw(current_period_start current_period_end)} }
sub date($time) { strftime('%Y-%m-%d', gmtime $time) }

sub told() { $stripe->told }

# The clock stands at the noon of a 31st of January, so that months differ.
sub begin_on_the_31st() {
    my $year = 1900 + (gmtime $stripe->now)[5] + 1;
    $stripe->advance(to => timegm_posix(0, 0, 12, 31, 0, $year - 1900));
    return $year;
}

subtest 'months' => sub {
    my $year = begin_on_the_31st();
    my $id = $stripe->subscribe(customer(), price => 'price_pro_monthly')->{id};
    my @ends;
    for (1 .. 4) {
        push @ends, date((period($id))[1]);
        $stripe->end_period({id => $id});
    }
    my $february = $year % 4 ? 28 : 29;
    is_deeply \@ends, ["$year-02-$february", "$year-03-31", "$year-04-30", "$year-05-31"], "the day is the anchor's, or the month's last";
    my $yearly = $stripe->subscribe(customer(), price => 'price_pro_yearly')->{id};
    my ($start, $end) = period($yearly);
    is date($end), date($start) =~ s/^\d+/$year + 1/er, 'years';
    $stripe->cancel_now($_) for $id, $yearly;
};

subtest 'a renewal' => sub {
    my $id = $stripe->subscribe(customer(), price => 'price_pro_monthly')->{id};
    my ($start, $end) = period($id);
    told();
    $stripe->advance(to => $end - 60);
    is_deeply [told()], [], 'nothing before the end';
    $stripe->advance(to => $end);
    is_deeply [told()], ['invoice.created', 'customer.subscription.updated'], 'at the end there is a draft and a new period';
    my $subscription = subscription($id);
    my $draft = get("invoices/$subscription->{latest_invoice}");
    is_deeply [@$draft{qw(status billing_reason amount_due)}], ['draft', 'subscription_cycle', 7900], 'of the next month';
    is_deeply [@$draft{qw(period_start period_end)}], [$start, $end], 'whose own dates are those of the month that has ended';
    is_deeply $draft->{lines}{data}[0]{period}, {start => $end, end => (period($id))[1]}, 'and its line those of the new one';
    is $subscription->{status}, 'active', 'the subscription stays active';
    my ($update) = reverse $stripe->events('customer.subscription.updated');
    is_deeply [sort keys $update->{data}{previous_attributes}->%*], ['items', 'latest_invoice'], 'what changed is told';
    $stripe->advance(to => $end + $hour - 60); # its clock moves by itself too
    is_deeply [told()], [], 'for an hour';
    $stripe->advance(60);
    is_deeply [told()], [qw(invoice.finalized payment_intent.created charge.succeeded payment_intent.succeeded invoice_payment.paid
        invoice.updated invoice.paid invoice.payment_succeeded)], 'then it is paid';
    is get("invoices/$draft->{id}")->{status}, 'paid', 'well';
    is $update->{created}, $end, 'events carry the time they happened at';
    my ($paid) = reverse $stripe->events('invoice.paid');
    is $paid->{created}, $end + $hour, 'each its own';
    is_deeply [map { get('invoices', subscription => $id, %$_)->{data}->@* } {status => 'paid'}, {status => 'open'}],
        [get('invoices', subscription => $id)->{data}->@*],
        'invoices are listed';
    $stripe->cancel_now($id);
};

subtest 'a renewal that fails' => sub {
    for my $then (qw(cancel unpaid past_due)) {
        $stripe->settings(after_retries => $then);
        my $customer = customer();
        my $id = $stripe->subscribe($customer, price => 'price_pro_monthly', card => 'declines')->{id};
        is status($id), 'active', 'it begins well';
        told();
        $stripe->end_period({id => $id});
        is status($id), 'past_due', 'and is past due when the card fails';
        is_deeply [grep { !/^invoice\.updated$/ } told()],
            [qw(invoice.created customer.subscription.updated invoice.finalized payment_intent.created charge.failed
            payment_intent.payment_failed invoice.payment_failed customer.updated customer.subscription.updated)], 'as is told';
        my $invoice = get('invoices/' . subscription($id)->{latest_invoice});
        is_deeply [@$invoice{qw(status attempt_count attempted)}], ['open', 1, 1], 'tried once';
        my $wait = $invoice->{next_payment_attempt} - $stripe->now;
        ok $wait <= 3 * $day && $wait > 3 * $day - 60, 'to be tried in three days';
        ok get("customers/$customer")->{delinquent}, 'the customer is delinquent';
        $stripe->advance(3 * $day);
        is get("invoices/$invoice->{id}")->{attempt_count}, 2, 'tried twice';
        is status($id), 'past_due', 'still past due';
        is_deeply [grep { /failed/ } told()], [qw(charge.failed payment_intent.payment_failed invoice.payment_failed)],
            'each try is told of';
        $stripe->advance(12 * $day);
        is status($id), {cancel => 'canceled', unpaid => 'unpaid', past_due => 'past_due'}->{$then}, "in the end: $then";
        $invoice = get("invoices/$invoice->{id}");
        is_deeply [@$invoice{qw(status attempt_count next_payment_attempt)}], ['open', 4, undef], 'after four tries';
        if ($then eq 'cancel') {
            is subscription($id)->{cancellation_details}{reason}, 'payment_failed', 'with its reason';
        } else {
            told();
            $stripe->new_card($customer);
            is status($id), 'active', 'a new card mends it';
            my %told = map { $_ => 1 } told();
            ok !grep({ !$told{$_} } qw(invoice.paid invoice.payment_succeeded customer.subscription.updated)), 'with events';
            ok !get("customers/$customer")->{delinquent}, 'and the customer is well';
            $stripe->cancel_now($id);
        }
    }
    $stripe->settings(after_retries => 'cancel');
};

subtest 'paying a failed renewal' => sub {
    my $id = $stripe->subscribe(my $customer = customer(), price => 'price_pro_monthly', card => 'declines')->{id};
    my $failed = $stripe->end_period({id => $id})->{latest_invoice};
    my $declined = $stripe->api(POST => "/v1/invoices/$failed/pay");
    is_deeply [$declined->status, $declined->json->{error}{code}], [402, 'card_declined'], 'with the same card: declined';
    told();
    $stripe->pay_invoice($failed, out_of_band => 1);
    is status($id), 'active', 'outside Stripe: active again';
    ok scalar(grep { $_ eq 'customer.subscription.updated' } told()), 'is told of';
    my ($paid) = reverse $stripe->events('invoice.paid');
    is $paid->{data}{object}{id}, $failed, 'the invoice is paid';
    ok !grep({ $_->{data}{object}{id} eq $failed } $stripe->events('invoice.payment_succeeded')), 'without a payment that succeeded';
    $stripe->new_card($customer);
    is status($id), 'active', 'and stays so';
    $stripe->end_period({id => $id});
    is status($id), 'active', 'and renews with the new card';
    $stripe->cancel_now($id);
};

subtest 'trials' => sub {
    my $id = $stripe->subscribe(customer(), price => 'price_pro_monthly', trial_days => 10)->{id};
    my $end = subscription($id)->{trial_end};
    told();
    $stripe->advance(to => $end - 3 * $day - 60);
    is_deeply [told()], [], 'no word';
    $stripe->advance(60);
    is_deeply [told()], ['customer.subscription.trial_will_end'], 'until three days before the end';
    $stripe->advance(to => $end);
    is_deeply [told()], ['invoice.created', 'customer.subscription.updated'], 'at the end the first month begins';
    is status($id), 'active', 'active';
    my ($update) = reverse $stripe->events('customer.subscription.updated');
    is $update->{data}{previous_attributes}{status}, 'trialing', 'and before it was not';
    $stripe->advance($hour);
    my $invoice = get('invoices/' . subscription($id)->{latest_invoice});
    is_deeply [@$invoice{qw(status billing_reason amount_paid)}], ['paid', 'subscription_cycle', 7900], 'paid an hour later';
    $stripe->cancel_now($id);

    $id = $stripe->subscribe(customer(), price => 'price_pro_monthly', trial_days => 2)->{id};
    is scalar(grep { $_->{data}{object}{id} eq $id } $stripe->events('customer.subscription.trial_will_end')), 1,
        'a short trial warns at once';
    post("subscriptions/$id", trial_end => 'now');
    is status($id), 'active', 'a trial can be ended';
    is get('invoices/' . subscription($id)->{latest_invoice})->{status}, 'paid', 'and is paid then';
    $stripe->cancel_now($id);

    my %ends = (cancel => 'canceled', pause => 'paused', create_invoice => 'past_due');
    for my $then (sort keys %ends) {
        $id = $stripe->subscribe(customer(), price => 'price_pro_monthly', trial_days => 5, card => 'none', without_card => $then)->{id};
        $stripe->end_period({id => $id});
        is status($id), $ends{$then}, "without a card: $then";
        $stripe->cancel_now($id) if $then eq 'create_invoice';
        next if $then ne 'pause';
        is +($stripe->events('customer.subscription.paused'))[-1]{data}{object}{id}, $id, 'is told of';
        $stripe->new_card(subscription($id)->{customer});
        told();
        post("subscriptions/$id/resume");
        is status($id), 'active', 'it is resumed with one';
        ok scalar(grep { $_ eq 'customer.subscription.resumed' } told()), 'as is told';
        $stripe->cancel_now($id);
    }
};

subtest 'cancellations' => sub {
    for my $mode (qw(flexible classic)) {
        my $id = $stripe->subscribe(customer(), price => 'price_pro_monthly', billing_mode => $mode)->{id};
        my (undef, $end) = period($id);
        told();
        $stripe->cancel($id);
        my $subscription = subscription($id);
        is_deeply [@$subscription{qw(status cancel_at cancel_at_period_end)}], ['active', $end, $mode eq 'classic' ? 1 : 0],
            "$mode: at the period's end";
        is $subscription->{cancellation_details}{reason}, 'cancellation_requested', 'by request';
        is_deeply [told()], ['customer.subscription.updated'], 'is told of';
        $stripe->keep($id);
        is_deeply [@{subscription($id)}{qw(cancel_at cancel_at_period_end canceled_at)}], [undef, 0, undef], 'and taken back';
        $stripe->cancel($id);
        told();
        $stripe->advance(to => $end);
        is_deeply [told()], ['customer.subscription.deleted'], 'then it ends, without an invoice';
        is_deeply [@{subscription($id)}{qw(status ended_at)}], ['canceled', $end], 'canceled';
    }
    my $id = $stripe->subscribe(customer(), price => 'price_pro_monthly')->{id};
    my (undef, $end) = period($id);
    is_deeply [@{post("subscriptions/$id", cancel_at_period_end => 'true')}{qw(cancel_at cancel_at_period_end)}], [$end, 1], 'by a call';
    is_deeply [@{post("subscriptions/$id", cancel_at_period_end => 'false')}{qw(cancel_at cancel_at_period_end)}], [undef, 0], 'and back';
    is_deeply [@{post("subscriptions/$id", cancel_at => 'max_period_end')}{qw(cancel_at cancel_at_period_end)}], [$end, 0], 'by a date';
    is post("subscriptions/$id", cancel_at => '')->{cancel_at}, undef, 'and back';
    my $ended = $stripe->api(DELETE => "/v1/subscriptions/$id", {cancellation_details => {comment => 'bye'}})->json;
    is_deeply [@$ended{qw(status)}, $ended->{cancellation_details}{comment}], ['canceled', 'bye'], 'at once';
    is get('subscriptions', customer => $ended->{customer})->{data}->@*, 0, 'a list does not show it';
    is get('subscriptions', customer => $ended->{customer}, status => 'all')->{data}[0]{id}, $id, 'unless all are asked for';
    is get('subscriptions', customer => $ended->{customer}, status => 'ended')->{data}[0]{id}, $id, 'or the ended';
};

subtest 'a first payment that never comes' => sub {
    my $id = $stripe->subscribe(customer(), price => 'price_pro_monthly', status => 'incomplete')->{id};
    $stripe->advance(22 * $hour);
    is status($id), 'incomplete', 'waits';
    told();
    $stripe->advance($hour);
    is status($id), 'incomplete_expired', 'for 23 hours';
    is_deeply [told()], ['invoice.voided', 'customer.subscription.updated'], 'as is told';
};

subtest 'changes of plan' => sub {
    my $id = $stripe->subscribe(customer(), price => 'price_starter_monthly')->{id};
    my ($start, $end) = period($id);
    $stripe->advance(to => int(($start + $end) / 2));
    told();
    $stripe->change_plan($id, 'price_agency_monthly');
    my $invoice = get('invoices/' . subscription($id)->{latest_invoice});
    is_deeply [@$invoice{qw(status billing_reason)}], ['paid', 'subscription_update'], 'upwards: an invoice at once';
    is_deeply [map { $_->{amount} } $invoice->{lines}{data}->@*], [-1450, 9950], 'over the two halves';
    is_deeply [map { $_->{parent}{subscription_item_details}{proration} } $invoice->{lines}{data}->@*], [1, 1], 'which are prorations';
    is_deeply [map { $_->{pricing}{price_details}{price} } $invoice->{lines}{data}->@*], ['price_starter_monthly',
        'price_agency_monthly'], 'of either price';
    is_deeply [period($id)], [$start, $end], 'the period stays';
    my ($update) = grep { $_->{data}{previous_attributes}{items} } reverse $stripe->events('customer.subscription.updated');
    is $update->{data}{previous_attributes}{items}{data}[0]{price}{id}, 'price_starter_monthly', 'the old price is told';

    my $item = subscription($id)->{items}{data}[0]{id};
    post("subscriptions/$id", items => [{id => $item, price => 'price_starter_monthly'}]);
    is get('invoices/' . subscription($id)->{latest_invoice})->{id}, $invoice->{id}, 'downwards by a call: no invoice now';
    $stripe->end_period({id => $id});
    my $next = get('invoices/' . subscription($id)->{latest_invoice});
    is scalar $next->{lines}{data}->@*, 3, 'but lines on the next one';
    is $next->{billing_reason}, 'subscription_cycle', 'that of the renewal';

    post("subscriptions/$id", items => [{id => $item, price => 'price_pro_yearly'}], proration_behavior => 'none');
    my (undef, $year) = period($id);
    cmp_ok $year, '>', $stripe->now + 360 * $day, 'to years: a new period from now';
    is get('invoices/' . subscription($id)->{latest_invoice})->{amount_paid}, 79000, 'paid now';
    post("subscriptions/$id", items => [{id => $item, quantity => 3}], proration_behavior => 'none');
    is subscription($id)->{items}{data}[0]{quantity}, 3, 'quantities';
    $stripe->cancel_now($id);
};

subtest 'what does not become an event' => sub {
    my $id = $stripe->subscribe(customer(), price => 'price_pro_monthly')->{id};
    told();
    post("subscriptions/$id", metadata => {});
    is_deeply [told()], [], 'an update that changes nothing';
    post("subscriptions/$id", pause_collection => {behavior => 'void'});
    is_deeply subscription($id)->{pause_collection}, {behavior => 'void', resumes_at => undef}, 'a pause of collection';
    is status($id), 'active', 'leaves the status';
    for my $case ([void => 'void'], [mark_uncollectible => 'uncollectible'], [keep_as_draft => 'draft']) {
        my ($behaviour, $becomes) = @$case;
        my $until = $behaviour eq 'keep_as_draft' ? subscription($id)->{items}{data}[0]{current_period_end} + 86400 : undef;
        post("subscriptions/$id", pause_collection => {behavior => $behaviour, $until ? (resumes_at => $until) : ()});
        $stripe->end_period($id);
        is status($id), 'active', "$behaviour: a new period";
        is get('invoices/' . subscription($id)->{latest_invoice})->{status}, $becomes, 'whose invoice nobody pays';
    }
    $stripe->advance(86400);
    is subscription($id)->{pause_collection}, undef, 'until it is resumed';
};

is $stripe->log_text, '', 'the stand-in had nothing to complain about';
done_testing;
