# The promise: events arrive as Stripe delivers them: signed so that Stripe's own library takes them, again after every answer that is
# not 2xx, in the shapes of the endpoint's API version; and on demand twice, late, in any order, wrongly signed or out of date.
use v5.36;
use Billing::Process qw(build root slurp new_directory);
use Billing::Stripe;
use Billing::Stripe::Receiver;
use JSON::PP ();
use MIME::Base64 qw(encode_base64);
use Test::More;

my $json = JSON::PP->new->utf8->canonical->boolean_values(0, 1);
my $receiver = Billing::Stripe::Receiver->new;
my $stripe = Billing::Stripe->new(catalog => root() . '/conf/catalog.json');
my $endpoint = $stripe->webhook(url => $receiver->url, secret => 'whsec_first');

sub customer(%with) { $stripe->api(POST => '/v1/customers', \%with)->json->{id} }

sub received() { map { $_->{event}{type} } $receiver->all }

# What npm stripe says of signatures: [{body, header, secret}, ...] => [1 or its complaint, ...]; of signing likewise.
sub ask_stripe(%asked) {
    my $directory = new_directory();
    open my $out, '>:raw', "$directory/asked" or die $!;
    print $out $json->encode({verify => [], sign => [], %asked});
    close $out;
    my $process = Billing::Process->start(name => 'node', log => "$directory/told",
        command => ['sh', '-c', 'exec node "$0" "$1" < "$2"', root() . '/t/stripe/signature.js', build() . '/stripe-types',
            "$directory/asked"]);
    my $status = $process->wait_exit(30);
    die slurp("$directory/told") if $status;
    return $json->decode(slurp("$directory/told"));
}

sub case($attempt, $secret, $body) { {body => encode_base64($body, ''), header => $attempt->{signature}, secret => $secret} }

subtest 'a delivery' => sub {
    my $id = customer(name => "J\x{fc}rgen");
    my ($delivery) = $stripe->wait_delivered(type => 'customer.created');
    my ($got) = $receiver->all;
    my $event = $got->{event};
    is $event->{data}{object}{id}, $id, 'carries the object';
    is_deeply [sort keys %$event], [qw(api_version created data id livemode object pending_webhooks request type)], 'in an event';
    is $event->{api_version}, '2026-02-25.clover', 'of a version';
    is $event->{pending_webhooks}, 1, 'for one endpoint';
    like $event->{request}{id}, qr/^req_/, 'made by a request';
    is $got->{headers}{'content-type'}, 'application/json; charset=utf-8', 'as JSON';
    like $got->{headers}{'user-agent'}, qr{^Stripe/1\.0}, 'by Stripe';
    is $got->{headers}{'content-encoding'}, undef, 'not packed';
    is $delivery->{attempts}[0]{status}, 200, 'the record has the answer';
    is $delivery->{attempts}[0]{body}, 'answer 200', 'and its body';
    is $stripe->body($event), $got->{body}, 'and the bytes that were sent';
};

subtest 'what npm stripe says of the signatures' => sub {
    my ($event) = $stripe->events('customer.created');
    my $body = $stripe->body($event);
    $stripe->roll_secret($endpoint->{id}, secret => 'whsec_second');
    my ($good) = $stripe->deliver($event);
    like $good->{signature}, qr/^t=\d+,v1=[0-9a-f]{64},v1=[0-9a-f]{64}$/, 'while a secret is rolled there are two';
    my ($aged) = $stripe->deliver($event, offset => -301);
    my ($foreign) = $stripe->deliver($event, secret => 'whsec_other');
    my ($changed) = $stripe->deliver($event, body => $body =~ s/customer/Customer/r, sign => $body);
    $stripe->roll_secret($endpoint->{id}, end => 1);
    my ($second) = $stripe->deliver($event);
    my $told = ask_stripe(
        verify => [
            case($good, 'whsec_first', $body), case($good, 'whsec_second', $body), case($second, 'whsec_second', $body), case($second,
                'whsec_first', $body),
            case($aged, 'whsec_first', $body), case($foreign, 'whsec_first', $body), case($changed, 'whsec_first',
                $body =~ s/customer/Customer/r),
        ],
        sign => [{body => encode_base64($body, ''), secret => 'whsec_second', timestamp => 0 + ($second->{signature} =~ /^t=(\d+)/)[0]}],
    );
    my @verdicts = $told->{verify}->@*;
    is_deeply [@verdicts[0 .. 2]], [1, 1, 1], 'good ones, with the old secret and the new';
    like $verdicts[3], qr/No signatures found/, 'not with the secret that has ended';
    like $verdicts[4], qr/Timestamp outside the tolerance/, 'not when it is old';
    like $verdicts[5], qr/No signatures found/, "not with another's secret";
    like $verdicts[6], qr/No signatures found/, 'not for other bytes';
    is $told->{sign}[0], $second->{signature}, 'and its own signer makes the same';
};

subtest 'what failed comes again' => sub {
    $receiver->forget;
    $receiver->answers(500, 302, 400, 404);
    customer();
    my ($delivery) = ($stripe->wait_delivered(type => 'customer.created'))[-1];
    is_deeply [map { $_->{status} } $delivery->{attempts}->@*], [500, 302, 400, 404, 200],
        'until it is answered with 2xx; a redirect is not followed';
    my @all = $receiver->all;
    is scalar(keys %{{map { $_->{body} => 1 } @all}}), 1, 'with the same bytes';
    $receiver->forget;
    $stripe->webhook_timeout(0.2);
    $receiver->answers('hang');
    customer();
    ($delivery) = ($stripe->wait_delivered(type => 'customer.created'))[-1];
    is_deeply [map { $_->{status} } $delivery->{attempts}->@*], [0, 200], 'also when there was no answer';
    like $delivery->{attempts}[0]{error}, qr/no answer/, 'as is recorded';
    $stripe->webhook_timeout(5);
    $stripe->retry(0);
    $receiver->answers(503);
    customer();
    Billing::Process::wait_for(sub { ($stripe->deliveries)[-1]{state} eq 'failed' }, 5, 'it fails');
    is_deeply [map { $_->{state} } $stripe->deliver_pending], ['delivered'], 'by hand, where it does not by itself';
    $stripe->retry(1);
};

subtest 'held back, repeated, in another order' => sub {
    $receiver->forget;
    $stripe->hold;
    my $id = customer();
    $stripe->api(POST => "/v1/customers/$id", {name => $_}) for qw(one two);
    is_deeply [received()], [], 'nothing is sent';
    is scalar $stripe->deliveries(state => 'held'), 3, 'three wait';
    $stripe->release(order => [2, 0, 1], times => 2);
    is_deeply [received()], [map { ($_) x 2 } qw(customer.updated customer.created customer.updated)], 'each twice, in the order asked for';
    is_deeply [map { $_->{event}{data}{object}{name} } $receiver->all], ['two', 'two', undef, undef, 'one', 'one'], 'each as it was then';
    my ($update) = grep { ($_->{event}{data}{object}{name} // '') eq 'two' } $receiver->all;
    is_deeply $update->{event}{data}{previous_attributes}, {name => 'one'}, 'an update says what was before';
    $receiver->forget;
    $stripe->hold;
    customer();
    my ($first) = $stripe->release_together(5);
    is_deeply [received()], [('customer.created') x 5], 'five at the same time';
    is scalar $first->{attempts}->@*, 5, 'are recorded';
    $receiver->forget;
    $stripe->hold;
    $stripe->api(POST => "/v1/customers/$id", {name => 'three'});
    customer();
    $stripe->release(only => ['customer.created'], keep => 1);
    is_deeply [received()], ['customer.created'], 'some of them';
    $stripe->release(order => 'reverse');
    is_deeply [received()], ['customer.created', 'customer.updated'], 'then the others';
    $receiver->forget;
    $stripe->deliver(($stripe->events('customer.created'))[0], times => 3);
    is_deeply [received()], [('customer.created') x 3], 'an old one three times more';
};

subtest 'what Stripe may send and nothing here makes' => sub {
    $receiver->forget;
    $stripe->emit('customer.updated', object => {id => 'cus_elsewhere', object => 'customer'}, account => 'acct_1', livemode => 1,
        created => 1_700_000_000);
    $stripe->emit('v1.billing.meter.error_report_triggered',
        raw => '{"object":"v2.core.event","id":"evt_thin","created":"2026-01-01T00:00:00Z"}');
    $stripe->wait_delivered;
    my ($connect, $thin) = $receiver->all;
    ($connect, $thin) = ($thin, $connect) if !$connect->{event}{account};
    is_deeply [@{$connect->{event}}{qw(account livemode created)}], ['acct_1', 1, 1_700_000_000],
        "another account's, live, of another time";
    is $thin->{event}{object}, 'v2.core.event', 'a thin event';
    my ($header) = $stripe->deliver(($stripe->events('customer.updated'))[0], header => undef);
    is +($receiver->all)[-1]{headers}{'stripe-signature'}, undef, 'one without a signature';
};

subtest 'who hears what' => sub {
    my $invoices = Billing::Stripe::Receiver->new;
    my $old = $stripe->webhook(url => $invoices->url, api_version => '2022-11-15', events => ['invoice.paid',
        'customer.subscription.created', 'charge.succeeded']);
    ok !eval { $stripe->webhook(url => 'http://127.0.0.1:1/', api_version => '2025-12-18.acacia'); 1 },
        'no endpoint of a version that does not exist';
    my $id = $stripe->subscribe(customer(), price => 'price_pro_monthly')->{id};
    $stripe->wait_delivered;
    my %old = map { $_->{event}{type} => $_->{event} } $invoices->all;
    is_deeply [sort keys %old], ['charge.succeeded', 'customer.subscription.created', 'invoice.paid'],
        'an endpoint hears what it asked for';
    my ($subscription, $invoice, $charge) = map { $old{$_}{data}{object} } qw(customer.subscription.created invoice.paid charge.succeeded);
    is $old{'invoice.paid'}{api_version}, '2022-11-15', 'in its own version';
    cmp_ok $subscription->{current_period_end}, '>', $subscription->{current_period_start}, 'the period on the subscription';
    ok !grep({ exists $subscription->{items}{data}[0]{$_} } qw(current_period_start current_period_end)), 'and not on its items';
    is $invoice->{subscription}, $id, 'the subscription on the invoice';
    ok !exists $invoice->{parent}, 'which has no parent';
    is_deeply [@$invoice{qw(paid payment_intent charge)}], [1, $charge->{payment_intent}, $charge->{id}], 'and how it was paid';
    is $invoice->{lines}{data}[0]{price}{id}, 'price_pro_monthly', 'the price on its line';
    ok !grep({ exists $invoice->{lines}{data}[0]{$_} } qw(pricing parent)), 'not elsewhere';
    is_deeply [@{$invoice->{lines}{data}[0]}{qw(subscription proration type)}], [$id, 0, 'subscription'], 'and what it is for';
    is $charge->{invoice}, $invoice->{id}, 'the invoice on the charge';
    my %new = map { $_->{event}{type} => $_->{event}{data}{object} } grep { $_->{event}{type} } $receiver->all;
    is $new{'invoice.paid'}{parent}{subscription_details}{subscription}, $id, 'the other endpoint hears it the new way';
    is $new{'invoice.paid'}{subscription}, undef, 'with the old field null';
    ok !exists $new{'charge.succeeded'}{invoice}, 'and a charge knows no invoice';
    $invoices->stop;
    $stripe->remove_webhook($old->{id});
    $receiver->forget;
    customer();
    $stripe->wait_delivered(endpoint => $endpoint->{id});
    is scalar $receiver->all, 1, 'an endpoint that is gone hears nothing, the other goes on';
};

subtest 'the list of events' => sub {
    my $list = sub (%params) { $stripe->api(GET => '/v1/events', \%params)->json };
    my @all = $stripe->events;
    is $list->(limit => 1)->{data}[0]{id}, $all[-1]{id}, 'newest first';
    ok !grep({ $_->{type} ne 'customer.created' } $list->(type => 'customer.created')->{data}->@*), 'of one type';
    my %types = map { $_->{type} => 1 } $list->(types => ['customer.created', 'invoice.*'], limit => 100)->{data}->@*;
    ok $types{'customer.created'} && $types{'invoice.paid'} && !grep({ !/^(?:customer\.created|invoice\..+)$/ } keys %types),
        'of several, or of a kind';
    is $stripe->api(GET => "/v1/events/$all[0]{id}")->json->{type}, $all[0]{type}, 'one by its id';
    my $page = $list->(limit => 3);
    is $list->(limit => 3, starting_after => $page->{data}[2]{id})->{data}[0]{id}, $all[-4]{id}, 'by pages';
    is scalar $list->('created[gte]' => $stripe->now + 1)->{data}->@*, 0, 'by date';
    $stripe->advance(31 * 86400);
    ok !grep({ $_->{id} eq $all[0]{id} } $list->(limit => 100)->{data}->@*), 'for thirty days';
    is $stripe->api(GET => "/v1/events/$all[0]{id}")->status, 404, 'no longer';
};

is $stripe->log_text, '', 'the stand-in had nothing to complain about';
done_testing;
