# Promise (W8, W9, S11): the first failure of an invoice starts the grace or the maintenance, retries do not move it, paying
# mends all; each payment leaves one audit row, each failed attempt one notice; a renewal refills once.
use strict;
use warnings;
use JSON::PP;
use Test::More;
use FindBin qw($Bin);
require "$Bin/stripe_world.pl";

my $w = StripeWorld->new;
my ($T0, $DAY) = (StripeWorld::t0(), StripeWorld::day());
my $sub = { kind => 'subscription' };
sub su { my ($name, $status, %o) = @_; return [StripeWorld::sub_of("sub_$name", $status, 'pro', start => $T0 + 30 * $DAY, created => $T0, %o)] }
sub failed {
    my ($name, $attempt, %o) = @_;
    return { kind => 'invoice_failed', invoice => $o{invoice} // "in_$name", subscription => "sub_$name", billing_reason => 'subscription_cycle',
        price => 'price_pro', period_start => $T0 + 30 * $DAY, amount => 7900, currency => 'usd', attempt => $attempt,
        next_attempt => $o{next}, policy => $o{policy} // 'grace', grace_seconds => exists $o{grace} ? $o{grace} : 7 * $DAY };
}
sub paid {
    my ($name, $reason, %o) = @_;
    return { kind => 'invoice_paid', invoice => $o{invoice} // "in_$name", subscription => "sub_$name", billing_reason => $reason,
        price => 'price_pro', period_start => $o{start} // $T0 + 30 * $DAY, period_end => ($o{start} // $T0 + 30 * $DAY) + 30 * $DAY,
        amount => 7900, currency => 'usd', attempt => 1 };
}
sub audited {
    my ($name) = @_;
    return join '; ', map { join ' ', map { $_ // '-' } @$_{qw(action invoice_id amount currency attempt actor)} }
        @{ $w->rows(q{SELECT l.* FROM billing.audit_log l JOIN billing.accounts a ON a.id = account_id
            WHERE external_id = $1 AND action LIKE 'payment.%' ORDER BY l.id}, $name) };
}

# Grace.
$w->account('g');
$w->event('g', $sub, su('g', 'active'));
$w->told('g');
$w->event('g', failed('g', 1, next => $T0 + 33 * $DAY), su('g', 'past_due'), at => $T0 + 30 * $DAY, id => 'evt_g1');
is $w->state_of('g'), 'pro past_due none grace=37 from=30 to=60', 'a failed renewal: past due, grace from the failure on';
is audited('g'), 'payment.failed in_g 7900 usd 1 event:evt_g1', 'audited, with invoice, amount, currency and attempt';
my $told = $w->rows(q{SELECT payload FROM billing.outbox WHERE topic = 'subscription:payment-failed'});
is_deeply [map { decode_json($_->{payload}) } @$told], [{ tier => 'pro', status => 'past_due', attemptCount => 1,
    nextRetryDate => '2027-02-17T08:00:00Z', message => 'The payment has failed.' }], 'one notice, with attempt and next retry';
is $w->told('g'), 'updated payment-failed', 'beside that of the change';
$w->event('g', failed('g', 2), su('g', 'past_due'), at => $T0 + 33 * $DAY);
is $w->state_of('g'), 'pro past_due none grace=37 from=30 to=60', 'the next attempt fails: the grace does not move';
is $w->told('g'), 'payment-failed', 'a notice for each attempt';
$w->event('g', failed('g', 2), su('g', 'past_due'), at => $T0 + 33 * $DAY);
is $w->told('g'), '', 'and not for the same one twice';
$w->event('g', $sub, su('g', 'past_due'), at => $T0 + 34 * $DAY);
is $w->state_of('g'), 'pro past_due none grace=37 from=30 to=60', 'nor does anything else that comes meanwhile';
$w->event('g', paid('g', 'subscription_cycle'), su('g', 'active'), at => $T0 + 35 * $DAY, id => 'evt_gp');
is $w->state_of('g'), 'pro active none from=30 to=60', 'paying ends it';
is $w->told('g'), 'updated renewed', 'told: updated and renewed';
like audited('g'), qr/; payment.succeeded in_g 7900 usd 1 event:evt_gp$/, 'and audited';
$w->event('g', failed('g', 3), su('g', 'active'), at => $T0 + 34 * $DAY);
is $w->state_of('g'), 'pro active none from=30 to=60', 'a failure told after the payment changes nothing';
is $w->told('g'), '', 'and does not alarm the customer';
like audited('g'), qr/payment.failed in_g 7900 usd 3 event:\S+$/, 'but is audited';

# The next failure has a grace of its own, also where the last invoice was never paid but voided.
$w->event('g', failed('g', 1, invoice => 'in_void'), su('g', 'past_due', start => $T0 + 60 * $DAY), at => $T0 + 60 * $DAY);
like $w->state_of('g'), qr/grace=67/, 'the second invoice: a grace of its own';
$w->event('g', $sub, su('g', 'active', start => $T0 + 60 * $DAY), at => $T0 + 61 * $DAY);
$w->event('g', failed('g', 1, invoice => 'in_third'), su('g', 'past_due', start => $T0 + 90 * $DAY), at => $T0 + 90 * $DAY);
like $w->state_of('g'), qr/grace=97/, 'the third counts from its own failure, not from that of the second, which was dropped';
$w->event('g', failed('g', 1, invoice => 'in_fourth'), su('g', 'past_due', start => $T0 + 90 * $DAY), at => $T0 + 92 * $DAY);
like $w->state_of('g'), qr/grace=97/, 'another open invoice does not extend it';
$w->event('g', paid('g', 'manual', invoice => 'in_fourth'), su('g', 'past_due', start => $T0 + 90 * $DAY), at => $T0 + 93 * $DAY);
like $w->state_of('g'), qr/^pro past_due none grace=97/, 'and paying that one does not end it while Stripe says past due';

# Attempts out of order; past due told before the failure.
$w->account('r');
$w->event('r', $sub, su('r', 'active'));
$w->event('r', { %$sub, policy => 'grace', grace_seconds => 7 * $DAY }, su('r', 'past_due'), at => $T0 + 30 * $DAY + 43200);
is $w->state_of('r'), 'pro past_due none grace=37.5 from=30 to=60', 'past due before the failure is known: nobody is locked out at once';
$w->event('r', failed('r', 2), su('r', 'past_due'), at => $T0 + 33 * $DAY);
$w->event('r', failed('r', 1), su('r', 'past_due'), at => $T0 + 30 * $DAY);
is $w->state_of('r'), 'pro past_due none grace=37 from=30 to=60', 'the second attempt before the first: the first counts';
$w->event('r', $sub, su('r', 'unpaid'), at => $T0 + 40 * $DAY);
is $w->state_of('r'), 'pro unpaid none grace=37 from=30 to=60', 'Stripe gives up: unpaid';
$w->event('r', paid('r', 'subscription_cycle'), su('r', 'active'), at => $T0 + 41 * $DAY);
is $w->state_of('r'), 'pro active none from=30 to=60', 'and even then paying mends it';

$w->account('o');
$w->event('o', $sub, su('o', 'active'));
$w->event('o', failed('o', 1), su('o', 'active'), at => $T0 + 30 * $DAY);
is $w->state_of('o'), 'pro active none from=30 to=60', 'a failure that Stripe does not show as past due yet';
$w->event('o', failed('o', 2), su('o', 'past_due'), at => $T0 + 33 * $DAY);
like $w->state_of('o'), qr/^pro past_due none grace=37/, 'counts from the beginning when it does';

# Maintenance.
$w->account('m');
$w->event('m', $sub, su('m', 'active'));
$w->event('m', failed('m', 1, policy => 'maintenance', grace => 7 * $DAY), su('m', 'past_due'), at => $T0 + 30 * $DAY);
is $w->state_of('m'), 'pro past_due payment grace=37 from=30 to=60', 'maintenance: writes stop at once, reads after the grace';
$w->event('m', $sub, su('m', 'past_due'), at => $T0 + 31 * $DAY);
is $w->state_of('m'), 'pro past_due payment grace=37 from=30 to=60', 'it lasts';
$w->event('m', paid('m', 'subscription_cycle'), su('m', 'active'), at => $T0 + 32 * $DAY);
is $w->state_of('m'), 'pro active none from=30 to=60', 'until it is paid';
$w->d->do(q{UPDATE billing.accounts SET maintenance = 'operator' WHERE external_id = 'm'});
$w->event('m', failed('m', 1, invoice => 'in_m2', policy => 'maintenance', grace => undef), su('m', 'past_due'), at => $T0 + 60 * $DAY);
is $w->state_of('m'), 'pro past_due operator grace=425 from=30 to=60', 'without a grace: reads for as long as Stripe tries; an operator\'s stays';
$w->event('m', paid('m', 'subscription_cycle', invoice => 'in_m2'), su('m', 'active'), at => $T0 + 61 * $DAY);
like $w->state_of('m'), qr/^pro active operator/, 'also when it is paid';
$w->account('f');
$w->event('f', failed('f', 1, policy => 'maintenance'), su('f', 'incomplete'), at => $T0);
is $w->state_of('f'), 'free active none', 'a first payment that fails locks nobody';
$w->event('f', failed('f', 1, policy => 'maintenance', invoice => 'in_f2'), su('f', 'active'), at => $T0);
is $w->state_of('f'), 'pro active none from=30 to=60', 'the status is never taken from an invoice';

# Refills: paid renewals only, once, though invoice.paid and invoice.payment_succeeded both come.
$w->account('c');
$w->event('c', paid('c', 'subscription_create', start => $T0, invoice => 'in_c0'), su('c', 'active', start => $T0));
is $w->credits('c'), '50/0/0', 'the first invoice: the first allocation, no more';
is $w->told('c'), 'activated', 'which is no renewal';
$w->spend('c', 30);
for my $reason (qw(subscription_update manual subscription_threshold subscription upcoming quote_accept subscription_create)) {
    $w->event('c', paid('c', $reason, invoice => "in_$reason"), su('c', 'active'));
    is $w->credits('c'), '20/30/0', "$reason refills nothing";
}
$w->event('c', paid('c', 'subscription_cycle'), su('c', 'active')) for 1 .. 2;
is $w->credits('c'), '50/0/0', 'a renewal: the allocation, nothing used, what was left has lapsed';
is $w->credits('c', 'video'), '10/0/0', 'each type';
is_deeply $w->rows(q{SELECT action, quantity, balance_after, invoice_id, metadata ->> 'lapsed' AS lapsed FROM billing.credit_ledger
    WHERE idem_key = 'refill:in_c:logo'}), [{ action => 'refill', quantity => 50, balance_after => 50, invoice_id => 'in_c', lapsed => 20 }],
    'one ledger row for each';
is $w->value(q{SELECT count(*) FROM billing.audit_log WHERE action = 'credits.refill' AND invoice_id = 'in_c'}), 2, 'and one audit row';
is $w->value(q{SELECT count(*) FROM billing.audit_log WHERE action = 'payment.succeeded' AND invoice_id = 'in_c'}), 1, 'the payment is audited once';
ok $w->value(q{SELECT bool_and(last_refill_at IS NOT NULL) FROM billing.credit_balances b JOIN billing.accounts a ON a.id = account_id
    WHERE external_id = 'c'}), 'last_refill_at moves';
$w->spend('c', 5);
is scalar(grep { $_ eq 'renewed' } split ' ', $w->told('c')), 1, 'told once';
$w->event('c', paid('c', 'subscription_cycle', invoice => 'in_late', start => $T0), su('c', 'active'));
is $w->credits('c'), '45/5/0', 'a renewal of an earlier period that comes late gives nothing';

# At the same moment.
my @said = $w->at_once(8, sub { my ($mine, $n) = @_;
    $mine->event('c', paid('c', 'subscription_cycle', invoice => 'in_par', start => $T0 + 60 * $DAY), su('c', 'active', start => $T0 + 60 * $DAY)); 'ok' });
is "@said", join(' ', ('ok') x 8), 'eight events about one payment at once';
is $w->credits('c'), '50/0/0', 'one refill';
is $w->value(q{SELECT count(*) FROM billing.credit_ledger WHERE idem_key LIKE 'refill:in_par:%'}), 2, 'one row for each type';
ok !eval { $w->event('m', { %{ paid('c', 'subscription_cycle') }, invoice => 'in_c' }); 1 }, "another account's invoice is refused";
is $w->d->state, 'BI002', 'with a code';
done_testing;
