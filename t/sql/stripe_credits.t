# Promise (W5, W7, W8): credits follow the plan; each allocation, refill and pack is given once. (Sequences by chance: credits_bound.t;
# other policies than the default: credits_policies.t.)
use strict;
use warnings;
use JSON::PP;
use Test::More;
use FindBin qw($Bin);
require "$Bin/stripe_world.pl";

my $w = StripeWorld->new;
my ($T0, $DAY) = (StripeWorld::t0(), StripeWorld::day());
my $sub = { kind => 'subscription' };
sub su { my ($id, $plan, %o) = @_; return StripeWorld::sub_of("sub_$id", $o{status} // 'active', $plan, %o) }
sub over { my ($id, $plan, $at, %o) = @_; return su($id, $plan, status => 'canceled', ended_at => $T0 + $at * $DAY, %o) }
sub invoice {
    my ($id, $reason, $plan, $start, $invoice) = @_;
    return { kind => 'invoice_paid', invoice => $invoice // "in_${id}_$start", subscription => "sub_$id", billing_reason => $reason, price => "price_$plan",
        period_start => $T0 + $start * $DAY, period_end => $T0 + ($start + 30) * $DAY, amount => 1, currency => 'usd', attempt => 1 };
}
sub pack_ { my ($session, %o) = @_; return { kind => 'checkout_completed', session => "cs_$session", mode => 'payment', payment_status => 'paid',
    payment_intent => "pi_$session", price => 'price_pack', %o } }
sub ledger { return join ' ', map { "$_->{action}:$_->{quantity}:$_->{balance_after}" } @{ $w->rows(q{SELECT l.* FROM billing.credit_ledger l
    JOIN billing.accounts a ON a.id = account_id JOIN billing.credit_types USING (credit_no)
    WHERE external_id = $1 AND credit_key = 'logo' ORDER BY l.id}, $_[0]) } }

# The first allocation: one, whichever of the three comes first.
my %first = (
    checkout => [{ kind => 'checkout_completed', session => 'cs_f', mode => 'subscription', payment_status => 'paid' }],
    created  => [$sub],
    invoice  => [invoice('f', 'subscription_create', 'pro', 0)],
);
my $n = 0;
for my $order (['checkout', 'created', 'invoice'], ['created', 'invoice', 'checkout'], ['invoice', 'checkout', 'created']) {
    my $name = 'f' . ++$n;
    $w->account($name);
    for my $what (@$order) {
        my $e = { %{ $first{$what}[0] } };
        $_ and s/_f/_$name/ for @$e{qw(session subscription invoice)};
        $w->event($name, $e, [su($name, 'pro')]);
        is $w->credits($name), '50/0/0', "$what: the plan's credits";
    }
    is ledger($name), 'allocate:4:4 allocate:46:50', "@$order: one allocation, up from the free plan's";
    is $w->credits($name, 'video'), '10/0/0', 'each type';
}
$w->account('u');
$w->event('u', { %{ $first{checkout}[0] }, session => 'cs_u', payment_status => 'unpaid' }, [su('u', 'pro', status => 'incomplete')]);
is $w->credits('u'), '4/0/0', 'not before it is paid';

# Up, down, away and back.
$w->account('a');
$w->spend('a', 3);
$w->event('a', $sub, [su('a', 'starter')]);
is $w->credits('a'), '17/3/0', 'what was used carries over';
$w->spend('a', 10);
$w->event('a', $sub, [su('a', 'pro')]);
is $w->credits('a'), '37/13/0', 'an upgrade: the new allocation less what was used';
$w->event('a', $sub, [su('a', $_)]) for qw(starter pro starter pro starter);
is $w->credits('a'), '37/13/0', 'a downgrade lowers nothing within the period, and going back and forth brings nothing';
$w->event('a', invoice('a', 'subscription_cycle', 'starter', 30), [su('a', 'starter', start => $T0 + 30 * $DAY)]);
is $w->credits('a'), '20/0/0', 'the renewal brings the allocation of the lower plan';
is $w->credits('a', 'video'), '0/0/0', 'a type that it does not have ends';
$w->spend('a', 20);
$w->event('a', $sub, [over('a', 'starter', 60, start => $T0 + 30 * $DAY)]);
is $w->credits('a'), '1/3/0', "the period's end: what was left of the one-time allocation";
is ledger('a'), 'allocate:4:4 allocate:16:17 allocate:30:37 refill:20:20 adjust:1:1', 'the ledger tells it';
$w->event('a', $sub, [su('a2', 'pro', start => $T0 + 70 * $DAY)]);
is $w->credits('a'), '47/3/0', 'a new subscription later: its allocation less what was used of the one-time one';
$w->event('a', $sub, [over('a2', 'pro', 75, start => $T0 + 70 * $DAY)]);
is $w->credits('a'), '1/3/0', 'canceled within the period: again what is left of the one-time allocation';
$w->event('a', $sub, [su('a3', 'starter', start => $T0 + 80 * $DAY)]);
is $w->credits('a'), '47/3/0', 'back within the period: on where it was';
$w->spend('a', 47);
$w->event('a', $sub, [over('a3', 'starter', 81, start => $T0 + 80 * $DAY)]);
is $w->credits('a'), '0/50/0', 'used up and canceled: nothing, for the period is used up';
$w->event('a', $sub, [su('a4', 'pro', start => $T0 + 90 * $DAY)]);
is $w->credits('a'), '0/50/0', 'and coming back within it brings nothing';
$w->event('a', $sub, [over('a4', 'pro', 95, start => $T0 + 90 * $DAY)]);
$w->event('a', $sub, [su('a5', 'pro', start => $T0 + 130 * $DAY)]);
is $w->credits('a'), '50/0/0', 'but after it, everything';

# A late event of an account whose subscription has ended.
$w->account('l');
$w->event('l', $sub, [su('l', 'pro')]);
$w->event('l', $sub, [over('l', 'pro', 30)]);
$w->event('l', invoice('l', 'subscription_cycle', 'pro', 30), [over('l', 'pro', 30)]);
is $w->credits('l'), '4/0/0', 'a renewal of what is over refills nothing';
$w->account('l2');
$w->event('l2', $sub, [su('l2', 'starter')]);
$w->event('l2', $sub, [su('l2', 'starter', start => $T0 + 30 * $DAY)]);
is $w->credits('l2'), '20/0/0', 'a new period alone gives nothing: it must be paid';
$w->event('l2', $sub, [su('l2', 'agency', start => $T0 + 30 * $DAY)]);
is $w->credits('l2'), '20/0/0', 'W8: nor does a better plan that begins with it';
$w->event('l2', $sub, [su('l2', 'starter', start => $T0 + 30 * $DAY)]);
$w->event('l2', invoice('l2', 'subscription_cycle', 'pro', 30), [su('l2', 'starter', start => $T0 + 30 * $DAY)]);
is $w->credits('l2'), '50/0/0', 'a late renewal at the plan before a downgrade gives what a timely one had given';
$w->event('l2', invoice('other', 'subscription_cycle', 'pro', 60), [su('l2', 'starter', start => $T0 + 30 * $DAY), over('other', 'pro', 40)]);
is $w->credits('l2'), '50/0/0', 'a renewal of another subscription than the one in force gives nothing';

# A change that a schedule makes at the end of the period: what Stripe shows is taken when it happens.
$w->account('s');
$w->event('s', $sub, [su('s', 'pro')]);
$w->spend('s', 10);
$w->event('s', $sub, [{ %{ su('s', 'pro') }, schedule => 'sub_sched_1' }]);
is $w->state_of('s') . ' ' . $w->credits('s'), 'pro active none from=0 to=30 40/10/0', 'W6: a downgrade that is to come changes nothing';
$w->event('s', $sub, [su('s', 'starter', start => $T0 + 30 * $DAY)]);
is $w->state_of('s') . ' ' . $w->credits('s'), 'starter active none from=30 to=60 40/10/0', 'it comes with the period, the credits when that is paid';
$w->event('s', invoice('s', 'subscription_cycle', 'starter', 30), [su('s', 'starter', start => $T0 + 30 * $DAY)]);
is $w->credits('s'), '20/0/0', 'then those of the lower plan';
$w->event('s', $sub, [su('s', 'agency', start => $T0 + 60 * $DAY)]);
is $w->credits('s') . ' ' . $w->credits('s', 'video'), '20/0/0 0/0/0', 'W8: an upgrade with the period must be paid as well';
$w->event('s', invoice('s', 'subscription_cycle', 'agency', 60), [su('s', 'agency', start => $T0 + 60 * $DAY)]);
is $w->credits('s') . ' ' . $w->credits('s', 'video'), '200/0/0 50/0/0', 'and then brings all';

# Packs.
$w->account('p');
$w->event('p', pack_('p1'));
is $w->credits('p'), '14/0/10', 'a pack';
$w->event('p', pack_('p1')) for 1 .. 2;
is $w->credits('p'), '14/0/10', 'once for its checkout';
$w->event('p', pack_('p2', payment_status => 'unpaid'));
is $w->credits('p'), '14/0/10', 'not before it is paid';
$w->event('p', pack_('p2'));
is $w->credits('p'), '24/0/20', 'but then';
$w->event('p', pack_('p3', price => 'price_gold'));
is $w->credits('p'), '24/0/20', 'a price that is no pack gives nothing';
is $w->value(q{SELECT count(*) FROM billing.outbox WHERE payload ->> 'session' = 'cs_p3' AND topic = 'alarm'}), 1, 'and raises an alarm';
$w->d->do(q{SELECT * FROM billing.checkout_begin('p', 'price_pack')});
my $intent = $w->value(q{SELECT intent FROM billing.checkout_begin('p', 'price_pack')});
$w->d->do(q{SELECT billing.checkout_opened('p', $1, 'cs_p4', 'u', NULL)}, undef, $intent);
$w->event('p', pack_('p4', price => 'price_gold', quantity => 1));
is $w->credits('p'), '34/0/30', 'a session of ours names its price itself';
is $w->value(q{SELECT metadata ->> 'payment_intent' FROM billing.credit_ledger WHERE idem_key = 'pack:cs_p4:logo'}), 'pi_p4', 'with its payment';
$w->event('p', $sub, [su('p', 'pro')]);
is $w->credits('p'), '80/0/30', 'packs come on top of a plan';
$w->spend('p', 60);
is $w->credits('p'), '20/60/20', 'and are spent last';
$w->event('p', invoice('p', 'subscription_cycle', 'pro', 30), [su('p', 'pro', start => $T0 + 30 * $DAY)]);
is $w->credits('p'), '70/0/20', 'they survive a renewal';
$w->event('p', $sub, [over('p', 'pro', 60, start => $T0 + 30 * $DAY)]);
is $w->credits('p'), '24/0/20', 'and the end';

# Items with periods of their own: only the plan's renews the plan's credits.
$w->account('i');
$w->event('i', $sub, [su('i', 'pro')]);
$w->event('i', { %{ invoice('i', 'subscription_cycle', 'addon', 40) }, invoice => 'in_i_usage' }, [su('i', 'pro')]);
unlike ledger('i'), qr/refill/, 'W8: the invoice of another item refills nothing';
is $w->value(q{SELECT count(period_end) FROM billing.invoices WHERE invoice_id = 'in_i_usage'}), 0, 'and says nothing of the period';
my %both = (%{ invoice('i', 'subscription_cycle', 'addon', 30) }, invoice => 'in_i_both', lines => [
    { price => 'price_addon', period_start => $T0 + 30 * $DAY, period_end => $T0 + 395 * $DAY },
    { price => 'price_pro', period_start => $T0 + 30 * $DAY, period_end => $T0 + 60 * $DAY }]);
$w->event('i', \%both, [su('i', 'pro', start => $T0 + 30 * $DAY)]);
like ledger('i'), qr/^[^r]*refill:50:50$/, "W8: the plan's item beside a yearly one refills, once";
is $w->value(q{SELECT billing.unix(period_end) FROM billing.invoices WHERE invoice_id = 'in_i_both'}), $T0 + 60 * $DAY, "with the plan's period";
done_testing;
