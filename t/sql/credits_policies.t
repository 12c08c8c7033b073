# Promise (W6, W7, W8): what a change of plan, an end and a renewal do to credits is what the catalog's policies say, on every host alike:
# keep_used, reset, prorate; free_realloc; rollover; and a yearly price brings each month's credits once. Examples by hand.
use strict;
use warnings;
use JSON::PP;
use Test::More;
use FindBin qw($Bin);
require "$Bin/stripe_world.pl";

my $w = StripeWorld->new;
my ($T0, $DAY) = (StripeWorld::t0(), StripeWorld::day());
my ($sub, $true) = ({ kind => 'subscription' }, JSON::PP::true);
sub su { my ($id, $plan, %o) = @_; return StripeWorld::sub_of("sub_$id", $o{status} // 'active', $plan, %o) }
sub over { my ($id, $plan, $at, %o) = @_; return su($id, $plan, status => 'canceled', ended_at => $T0 + $at * $DAY, %o) }
sub renewal {
    my ($id, $plan, $from, $to, %o) = @_;
    return { kind => 'invoice_paid', invoice => "in_${id}_$from", subscription => "sub_$id", billing_reason => 'subscription_cycle',
        price => "price_$plan", period_start => $T0 + $from * $DAY, period_end => $T0 + $to * $DAY, amount => 1, currency => 'usd', attempt => 1, %o };
}
sub both { return join ' ', $w->credits($_[0]), $w->credits($_[0], 'video') }
# One event on a day.
sub on { my ($day, $name, $effect, @subs) = @_; return $w->event($name, $effect, \@subs, at => $T0 + $day * $DAY) }
sub changes_to { my ($name, $day, $plan, %o) = @_; return on($day, $name, $sub, su($name, $plan, %o)) }
my $renewed = { start => $T0 + 30 * $DAY };

# The catalog.
ok $w->policies(credits => 'reset')->{changed}, 'S8: a policy is part of the catalog';
ok !$w->policies(credits => 'reset')->{changed}, 'which is applied once';
ok $w->policies(rollover => ['pro'])->{changed}, "so is a plan's rollover";
is $w->value('SELECT credits_policy || free_realloc FROM billing.meta'), 'keep_usedfalse', 'what is left out is the default';
for my $wrong ({ credits => 'keep' }, { credits => 1 }, { free_realloc => 'maybe' }) {
    ok !eval { $w->policies(%$wrong) }, 'what is none is refused: ' . join ' ', %$wrong;
}
ok $w->policies()->{changed}, 'back to the defaults';

# reset: each change of plan allocates anew.
$w->policies(credits => 'reset');
$w->account('r');
$w->spend('r', 3);
changes_to('r', 0, 'starter');
is both('r'), '20/0/0 none', 'W6: reset: a subscription begins with the whole allocation';
$w->event('r', StripeWorld::pack_of('r'));
$w->spend('r', 12);
changes_to('r', 3, 'pro');
is both('r'), '60/0/10 10/0/0', 'an upgrade too, and what was bought stays';
changes_to('r', 3, 'pro') for 1 .. 2;
is both('r'), '60/0/10 10/0/0', 'once';
$w->spend('r', 60);
changes_to('r', 4, 'starter');
is both('r'), '20/0/0 0/0/0', 'a downgrade lowers at once, never below nothing; a type that the plan does not have ends';
changes_to('r', 5, 'pro');
is both('r'), '50/0/0 10/0/0', 'and back: again the whole, for the bound is waived';
changes_to('r', 30, 'starter', %$renewed);
is both('r'), '50/0/0 10/0/0', "a change with a renewal waits for it to be paid";
on(30, 'r', renewal('r', 'starter', 30, 60), su('r', 'starter', %$renewed));
is both('r'), '20/0/0 0/0/0', 'and comes with its refill';
$w->spend('r', 20);
changes_to('r', 31, 'starter', %$renewed);
is both('r'), '0/20/0 0/0/0', 'which is no change any more';
is $w->value(q{SELECT sum(quantity - coalesce((metadata ->> 'lapsed')::bigint, 0)) FROM billing.credit_ledger l JOIN billing.accounts a
    ON a.id = account_id WHERE external_id = 'r' AND idem_key LIKE '%:logo'}), 0 + 3 + 12 + 60 + 20, 'the ledger sums up to what was spent';

# Overage belongs to the period that it was taken in: a new one begins without, and the ledger keeps what it was.
sub overage { return $w->value(q{SELECT b.overage || ' ' || coalesce((SELECT sum((metadata ->> 'overage')::bigint) FROM billing.credit_ledger l
    WHERE l.account_id = b.account_id AND l.credit_no = b.credit_no), 0) FROM billing.credit_balances b JOIN billing.accounts a ON a.id = b.account_id
    JOIN billing.credit_types USING (credit_no) WHERE external_id = $1 AND credit_key = 'logo'}, $_[0]) }
sub over_by { my ($name, $units) = @_; $w->d->do(q{UPDATE billing.credit_balances SET overage = $1 WHERE account_id =
    (SELECT id FROM billing.accounts WHERE external_id = $2) AND credit_no = (SELECT credit_no FROM billing.credit_types WHERE credit_key = 'logo')}, undef, $units, $name) }
$w->account('v');
changes_to('v', 0, 'starter');
over_by('v', 7);
changes_to('v', 1, 'pro');
is overage('v'), '0 7', 'a reset';
over_by('v', 2);
on(30, 'v', renewal('v', 'pro', 30, 60), su('v', 'pro', %$renewed));
is overage('v'), '0 9', 'a renewal';
$w->policies();
over_by('v', 3);
on(60, 'v', $sub, over('v', 'pro', 60, %$renewed));
is overage('v'), '0 12', 'the end of the last period';
$w->account('x');
changes_to('x', 0, 'starter');
over_by('x', 4);
on(60, 'x', $sub, over('x', 'starter', 40), su('x2', 'starter', start => $T0 + 60 * $DAY));
is overage('x'), '0 4', 'another subscription after it';

# prorate: the difference for the rest of the period.
$w->policies(credits => 'prorate');
$w->account('p');
changes_to('p', 0, 'starter');
is both('p'), '20/0/0 none', 'W6: prorate: the first period whole';
$w->spend('p', 5);
changes_to('p', 15, 'pro');
is both('p'), '30/5/0 5/0/0', 'an upgrade in the middle: half of the difference, of a new type half of it';
changes_to('p', 15, 'pro') for 1 .. 2;
is both('p'), '30/5/0 5/0/0', 'once';
changes_to('p', 20, 'starter');
is both('p'), '20/5/0 1/0/0', 'a downgrade takes a third of it, rounded up (10 of 30, 4 of 10)';
changes_to('p', 20, 'pro');
is both('p'), '30/5/0 4/0/0', 'and back, rounded down';
$w->spend('p', 30);
changes_to('p', 20, 'starter');
is both('p'), '0/35/0 0/0/0', 'what is spent cannot be taken';
changes_to('p', 20, 'pro');
is both('p'), '0/35/0 3/0/0', 'but is not given again either';
changes_to('p', 29, 'agency');
is both('p'), '5/35/0 4/0/0', 'a better plan gives the rest of its period (a thirtieth of 150 and of 40)';
changes_to('p', 30, 'starter', %$renewed);
on(30, 'p', renewal('p', 'starter', 30, 60), su('p', 'starter', %$renewed));
is both('p'), '20/0/0 0/0/0', 'a renewal begins anew';
$w->account('p2');
changes_to('p2', 0, 'pro');
$w->event('p2', StripeWorld::pack_of('p2'));
$w->spend('p2', 50);
changes_to('p2', 3, 'starter');
is $w->credits('p2'), '10/50/10', 'never of what was bought';
on(4, 'p2', $sub, over('p2', 'starter', 4), su('p2b', 'starter', start => $T0 + 4 * $DAY));
on(5, 'p2', $sub, over('p2', 'starter', 4), su('p2b', 'pro', start => $T0 + 4 * $DAY));
is $w->credits('p2'), '10/50/10', 'nor is it given again to another subscription in the same period';

# free_realloc: the end of the last subscription.
$w->policies(free_realloc => $true);
$w->account('f');
$w->spend('f', 4);
changes_to('f', 0, 'starter');
$w->spend('f', 16);
on(30, 'f', $sub, over('f', 'starter', 30));
is both('f'), '4/0/0 none', 'W7: free_realloc: all of the free plan again, though it was used';
$w->account('g');
$w->spend('g', 3);
changes_to('g', 0, 'pro');
$w->spend('g', 47);
on(10, 'g', $sub, over('g', 'pro', 10));
is both('g'), '4/50/0 0/0/0', 'also within the period';
on(11, 'g', $sub, over('g', 'pro', 10), su('g2', 'pro', start => $T0 + 11 * $DAY));
is both('g'), '4/50/0 10/0/0', "which does not bring the period's credits again";
$w->policies();
$w->account('h');
$w->spend('h', 3);
changes_to('h', 0, 'starter');
on(30, 'h', $sub, over('h', 'starter', 30));
is both('h'), '1/3/0 none', 'off: what is left of them (W7)';

# rollover: a renewal on top of what is left.
$w->policies(rollover => ['pro']);
for my $order ('in order', 'the other way round') {
    my $name = $order =~ /in/ ? 'o' : 'q';
    $w->account($name);
    changes_to($name, 0, 'pro');
    $w->spend($name, 20);
    my @renewals = ([30, 60], [60, 90]);
    for my $r ($order =~ /in/ ? @renewals : reverse @renewals) {
        on($r->[0], $name, renewal($name, 'pro', @$r), su($name, 'pro', start => $T0 + 60 * $DAY)) for 1 .. 2;
    }
    is both($name), '130/0/0 30/0/0', "W8: rollover: what is left stays, two renewals $order bring two allocations";
    on(61, $name, { %{ renewal($name, 'pro', 60, 90) }, invoice => "in_${name}_again" }, su($name, 'pro', start => $T0 + 60 * $DAY));
    on(61, $name, { %{ renewal($name, 'pro', 30, 60) }, invoice => "in_${name}_more" }, su($name, 'pro', start => $T0 + 60 * $DAY));
    is both($name), '130/0/0 30/0/0', 'each period once';
    on(90, $name, renewal($name, 'starter', 90, 120), su($name, 'starter', start => $T0 + 90 * $DAY));
    is both($name), '20/0/0 0/0/0', 'a plan without it ends it';
}

# A yearly price: its months.
$w->policies();
my $year = 365;
sub yearly { my ($name, %o) = @_; my $from = $o{from} // 0; return su($name, 'pro_year', start => $T0 + $from * $DAY, end => $T0 + ($from + $year) * $DAY, %o) }
sub month { my ($day) = @_; return $w->value('SELECT billing.credits_months(100, to_timestamp($1))', $T0 + $day * $DAY) }
sub filled { return $w->value(q{SELECT count(*) FROM billing.credit_ledger l JOIN billing.accounts a ON a.id = account_id
    WHERE external_id = $1 AND action = 'refill' AND idem_key LIKE '%:logo'}, $_[0]) }
sub ends { return $w->value(q{SELECT (billing.unix(b.period_end) - $2) / 86400 FROM billing.credit_balances b
    JOIN billing.accounts a ON a.id = b.account_id JOIN billing.credit_types USING (credit_no) WHERE external_id = $1 AND credit_key = 'logo'}, $_[0], $T0) }
$w->account('y');
on(0, 'y', $sub, yearly('y'));
is both('y'), '50/0/0 10/0/0', 'a yearly price: the first month';
$w->spend('y', 40);
is month(30), 0, 'nothing before the month is over';
is month(31), 1, 'T0 is 15 January: a month later';
is both('y'), '50/0/0 10/0/0', 'W8: the credits of the next month';
is month(31), 0, 'once';
$w->spend('y', 30);
on(40, 'y', $sub, yearly('y'));
is both('y'), '20/30/0 10/0/0', 'no event brings them again';
on(59, 'y', $sub, yearly('y'));
is both('y'), '50/0/0 10/0/0', 'an event of the month brings them as well';
is month(200), 1, 'months that nobody looked at';
is filled('y'), 6, 'are told one by one, ';
is both('y'), '50/0/0 10/0/0', 'and lapse';
is $w->value(q{SELECT string_agg(to_char(to_timestamp((metadata ->> 'period')::bigint) AT TIME ZONE 'UTC', 'DD'), ' ' ORDER BY l.id) FROM billing.credit_ledger l
    JOIN billing.accounts a ON a.id = account_id WHERE external_id = 'y' AND action = 'refill' AND idem_key LIKE '%:logo'}), '15 15 15 15 15 15', "on the anchor's day";
is month(400), 1, 'to the end of the year';
is filled('y'), 11, 'eleven beside the first';
is month(4000), 0, 'and not beyond';
on(365, 'y', $sub, yearly('y', from => 365));
is filled('y'), 11, 'the first month of the next year must be paid';
on(365, 'y', renewal('y', 'pro_year', 365, 730), yearly('y', from => 365));
is filled('y'), 12, 'then it comes with its invoice';
is month(365 + 31), 1, 'and those after it';
on(365 + 31, 'y', { %{ renewal('y', 'pro_year', 365, 730) }, kind => 'invoice_failed', invoice => 'in_y_extra', billing_reason => 'subscription_update' },
    yearly('y', from => 365, status => 'past_due'));
is month(365 + 60), 1, 'while it owes something else, within its grace';
on(365 + 61, 'y', $sub, yearly('y', from => 365, status => 'unpaid'));
is month(365 + 100), 0, 'not when it gives no access';
on(365 + 100, 'y', $sub, yearly('y', from => 365, status => 'canceled', ended_at => $T0 + 465 * $DAY));
is month(365 + 200), 0, 'nor when it is over';
is both('y'), '4/0/0 0/0/0', 'W7: what is left of the free ones';

$w->account('z');
on(0, 'z', $sub, su('z', 'pro'));
$w->spend('z', 50);
on(15, 'z', $sub, yearly('z', from => 15));
is both('z'), '0/50/0 10/0/0', 'a month that becomes a year brings nothing by itself';
is month(31), 0, 'not before a month of the year begins';
is month(15 + 31), 1, 'after the one that was running';
is both('z'), '50/0/0 10/0/0', 'then it does';
on(50, 'z', $sub, su('z', 'pro', start => $T0 + 50 * $DAY));
is month(300), 0, 'and back to months: each must be paid';

$w->account('c');
on(0, 'c', $sub, yearly('c', cancel_at => $T0 + 70 * $DAY));
is month(60), 1, 'a pending cancellation: until then';
is month(90), 0, 'and no longer';
$w->account('t');
on(0, 't', $sub, su('t', 'pro_year', status => 'trialing', end => $T0 + 60 * $DAY, trial_end => $T0 + 60 * $DAY));
is month(45), 0, 'a trial has one allocation';
is ends('t'), 60, 'for all of it';
on(60, 't', renewal('t', 'pro_year', 60, 425), yearly('t', from => 60));
is filled('t'), 1, 'and paying one';
$w->account('u');
on(0, 'u', $sub, su('u', 'pro', status => 'trialing', end => $T0 + 60 * $DAY, trial_end => $T0 + 60 * $DAY));
on(10, 'u', $sub, yearly('u', from => 10));
is month(65), 0, 'a longer period than a month is over as well before';
is month(10 + 62), 1, 'the next month that begins';
$w->account('i');
on(100, 'i', $sub, yearly('i'));
is ends('i'), 120, 'one that is first seen in its year has the month that it is in';
is filled('i'), 0, 'and none that are gone';
$w->policies(rollover => ['pro']);
month(121);
is both('i'), '100/0/0 20/0/0', 'with rollover months add up';
$w->account('n');
$w->account('m');
on(0, $_, $sub, yearly($_)) for qw(n m);
$w->d->do(q{UPDATE billing.credit_balances SET remaining = 9223372036854775800 WHERE account_id = (SELECT id FROM billing.accounts WHERE external_id = 'n')
    AND credit_no = (SELECT credit_no FROM billing.credit_types WHERE credit_key = 'logo')});
is month(31), 1, 'I1: what is wrong with one';
is both('m'), '100/0/0 20/0/0', 'does not hold up another';
is $w->value(q{SELECT count(*) FROM billing.outbox WHERE topic = 'alarm' AND payload ->> 'alarm' = 'credits' AND account_id =
    (SELECT id FROM billing.accounts WHERE external_id = 'n')}), 1, 'and is told';
month(31);
is $w->value(q{SELECT count(*) FROM billing.outbox WHERE topic = 'alarm' AND payload ->> 'alarm' = 'credits'}), 1, 'once';
my %anchors = (j => [('2027-01-31 08:00Z') x 2], k => [('2028-02-29 08:00Z') x 2], l => ['2028-02-29 08:00Z', '2029-02-28 08:00Z']);
for my $name (sort keys %anchors) {
    my ($anchor, $start, $end) = map { $w->value(q{SELECT billing.unix($1::timestamptz + make_interval(years => $2))}, @$_) }
        [$anchors{$name}[0], 0], [$anchors{$name}[1], 0], [$anchors{$name}[1], 1];
    $w->account($name);
    $w->event($name, $sub, [{ %{ su($name, 'pro_year', start => $start, end => $end) }, anchor => $anchor }], at => $start);
    $w->value('SELECT billing.credits_months(100, to_timestamp($1))', $end);
    is $w->value(q{SELECT string_agg(to_char(to_timestamp((metadata ->> 'period')::bigint) AT TIME ZONE 'UTC', 'MMDD'), ' ' ORDER BY l.id) FROM billing.credit_ledger l
        JOIN billing.accounts a ON a.id = account_id WHERE external_id = $1 AND action = 'refill' AND idem_key LIKE '%:logo'}, $name),
        $name eq 'j' ? '0228 0331 0430 0531 0630 0731 0831 0930 1031 1130 1231' : '0329 0429 0529 0629 0729 0829 0929 1029 1129 1229 0129',
        "from the anchor's day or the last one that the month has: @{ $anchors{$name} }";
}
done_testing;
