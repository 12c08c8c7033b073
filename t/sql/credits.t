# Promise (G12, G13, S3, K1-K3): credits are taken exactly, once for each name, never below zero; what goes back goes where it came
# from, once; whatever is repeated, comes late or never comes; and the ledger accounts for every unit. AC-14 to AC-20, AC-32.
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
sub call { my ($name, @args) = @_; return decode_json($w->value("SELECT billing.$name(" . join(', ', map { "\$$_" } 1 .. @args) . ')', @args)) }
sub deduct { return call('deduct_credits', @_) }
sub credits { return $w->credits(@_) }    # remaining/used/bought
sub ledger {
    my ($account, $type) = @_;
    return join ' ', map { "$_->{action}:$_->{quantity}:$_->{balance_after}" } @{ $w->rows(q{SELECT l.* FROM billing.credit_ledger l
        JOIN billing.accounts a ON a.id = account_id JOIN billing.credit_types USING (credit_no)
        WHERE external_id = $1 AND credit_key = $2 ORDER BY l.id}, $account, $type // 'logo') };
}

# One request's takings, by the functions that workers call: [TYPE, QUANTITY, HOLD].
sub ids { my ($account, @types) = @_; return ([map { $w->value('SELECT id FROM billing.accounts WHERE external_id = $1', $account) } @types],
    [map { $w->value('SELECT credit_no FROM billing.credit_types WHERE credit_key = $1', $_) } @types]) }
sub take {
    my ($account, $name, @wants) = @_;
    my ($accounts, $types) = ids($account, map { $_->[0] } @wants);
    return join ' ', map { "$_->{kept}" . ($_->{repeated} ? 'r' : '') . "/$_->{remaining}" }
        @{ $w->rows('SELECT * FROM billing.credits_take($1, $2, $3, $4, $5, $6, $7)', [(1) x @wants], [($name) x @wants], $accounts, $types,
            [map { $_->[1] } @wants], [map { $_->[2] // 60 } @wants], [(undef) x @wants]) };
}
sub settle {
    my ($account, $name, $keep, @types) = @_;
    my ($accounts, $types) = ids($account, @types ? @types : 'logo');
    my $n = @$accounts;
    return $w->value('SELECT coalesce(sum(late), 0) FROM billing.credits_settle($1, $2, $3, $4)', [($name) x $n], $accounts, $types, [($keep) x $n]);
}
sub held { return $w->value('SELECT count(*) FROM billing.credit_holds') }
sub expire { $w->d->do(q{UPDATE billing.credit_holds SET expires_at = now() - interval '1 second'}); return }

# --- by name
$w->account('n');
is credits('n'), '4/0/0', 'AC-14: a new account has its one-time allocation';
is ledger('n'), 'allocate:4:4', 'AC-14: once';
is_deeply call('check_credits', 'n', 'logo', 5),
    { allowed => $no, remaining => 4, required => 5, needsUpgrade => $yes, overageAllowed => $no }, 'AC-15: a check of 5 with 4 left';
is_deeply call('check_credits', 'n', 'video', 1),
    { allowed => $no, remaining => 0, required => 1, needsUpgrade => $yes, overageAllowed => $no }, 'C15: an account without that balance';
is_deeply deduct('n', 'logo', 5, 'k1'),
    { success => $no, balance_after => 4, is_overage => $no, overage_quantity => 0, code => 'INSUFFICIENT_CREDITS', error => 'Insufficient credits' }, 'G12: 5 of 4 are refused';
my $first = deduct('n', 'logo', 4, 'k2', undef, 'job-7');
is_deeply $first, { success => $yes, balance_after => 0, is_overage => $no, overage_quantity => 0 }, 'S3: 4 of 4 are taken';
is_deeply deduct('n', 'logo', 4, 'k2'), { %$first, repeated => $yes }, 'G17: the same key takes once';
is $w->value(q{SELECT job_id FROM billing.credit_ledger WHERE idem_key = 'take:k2:logo'}), 'job-7', 'S3: the ledger names the job';
is_deeply call('refund_credits', 'n', 'logo', 'k2'), { success => $yes, refunded => 4, balance_after => 4 }, 'AC-18: refunded, the balance is as before';
is_deeply call('refund_credits', 'n', 'logo', 'k2'), { success => $yes, refunded => 0, balance_after => 4 }, 'G13: once';
is_deeply deduct('n', 'logo', 4, 'k2')->{error}, 'Refunded', 'what was refunded is not taken again under its key';
is_deeply call('refund_credits', 'n', 'logo', 'k3')->{error}, 'Nothing was taken under this key', 'a refund that comes before its taking';
is deduct('n', 'logo', 1, 'k3')->{success}, $no, 'keeps it from being taken';
is credits('n'), '4/0/0', 'nothing has been lost';
for my $wrong (['nobody', 'logo', 1, 'k', 'UNKNOWN_ACCOUNT', 'Unknown account'], ['n', 'gold', 1, 'k', 'UNKNOWN_CREDIT', 'Unknown credit type'],
    ['n', 'logo', 0, 'k', 'INVALID_QUANTITY', 'The quantity must be a whole number from 1'],
    ['n', 'logo', -4, 'k', 'INVALID_QUANTITY', 'The quantity must be a whole number from 1'],
    ['n', 'logo', 1, 'a b', 'INVALID_KEY', 'The key must be 1 to 100 printable characters, without spaces and colons']) {
    my ($code, $error) = splice @$wrong, -2;
    is_deeply deduct(@$wrong), { success => $no, code => $code, error => $error }, "S3: $error";
}
like $w->value(q{SELECT prosrc FROM pg_proc WHERE proname = 'credits_take'}), qr/FOR UPDATE/, 'AC-32: deductions lock by FOR UPDATE';

# AC-20, AC-19
$w->account('c');
$w->event('c', { kind => 'subscription' }, [StripeWorld::sub_of('sub_c', 'active', 'starter')]);
deduct('c', 'logo', 5, 'a');
call('refund_credits', 'c', 'logo', 'a');
deduct('c', 'logo', 5, 'b');
is credits('c'), '15/5/0', 'AC-19: 15 of 20 are left';
$w->event('c', { kind => 'invoice_paid', invoice => 'in_c', subscription => 'sub_c', billing_reason => 'subscription_cycle', price => 'price_starter',
    period_start => $T0 + 30 * $DAY, period_end => $T0 + 60 * $DAY, amount => 1, currency => 'usd', attempt => 1 },
    [StripeWorld::sub_of('sub_c', 'active', 'starter', start => $T0 + 30 * $DAY)]);
is credits('c'), '20/0/0', 'AC-19: the renewal brings 20 of 20, nothing used';
is ledger('c'), 'allocate:4:4 allocate:16:20 deduct:-5:15 refund:5:20 deduct:-5:15 refill:20:20', 'AC-20: each movement is one row, with the balance after it';
is_deeply call('refund_credits', 'c', 'logo', 'b'), { success => $yes, refunded => 5, balance_after => 20 }, 'a refund into a closed period';
is credits('c'), '20/0/0', 'is recorded and not credited';

# --- packs are spent last, and what goes back goes where it came from
$w->account('p');
is_deeply call('grant_credits', 'p', 'logo', 10, 'gift', 'support'), { success => $yes, balance_after => 14 }, 'C15: a grant';
is_deeply call('grant_credits', 'p', 'logo', 10, 'gift', 'support'), { success => $yes, repeated => $yes, balance_after => 14 }, 'C15: once';
is take('p', 't1', ['logo', 3]), '3/11', 'taken';
is credits('p'), '11/3/10', 'from the allocation, which would end sooner';
is take('p', 't2', ['logo', 3]), '3/8', 'taken';
is credits('p'), '8/6/8', 'then from what was granted';
is settle('p', 't2', 0), '0', 'the work failed';
is credits('p'), '11/3/10', 'each unit is back where it was';
is settle('p', 't1', undef), '0', 'the work of the other is done';
is held(), 0, 'nothing is undecided';
is_deeply call('adjust_credits', 'p', 'logo', -12, 'fix', 'mistake')->{error}, 'Insufficient credits', 'C15: an adjustment never goes below zero';
is_deeply call('adjust_credits', 'p', 'logo', -2, 'fix', 'mistake'), { success => $yes, balance_after => 9 }, 'C15: an adjustment';

# --- several types, all or nothing; many requests in one call
$w->account('m');
$w->event('m', { kind => 'subscription' }, [StripeWorld::sub_of('sub_m', 'active', 'pro')]);
is take('m', 'both', ['logo', 4], ['video', 2]), '4/46 2/8', 'G18: both';
is take('m', 'none', ['logo', 4], ['video', 9]), '0/46 0/8', 'G18: or none';
is credits('m') . ' ' . credits('m', 'video'), '46/4/0 8/2/0', 'G18: a refusal takes nothing';
is take('m', 'both', ['logo', 4], ['video', 2]), '4r/46 2r/8', 'G17: what is asked again is not taken again';
my ($a, $t) = ids('m', ('logo') x 4);
is join(' ', map { "$_->{kept}/" . $_->{repeated} } @{ $w->rows('SELECT * FROM billing.credits_take($1, $2, $3, $4, $5, $6, $7)', [1, 2, 3, 4],
    [qw(x y x z)], $a, $t, [40, 7, 40, 6], [(60) x 4], [(undef) x 4]) }), '40/0 0/0 40/1 6/0', 'in one call: each sees what those before it took';
for my $wrong ([[1, 1], [qw(a a)], [@$a[0, 1]], [@$t[0, 1]], [1, 1], [1, 1], [undef, undef], 'the same type twice'],
    [[1], ['a:b'], [$a->[0]], [$t->[0]], [1], [1], [undef], 'a name with a colon'], [[1], ['a'], [$a->[0]], [77], [1], [1], [undef], 'an unknown type'],
    [[1], ['a'], [$a->[0]], [$t->[0]], [0], [1], [undef], 'no units'], [[1], ['a'], [$a->[0]], [$t->[0]], [1], [], [undef], 'arrays that differ']) {
    my $what = pop @$wrong;
    ok !eval { $w->rows('SELECT * FROM billing.credits_take($1, $2, $3, $4, $5, $6, $7)', @$wrong); 1 }, "refused: $what";
}
is credits('m'), '0/50/0', 'and nothing happened';

# --- settled to what the work was worth
$w->account('s');
$w->event('s', { kind => 'subscription' }, [StripeWorld::sub_of('sub_s', 'active', 'starter')]);
is take('s', 'r1', ['logo', 10]), '10/10', 'reserved';
is settle('s', 'r1', 7), '0', 'G14: 7 of 10 were needed';
is credits('s'), '13/7/0', 'G14: the rest is back';
is settle('s', 'r1', 7) . settle('s', 'r1', 0) . settle('s', 'r1', undef), '000', 'repeated, it changes nothing';
is credits('s'), '13/7/0', 'indeed';
is take('s', 'r2', ['logo', 2]), '2/11', 'reserved';
is settle('s', 'r2', 6), '4', 'G14: more was needed than was taken';
$w->d->do('SELECT billing.credits_late($1, $2, $3, $4)', undef, ['r2'], ids('s', 'logo'), [4]) for 1, 2;
is credits('s'), '7/13/0', 'G14: taken afterwards, once';
is take('s', 'r3', ['logo', 1]), '1/6', 'reserved';
is settle('s', 'r3', 20), '19', 'far more than there is';
$w->d->do('SELECT billing.credits_late($1, $2, $3, $4)', undef, ['r3'], ids('s', 'logo'), [19]) for 1, 2;
is credits('s'), '0/20/0', 'K1: what there is, never below zero';
is $w->value(q{SELECT string_agg(payload ->> 'units', ' ') FROM billing.outbox WHERE payload ->> 'alarm' = 'credits_not_covered'}), '13', 'and the rest is told, once';

# --- refunded after all
$w->account('f');
call('grant_credits', 'f', 'logo', 100, 'g', 'x');
deduct('f', 'logo', 10, 'less', '60 s');
call('commit_credits', 'f', 'logo', 'less', 7);
is credits('f'), '97/7/97', 'of ten units seven were needed';
is_deeply call('refund_credits', 'f', 'logo', 'less', 3), { success => $yes, refunded => 3, balance_after => 100 }, 'C15: a part of them is refunded';
is_deeply call('refund_credits', 'f', 'logo', 'less')->{refunded}, 0, 'once';
is deduct('f', 'logo', 10, 'less')->{repeated}, $yes, 'four are kept';
deduct('f', 'logo', 10, 'all', '60 s');
call('commit_credits', 'f', 'logo', 'all', 7);
is_deeply call('refund_credits', 'f', 'logo', 'all')->{refunded}, 7, 'C15: or all that it cost';
is deduct('f', 'logo', 10, 'all')->{code}, 'REFUNDED', 'nothing of it is kept';
deduct('f', 'logo', 10, 'more', '60 s');
call('commit_credits', 'f', 'logo', 'more', 13);
is_deeply call('refund_credits', 'f', 'logo', 'more')->{refunded}, 13, 'C15: what was taken late goes back, too';
is_deeply call('refund_credits', 'f', 'logo', 'more')->{refunded}, 0, 'once';
deduct('f', 'logo', 10, 'swept', '60 s');
expire();
$w->value('SELECT billing.credits_sweep(100)');
call('commit_credits', 'f', 'logo', 'swept');
is_deeply call('refund_credits', 'f', 'logo', 'swept')->{refunded}, 10, 'C15: also where it was taken anew since its time was over';
is credits('f'), '100/4/100', 'the balance is as it was, but for four';
deduct('f', 'logo', 10, 'words');
is call('refund_credits', 'f', 'logo', 'words', undef, 'not decided in time')->{refunded}, 10, 'C15: a reason is words';
call('commit_credits', 'f', 'logo', 'words');
is credits('f'), '100/4/100', 'C15: and has nothing taken again';
deduct('f', 'logo', 10, 'part');
is call('refund_credits', 'f', 'logo', 'part', 4, 'settled')->{refunded}, 4, 'whichever they are';
is call('refund_credits', 'f', 'logo', 'part')->{refunded}, 0, 'C15: a taking is refunded once';
call('grant_credits', 'f', 'logo', 6, 'as before', 'x');
is call('adjust_credits', 'f', 'logo', '-9223372036854775808', 'least', 'x')->{code}, 'INVALID_QUANTITY', 'C15: the least number that there is';

# --- nobody decides
$w->account('o');
$w->d->do('DELETE FROM billing.credit_holds');
is take('o', 'lost', ['logo', 4]), '4/0', 'taken, and its worker dies';
is $w->value('SELECT billing.credits_sweep(100)'), 0, 'not before its time';
expire();
is $w->value('SELECT billing.credits_sweep(100)'), 1, 'G13: then it is given back';
is credits('o') . held(), '4/0/00', 'G13: all of it';
is settle('o', 'lost', undef), '4', 'the work was done after all';
$w->d->do('SELECT billing.credits_late($1, $2, $3, $4)', undef, ['lost'], ids('o', 'logo'), [4]);
is credits('o'), '0/4/0', 'K4: then it is paid for after all';
is settle('o', 'never', 0), '0', 'a refund that comes before its taking';
is take('o', 'never', ['logo', 1]), '0r/0', 'K3: leaves nothing to take';

# --- every unit is accounted for
is_deeply [credits_astray($w->d)], [], 'K2: what the ledger sums up to is what there is';
done_testing;
