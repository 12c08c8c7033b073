# Promise (G15): where the plan allows it, what is left is taken first and only the excess is overage, at the plan's rate, under its cap,
# unless the account has switched it off; each unit of it is charged once.
use strict;
use warnings;
use Billing::Conservation qw(credits_astray);
use FindBin qw($Bin);
use JSON::PP;
use Test::More;
require "$Bin/stripe_world.pl";

my $w = StripeWorld->new;
my ($T0, $DAY) = (StripeWorld::t0(), StripeWorld::day());
my ($yes, $no) = (JSON::PP::true, JSON::PP::false);
my $catalog = StripeWorld::catalog();
sub logos { my ($plan, $overage) = @_; $catalog->{plans}{$plan}{credits}{logo} = { quantity => { pro => 50, agency => 200 }->{$plan}, $overage ? (overage => $overage) : () }; return }
logos(pro => { amount => '40', cap => 100, meter => 'logo_overage' });
logos(agency => { amount => '12.5', always => $yes, meter => 'agency_logos' });
$w->db->apply_catalog($catalog);

sub call { my ($name, @args) = @_; return decode_json($w->value("SELECT billing.$name(" . join(', ', map { "\$$_" } 1 .. @args) . ')', @args)) }
sub set { my ($account, %change) = @_; $w->value('SELECT billing.account_set($1, $2, $3)', $account, encode_json(\%change), 'test'); return }
sub balance { return $w->value(q{SELECT remaining || '/' || used || '/' || overage FROM billing.credit_balances b JOIN billing.accounts a ON a.id = account_id
    JOIN billing.credit_types USING (credit_no) WHERE external_id = $1 AND credit_key = 'logo'}, $_[0]) }
sub subscribe { my ($account, $plan, %o) = @_; return $w->event($account, { kind => 'subscription' }, [StripeWorld::sub_of("sub_$account", $o{status} // 'active', $plan, %o)]) }
sub take { my ($account, $units, $key) = @_; return call('deduct_credits', $account, 'logo', $units, $key) }

# --- the catalog
is_deeply $w->rows(q{SELECT plan_key, overage, overage_amount + 0 AS amount, overage_cap AS cap, overage_meter AS meter, quantity FROM billing.plan_credits
    JOIN billing.plans USING (plan_no) JOIN billing.credit_types USING (credit_no) WHERE credit_key = 'logo' AND rank > 0 ORDER BY rank}),
    [{ plan_key => 'starter', overage => 'none', amount => undef, cap => undef, meter => undef, quantity => 20 },
     { plan_key => 'pro', overage => 'switchable', amount => '40.000000', cap => 100, meter => 'logo_overage', quantity => 50 },
     { plan_key => 'agency', overage => 'always', amount => '12.500000', cap => undef, meter => 'agency_logos', quantity => 200 }], 'G15: of each plan';
is $w->db->apply_catalog($catalog)->{changed}, $no, 'a second apply changes nothing';
ok !eval { $w->db->apply_catalog({ %$catalog, plans => { %{ $catalog->{plans} }, pro => { rank => 2, credits => { logo => { quantity => 1, overage => { amount => 4 } } } } } }); 1 },
    'what is no amount is refused';
like $@, qr/plans\.pro\.credits\.logo\.overage\.amount must be an amount/, 'with its path';

# --- what is left first, then overage
$w->account('p');
subscribe('p', 'pro');
is_deeply call('check_credits', 'p', 'logo', 60), { allowed => $yes, remaining => 50, required => 60, needsUpgrade => $no, overageAllowed => $yes },
    'AC-16: a check of 60 with 50 left on pro';
is_deeply take('p', 60, 'a'), { success => $yes, balance_after => 0, is_overage => $yes, overage_quantity => 10 }, 'G15: 60 with 50 left: 10 are overage';
is balance('p'), '0/50/10', 'G15: what was left is taken first';
is take('p', 91, 'b')->{code}, 'INSUFFICIENT_CREDITS', 'G15: beyond the cap';
is take('p', 90, 'c')->{overage_quantity}, 90, 'G15: up to the cap';
is call('refund_credits', 'p', 'logo', 'a', 20)->{refunded}, 20, 'of a taking partly overage';
is balance('p'), '10/40/90', 'overage goes back first';
set('p', overage_on => $no);
is call('check_credits', 'p', 'logo', 11)->{overageAllowed}, $no, 'C16: switched off';
is take('p', 11, 'd')->{success}, $no, 'C16: refused';
is take('p', 10, 'e')->{success}, $yes, 'what is left is not concerned';
set('p', overage_on => $yes);
is take('p', 10, 'f')->{overage_quantity}, 10, 'C16: and on again';
$w->account('s');
subscribe('s', 'starter');
is_deeply call('check_credits', 's', 'logo', 21), { allowed => $no, remaining => 20, required => 21, needsUpgrade => $yes, overageAllowed => $no }, 'a plan without';
$w->account('g');
subscribe('g', 'agency');
set('g', overage_on => $no);
is take('g', 250, 'a')->{overage_quantity}, 50, 'G15: where the plan says always, the switch does not count';

# --- charged when the period closes
sub charges { return join ' ', map { "$_->{quantity}:" . ($_->{amount} + 0) . ':' . ($_->{currency} // '-') . ':' . ($_->{meter} // '-') } @{ $w->rows(q{SELECT u.*
    FROM billing.usage_charges u JOIN billing.accounts a ON a.id = account_id WHERE external_id = $1 ORDER BY charge_no}, $_[0]) } }
sub on { my ($day, $name, $effect, @subs) = @_; return $w->event($name, $effect, \@subs, at => $T0 + $day * $DAY) }
sub renewal {
    my ($name, $plan, $from) = @_;
    return on($from, $name, { kind => 'invoice_paid', invoice => "in_${name}_$from", subscription => "sub_$name", billing_reason => 'subscription_cycle',
        price => "price_$plan", period_start => $T0 + $from * $DAY, period_end => $T0 + ($from + 30) * $DAY, amount => 1, currency => 'usd', attempt => 1 },
        StripeWorld::sub_of("sub_$name", 'active', $plan, start => $T0 + $from * $DAY));
}
is charges('p'), '', 'nothing is charged within the period';
renewal('p', 'pro', 30) for 1 .. 2;
is balance('p'), '50/0/0', 'a renewal';
is charges('p'), '100:4000:usd:logo_overage', 'G15: what was taken beyond is charged once, at the rate of the plan';
is_deeply decode_json($w->value(q{SELECT after - 'identifier' FROM billing.audit_log WHERE action = 'overage.charged'})),
    { credit => 'logo', quantity => 100, amount => 4000, currency => 'usd', meter => 'logo_overage' }, 'G15: audited';
is call('refund_credits', 'p', 'logo', 'c')->{success}, $yes, 'a refund of what was taken in that period';
is balance('p') . ' ' . charges('p'), '50/0/0 100:4000:usd:logo_overage', 'is recorded only: what is charged is final';
renewal('p', 'pro', 60);
is charges('p'), '100:4000:usd:logo_overage', 'a period without';
take('p', 55, 'g');
renewal('p', 'agency', 90);
is charges('p'), '100:4000:usd:logo_overage 5:200:usd:logo_overage', 'a plan that changes with the period: at the rate of the old one';

# a plan that changes within the period, and the end
$w->account('m');
subscribe('m', 'pro');
take('m', 55, 'a');
take('m', 2, 'b');
subscribe('m', 'agency');
is charges('m'), '7:280:usd:logo_overage', 'an upgrade: what was taken by then costs what it did';
is balance('m'), '150/50/7', 'and counts for the period';
is take('m', 160, 'c')->{overage_quantity}, 10, 'more is taken';
is call('refund_credits', 'm', 'logo', 'b')->{refunded}, 2, 'a refund of what is charged';
is call('refund_credits', 'm', 'logo', 'c', 4)->{refunded}, 4, 'and of what is not';
on(5, 'm', { kind => 'subscription' }, StripeWorld::sub_of('sub_m', 'canceled', 'agency', ended_at => $T0 + 5 * $DAY));
is charges('m') , '7:280:usd:logo_overage ' . 6 . ':' . 6 * 12.5 . ':usd:agency_logos', 'the end of the last subscription, though its period is not over';
on(6, 'm', { kind => 'subscription' }, StripeWorld::sub_of('sub_m2', 'active', 'pro', start => $T0 + 40 * $DAY));
is $w->value(q{SELECT count(*) FROM billing.usage_charges JOIN billing.accounts a ON a.id = account_id WHERE external_id = 'm'}), 2, 'once';

# the catalog's rate
$w->account('r');
subscribe('r', 'pro');
take('r', 53, 'a');
logos(pro => { amount => '60', cap => 100, meter => 'logo_overage' });
$w->db->apply_catalog($catalog);
take('r', 1, 'b');
renewal('r', 'pro', 30);
is charges('r'), '3:120:usd:logo_overage 1:60:usd:logo_overage', 'G15: a rate that changes: each unit at the one that it was taken at';
take('r', 51, 'c');
logos(pro => undef);
$w->db->apply_catalog($catalog);
is charges('r'), '3:120:usd:logo_overage 1:60:usd:logo_overage 1:60:usd:logo_overage', 'a plan that has none any more';
is take('r', 1, 'd')->{success}, $no, 'gives none';
is $w->value('SELECT count(DISTINCT identifier) = count(*) FROM billing.usage_charges'), 1, 'each has a name of its own';

# --- reported: one at a time, for a minute; accounts without a customer wait
sub claim { return $w->row('SELECT * FROM billing.overage_claim()') }
sub told { my ($c, $outcome, $unsure, $trouble) = @_; $w->value('SELECT billing.overage_told($1, $2, $3, $4, $5)', @$c{qw(charge_no try)}, $outcome, $unsure, $trouble // ''); return }
sub due { $w->d->do(q{UPDATE billing.usage_charges SET next_try_at = now() - interval '1 s' WHERE sent_at IS NULL AND next_try_at < 'infinity'}); return }
$w->d->do(q{UPDATE billing.usage_charges SET sent_at = now() WHERE account_id <> (SELECT id FROM billing.accounts WHERE external_id = 'p')});
$w->d->do(q{UPDATE billing.accounts SET stripe_customer_id = NULL WHERE external_id = 'p'});
is claim(), undef, 'an account without a customer waits';
$w->d->do(q{UPDATE billing.accounts SET stripe_customer_id = 'cus_p' WHERE external_id = 'p'});
my $one = claim();
is "@$one{qw(customer meter quantity unsure)}", 'cus_p logo_overage 100 0', 'then it is told';
my $two = claim();
is $two->{quantity}, 5, 'the other charge is another';
is claim(), undef, 'each is with one at a time';
told($one, 'later', 'f');
told($two, 'later', 't');
is claim(), undef, 'an outage: in a while';
due();
my ($again, $unsure) = sort { $b->{quantity} <=> $a->{quantity} } claim(), claim();
is "$again->{unsure} $unsure->{unsure} $again->{refusals}", '0 1 0', 'what certainly did not arrive is as before, what may have is unsure';
told($one, 'refused', 'f');
is $w->value('SELECT sum(refusals) FROM billing.usage_charges'), 0, 'who had it before has nothing to say';
told($again, 'sent', 'f');
told($unsure, 'refused', 't');
is $w->value(q{SELECT bool_and(next_try_at > now() + interval '50 s') FROM billing.usage_charges WHERE sent_at IS NULL}), 1, 'a refusal: less often';
$w->d->do(q{UPDATE billing.usage_charges SET unsure_since = now() - interval '21 hours' WHERE sent_at IS NULL});
due();
is claim(), undef, 'what has been unsure for almost a day is not said again';
is $w->value(q{SELECT string_agg(payload ->> 'alarm', ' ' ORDER BY id) FROM billing.outbox WHERE payload ->> 'alarm' LIKE 'overage%'}), 'overage_refused overage_unsure', 'the operator is told';

is_deeply [credits_astray($w->d)], [], 'every unit is accounted for';
done_testing;
