# Promise (N1): what becomes of an account is told by one row of the outbox in the transaction that changes it, with what the front end
# wants to know; that credits are low, or exhausted, once until there is a refill.
use strict;
use warnings;
use FindBin qw($Bin);
use JSON::PP;
use Test::More;
require "$Bin/stripe_world.pl";

my $w = StripeWorld->new;
my ($T0, $DAY) = (StripeWorld::t0(), StripeWorld::day());
my ($yes, $no) = (JSON::PP::true, JSON::PP::false);
my $catalog = StripeWorld::catalog();
$catalog->{plans}{agency}{credits}{logo} = { quantity => 200, warn => '95%', overage => { amount => '1', cap => 5 } };
$catalog->{plans}{starter}{credits}{logo} = { quantity => 20, warn => '100%' };
$w->db->apply_catalog($catalog);

sub call { my ($name, @args) = @_; return decode_json($w->value("SELECT billing.$name(" . join(', ', map { "\$$_" } 1 .. @args) . ')', @args)) }
my $n = 0;
sub take { my ($account, $units) = @_; return call('deduct_credits', $account, 'logo', $units, 'k' . ++$n)->{success} ? 1 : 0 }
sub on { my ($account, $plan, %o) = @_; return $w->event($account, { kind => 'subscription' }, [StripeWorld::sub_of($o{id} // "sub_$account", $o{status} // 'active', $plan, %o)]) }
sub last_told { my ($account) = @_; return decode_json($w->value('SELECT payload FROM billing.outbox o JOIN billing.accounts a ON a.id = o.account_id
    WHERE external_id = $1 ORDER BY o.id DESC LIMIT 1', $account)) }
sub renewed {
    my ($account, $plan, $from) = @_;
    return $w->event($account, { kind => 'invoice_paid', invoice => "in_${account}_$from", subscription => "sub_$account", billing_reason => 'subscription_cycle',
        price => "price_$plan", period_start => $T0 + $from * $DAY, period_end => $T0 + ($from + 30) * $DAY, amount => 1, currency => 'usd', attempt => 1 },
        [StripeWorld::sub_of("sub_$account", 'active', $plan, start => $T0 + $from * $DAY)], at => $T0 + $from * $DAY);
}

# --- subscriptions
$w->account('s');
is $w->told('s'), '', 'an account that comes into being';
on('s', 'starter');
is $w->told('s'), 'activated', 'N1: activated';
is_deeply last_told('s'), { tier => 'starter', status => 'active' }, 'N1: with tier and status';
on('s', 'pro', cancel_at => $T0 + 30 * $DAY);
is $w->told('s'), 'updated', 'N1: updated';
is_deeply last_told('s'), { tier => 'pro', status => 'active', cancelAtPeriodEnd => $yes }, 'N1: and whether it ends with its period';
on('s', 'pro', cancel_at => $T0 + 30 * $DAY);
is $w->told('s'), '', 'N1: nothing where nothing has changed';
on('s', 'pro');
$w->told('s');
renewed('s', 'pro', 30);
is $w->told('s') =~ s/updated //r, 'renewed', 'N1: renewed';
is_deeply last_told('s'), { tier => 'pro', status => 'active' }, 'N1: as what';
$w->event('s', { kind => 'invoice_failed', invoice => 'in_f', subscription => 'sub_s', billing_reason => 'subscription_cycle', price => 'price_pro',
    attempt => 2, next_attempt => $T0 + 63 * $DAY, amount => 7900, currency => 'usd', policy => 'grace', grace_seconds => 7 * $DAY },
    [StripeWorld::sub_of('sub_s', 'past_due', 'pro', start => $T0 + 60 * $DAY)], at => $T0 + 60 * $DAY);
is $w->told('s'), 'updated payment-failed', 'N1, W9: a payment has failed';
is_deeply last_told('s'), { tier => 'pro', status => 'past_due', attemptCount => 2, message => 'The payment has failed.',
    nextRetryDate => $w->value('SELECT billing.iso(to_timestamp($1))', $T0 + 63 * $DAY) }, 'N1: which, and when the next try is';
on('s', 'pro', status => 'canceled', ended_at => $T0 + 61 * $DAY);
is $w->told('s'), 'canceled', 'N1: canceled';
is_deeply last_told('s'), { tier => 'free', status => 'canceled' }, 'N1: and what is left';

# --- by hand
$w->value('SELECT billing.account_set($1, $2, $3)', 's', '{"plan": "agency", "maintenance": "operator", "email": "a@example.com"}', 'test');
is $w->told('s'), 'updated', 'N1: an operator';
is_deeply last_told('s'), { tier => 'agency', status => 'active' }, 'N1: as what';
$w->value('SELECT billing.account_set($1, $2, $3)', 's', '{"email": "b@example.com"}', 'test');
is $w->told('s'), '', 'who changes nothing that matters';
$w->d->do(q{UPDATE billing.accounts SET maintenance = 'none' WHERE external_id = 's'});
is $w->told('s'), 'updated', 'N1: plain SQL';
$w->d->begin_work;
$w->d->do(q{UPDATE billing.accounts SET status = 'paused' WHERE external_id = 's'});
$w->d->rollback;
is $w->told('s'), '', 'N1: in the same transaction';

# --- credits
$w->account('c');
on('c', 'pro');
$w->told('c');
is take('c', 39), 1, 'of 50';
is $w->told('c'), '', 'with 11 left nothing is told';
take('c', 1);
is $w->told('c'), 'credits:low', 'N1: 10 left, a fifth of what the plan gives';
is_deeply last_told('c'), { credit => 'logo', remaining => 10, allocated => 50, threshold => 10, periodEnd => $w->value('SELECT billing.iso(to_timestamp($1))', $T0 + 30 * $DAY) },
    'N1: what is left of what';
take('c', 1) for 1 .. 3;
is $w->told('c'), '', 'N1: once';
is take('c', 8), 0, '8 of 7';
is $w->told('c'), 'credits:exhausted', 'N1: what is left cannot pay';
is last_told('c')->{remaining}, 7, 'N1: though it is not nothing';
take('c', $_) for 8, 7, 1;
is $w->told('c'), '', 'N1: once';
call('grant_credits', 'c', 'logo', 20, 'g', undef);
take('c', 9);
is $w->told('c'), '', 'after a grant';
take('c', 1);
is $w->told('c'), 'credits:low', 'N1: anew';
take('c', 10);
is $w->told('c'), 'credits:exhausted', 'N1: nothing left';
renewed('c', 'pro', 30);
$w->told('c');
take('c', 50);
is $w->told('c'), 'credits:exhausted', 'N1: from all to nothing is told in one';

# what goes back
renewed('c', 'pro', 60);
$w->told('c');
for (1 .. 3) {
    take('c', 45);
    call('refund_credits', 'c', 'logo', "k$n");
}
is $w->told('c'), 'credits:low', 'N1: work that fails again and again is told of once';
take('c', 30);
$w->d->do(q{UPDATE billing.credit_balances SET low_at = low_at - interval '1 hour' WHERE low_at IS NOT NULL});
take('c', 5);
is $w->told('c'), '', 'still above';
take('c', 6);
is $w->told('c'), 'credits:low', 'N1: what crosses again an hour later is told';

# many at once, as workers take them: a crossing within the statement
renewed('c', 'pro', 90);
$w->told('c');
my ($id, $logo) = ($w->value(q{SELECT id FROM billing.accounts WHERE external_id = 'c'}), $w->value(q{SELECT credit_no FROM billing.credit_types WHERE credit_key = 'logo'}));
my $kept = $w->value('SELECT count(*) FILTER (WHERE kept > 0) FROM billing.credits_take($1, $2, $3, $4, $5, $6, $7)', [1 .. 60], [map { "b$_" } 1 .. 60],
    [($id) x 60], [($logo) x 60], [(1) x 60], [(60) x 60], [(undef) x 60]);
is $kept, 50, '60 at once of 50';
is $w->told('c'), 'credits:exhausted', 'N1: are told of in one';

# with overage, other thresholds, bought ones alone
$w->account('o');
on('o', 'agency');
$w->told('o');
take('o', 189);
is $w->told('o'), '', 'a threshold of its own';
take('o', 12);
is $w->told('o'), 'credits:low', 'N1: nothing left, but overage allowed';
is last_told('o')->{overage}, 1, 'N1: which has begun';
take('o', 4);
is $w->told('o'), 'credits:exhausted', 'N1: none of it either';
$w->account('t');
on('t', 'starter');
$w->told('t');
take('t', 19);
is $w->told('t'), '', 'who wants no warning';
take('t', 1);
is $w->told('t'), 'credits:exhausted', 'N1: hears of the end all the same';
$w->account('b');
call('grant_credits', 'b', 'video', 5, 'g', undef);
call('deduct_credits', 'b', 'video', 3, 'v');
is $w->told('b'), '', 'a type that the plan does not have';
call('deduct_credits', 'b', 'video', 3, 'v2');
is $w->told('b'), 'credits:exhausted', 'N1: what is left cannot pay';
$w->account('z');
is call('deduct_credits', 'z', 'video', 3, 'v')->{success}, $no, 'an account that never had any';
is $w->told('z'), '', 'has nothing to be told';
ok !eval { $catalog->{plans}{pro}{credits}{logo} = { quantity => 5, warn => '0%' }; $w->db->apply_catalog($catalog); 1 }, 'no threshold';
like $@, qr/plans\.pro\.credits\.logo\.warn must be a part, as "80%"/, 'is refused, with its path';
done_testing;
