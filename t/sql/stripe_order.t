# Promise (W4, W10, A32): events may come in any order, twice, and with looks at Stripe that overtake each other: the end is the same, for
# what is subscribed, bought, refunded, disputed and paused.
use strict;
use warnings;
use JSON::PP;
use POSIX ();
use Test::More;
use FindBin qw($Bin);
require "$Bin/stripe_world.pl";

my $w = StripeWorld->new;
my ($T0, $DAY) = (StripeWorld::t0(), StripeWorld::day());
my $json = JSON::PP->new->canonical;

# One life, as Stripe tells it: what each event says, and how Stripe's list stands once it has happened. The one thing that
# may be assumed: an event is delivered after it happened, so a look that it causes sees at least that state. An effect that is
# code says what is seen once so many events have happened.
my %lives = (subscription => \&subscription_life, money => \&money_life);
sub subscription_life {
    my ($n, $last) = @_;
    my $sub = sub { my ($status, %o) = @_; StripeWorld::sub_of("sub_$n", $status, 'pro', %o) };
    my @life = (
        [{ kind => 'checkout_completed', session => "cs_$n", mode => 'subscription', payment_status => 'paid', price => 'price_pro' },
            $sub->('active'), 0],
        [{ kind => 'subscription' }, $sub->('active'), 0],
        [{ kind => 'invoice_paid', invoice => "in_${n}_1", billing_reason => 'subscription_create', subscription => "sub_$n",
            price => 'price_pro', period_start => $T0, period_end => $T0 + 30 * $DAY, amount => 7900, currency => 'usd', attempt => 1 }, $sub->('active'), 0],
        [{ kind => 'subscription' }, $sub->('active', cancel_at => $T0 + 60 * $DAY), 10],
        [{ kind => 'invoice_failed', invoice => "in_${n}_2", billing_reason => 'subscription_cycle', subscription => "sub_$n",
            price => 'price_pro', period_start => $T0 + 30 * $DAY, amount => 7900, currency => 'usd', attempt => 1,
            policy => 'maintenance', grace_seconds => 7 * $DAY },
            $sub->('past_due', start => $T0 + 30 * $DAY, created => $T0, cancel_at => $T0 + 60 * $DAY), 30],
        [{ kind => 'subscription' }, $sub->('canceled', start => $T0 + 30 * $DAY, created => $T0, ended_at => $T0 + 60 * $DAY), 60],
    );
    return @life[0 .. $last];
}
sub money_life {
    my ($n, $last) = @_;
    my $sub = sub { my (%o) = @_; StripeWorld::sub_of("sub_$n", 'active', 'pro', %o) };
    my $charge = sub { StripeWorld::charge_of($n, [[1, 250], $_[0] >= 5 ? [2, 250, 'failed'] : [2, 250]]) };
    my $dispute = sub { StripeWorld::dispute_of($n, $_[0] >= 4 ? 'lost' : 'needs_response', policy => 'maintenance', amount => 500) };
    return (
        [StripeWorld::pack_of($n), undef, 0],
        [{ kind => 'invoice_paid', invoice => "in_${n}_1", billing_reason => 'subscription_create', subscription => "sub_$n",
            price => 'price_pro', period_start => $T0, period_end => $T0 + 30 * $DAY, amount => 7900, currency => 'usd' }, $sub->(), 0],    # in the same second
        [$charge, $sub->(), 5],
        [$dispute, $sub->(pause => 'void'), 10],
        [$dispute, $sub->(pause => 'void', start => $T0 + 30 * $DAY, created => $T0), 20],
        [$charge, $sub->(pause => 'void', start => $T0 + 30 * $DAY, created => $T0), 20],
    )[0 .. $last];
}
sub permutations { my ($head, @rest) = @_; return [] if !defined $head;
    return map { my $p = $_; map { [@$p[0 .. $_ - 1], $head, @$p[$_ .. $#$p]] } 0 .. @$p } permutations(@rest) }

# Delivers many lives in one statement each: a look and an application to each event, as the jobs do it.
$w->d->do(<<'SQL');
CREATE FUNCTION public.deliver(p_name text, p_steps jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_account bigint;
    v_ticket bigint;
    s jsonb;
BEGIN
    PERFORM billing.ensure_accounts(ARRAY[p_name]);
    PERFORM billing.customer_link(p_name, 'cus_' || p_name);
    SELECT id INTO v_account FROM billing.accounts WHERE external_id = p_name;
    -- tickets first, where a test wants them older than what they are applied with
    UPDATE billing.accounts SET fetch_seq = 100 WHERE id = v_account;
    FOR s IN SELECT jsonb_array_elements(p_steps) LOOP
        PERFORM billing.stripe_event_store('', s ->> 'event', 'test', NULL, false, (s ->> 'at')::bigint, 'cus_' || p_name, '{}', NULL);
        UPDATE billing.webhook_events SET status = 'processing', attempts = attempts + 1 WHERE event_id = s ->> 'event';
        v_ticket := coalesce((s ->> 'ticket')::bigint, (SELECT ticket FROM billing.customer_ticket('cus_' || p_name, NULL)));
        PERFORM billing.stripe_apply('', s ->> 'event', (SELECT attempts FROM billing.webhook_events WHERE event_id = s ->> 'event'),
            v_account, v_ticket, s -> 'list', s -> 'effect');
    END LOOP;
END $$
SQL
my $k = 0;
# The order of events; how far Stripe had come when each look was made; tickets (undef: in this order).
sub deliver {
    my ($life, $last, $order, $looked, $tickets) = @_;
    my $n = ++$k;
    my @life = $lives{$life}->($n, $last);
    $w->d->do('SELECT public.deliver($1, $2)', undef, "p$n", $json->encode([map {
        my $e = $life[$order->[$_]];
        { event => "evt_${n}_$order->[$_]", at => $T0 + $e->[2] * $DAY, effect => ref $e->[0] eq 'CODE' ? $e->[0]->($looked->[$_]) : $e->[0],
          list => [$life[$looked->[$_]][1] // ()], ticket => $tickets ? $tickets->[$_] : undef } } 0 .. $#$order]));
    return $n;
}
# All that is to be the same: the account, its subscription and its credits. How it came about (ledger, audit) may differ.
sub end_of {
    my ($n) = @_;
    my $sub = $w->row(q{SELECT s.status, billing.unix(period_start) AS ps, billing.unix(period_end) AS pe, billing.unix(cancel_at) AS ca,
        billing.unix(ended_at) AS ea, billing.unix(grace_until) AS grace, held, plan_no FROM billing.subscriptions s
        WHERE subscription_id = $1}, "sub_$n");
    my $invoices = $w->value(q{SELECT string_agg(concat_ws(' ', right(invoice_id, 2), billing.unix(first_failed_at), billing.unix(paid_at),
        attempts, settled), '; ' ORDER BY invoice_id) FROM billing.invoices WHERE subscription_id = $1}, "sub_$n");
    my $money = $w->value(q{SELECT string_agg(concat_ws(' ', action, invoice_id), ' ' ORDER BY action, invoice_id) FROM billing.audit_log
        WHERE account_id = (SELECT id FROM billing.accounts WHERE external_id = $1) AND action LIKE 'payment.%'}, "p$n");
    $money =~ s/in_\d+/in/g if $money;
    my $back = $w->row(q{SELECT string_agg(concat_ws(' ', owed, taken, (SELECT string_agg(r.amount || CASE WHEN r.stands THEN '' ELSE '-' END,
        '+' ORDER BY refund_id) FROM billing.refunds r WHERE r.charge_id = c.charge_id), (SELECT string_agg(d.status || d.holds, ' ')
        FROM billing.disputes d WHERE d.charge_id = c.charge_id)), ' ') AS text FROM billing.charges c WHERE charge_id = $1}, "ch_$n")->{text};
    my @credits = map { $_ eq 'none' ? '0/0/0' : $_ } $w->credits("p$n"), $w->credits("p$n", 'video');
    return join ' | ', $w->state_of("p$n"), @credits, $invoices // '', $money // '', $back // '',
        map { "$_=" . ($sub->{$_} // '-') } sort keys %$sub;
}
sub max { my $m = 0; $_ > $m and $m = $_ for @_; return $m }

my %state = (
    money => qr/^pro paused payment from=30 to=60 \| 53\/0\/3 \| 10\/0\/0 \|.*\| 7 7 250\+250- losttrue \|/,
    3 => qr/^pro active none from=0 to=30 cancel=60 \| 50\/0\/0 \| 10\/0\/0 \|/,
    4 => qr/^pro past_due payment grace=37 from=30 to=60 cancel=60 \| 50\/0\/0/,
    5 => qr/^free active none \| 4\/0\/0/,
);
for my $case ([subscription => 5], [subscription => 4], [subscription => 3], [money => 5]) {
    my ($life, $last) = @$case;
    my @events = 0 .. $last;
    my (%end, %late);
    $w->d->do('SET synchronous_commit = off');
    for my $order (permutations(@events)) {
        # Each look sees as much as must have happened by then.
        my @looked = map { my $i = $_; max(@$order[0 .. $i]) } 0 .. $#$order;
        push @{ $end{ end_of(deliver($life, $last, $order, \@looked)) } }, "@$order";
    }
    is scalar(keys %end), 1, "$life: all " . (eval join '*', 1 .. $last + 1) . " orders of a life of " . ($last + 1) . ' events end the same'
        or diag explain { map { ($_ => $end{$_}[0] . ' and ' . @{ $end{$_} }) } keys %end };
    my ($same) = keys %end;
    like $same, $state{$life} // $state{$last}, 'as Stripe has it';

    # Looks that overtake each other: tickets are given in one order, applied in another, each with what could be seen at its
    # time. Some events come twice.
    srand $last;
    for my $round (1 .. 80) {
        my @order = sort { rand() <=> 0.5 } @events;
        push @order, $order[int rand @order] for 1 .. 2;
        my %number;
        my @looked = map { my $i = $_; max(@order[0 .. $i]) } 0 .. $#order;
        my @apply = sort { rand() <=> 0.5 } 0 .. $#order;
        push @{ $late{ end_of(deliver($life, $last, [@order[@apply]], [@looked[@apply]], [map { $_ + 1 } @apply])) } }, "@order / @apply";
    }
    is_deeply [map { "$_: $late{$_}[0]" } grep { $_ ne $same } keys %late], [], 'so do looks that overtake each other, and events that come twice';
}

# Between the two: nobody looks back. A stale look skips its list, not its money.
$w->account('m');
my @t = map { $w->ticket('m') } 1 .. 2;
$w->event('m', { kind => 'subscription' }, [StripeWorld::sub_of('sub_m', 'active', 'pro', start => $T0 + 30 * $DAY, created => $T0)], ticket => $t[1]);
$w->spend('m', 20);
my %paid = (kind => 'invoice_paid', invoice => 'in_m', billing_reason => 'subscription_cycle', subscription => 'sub_m', price => 'price_pro',
    period_start => $T0 + 60 * $DAY, period_end => $T0 + 90 * $DAY, amount => 7900, currency => 'usd', attempt => 1);
ok $w->event('m', \%paid, [StripeWorld::sub_of('sub_m', 'past_due', 'starter')], ticket => $t[0])->{stale}, 'a stale look';
is $w->state_of('m'), 'pro active none from=30 to=60', 'its list is skipped';
is $w->credits('m'), '50/0/0', 'its money is not: the renewal refills';
$w->spend('m', 7);
$w->event('m', \%paid, undef);
is $w->credits('m'), '43/7/0', 'once';

# Two looks applied at the same moment: the earlier one waits before it decides, and then knows that it is late.
$w->account('n');
$w->event('n', { kind => 'subscription' }, [StripeWorld::sub_of('sub_n', 'active', 'starter')]);
@t = map { $w->ticket('n') } 1 .. 2;
my $holder = $w->again(5000);
$holder->d->begin_work;
$holder->event('n', { kind => 'subscription' }, [StripeWorld::sub_of('sub_n', 'active', 'pro')], ticket => $t[1]);
pipe my $from, my $to;
my $pid = fork // die;
if (!$pid) {
    print {$to} $w->again(6000)->event('n', { kind => 'subscription' }, [StripeWorld::sub_of('sub_n', 'active', 'agency')],
        ticket => $t[0])->{stale} ? 'stale' : 'applied';
    close $to;
    POSIX::_exit(0);
}
close $to;
$w->wait_for(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'});
$holder->d->commit;
is readline $from, 'stale', 'the earlier look is applied last, and found to be late';
waitpid $pid, 0;
like $w->state_of('n'), qr/^pro/, 'the later one stands';
done_testing;
