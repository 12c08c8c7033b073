# Promise (W10, S11): what of a pack's payment goes back takes the pack's credits back in proportion, once for each refund, never
# below zero, whatever comes first; a refund that fails brings them back; a dispute is told once, holds where that is wanted until it
# is won, and takes the credits when it is lost. Plans stay.
use strict;
use warnings;
use JSON::PP;
use Test::More;
use FindBin qw($Bin);
require "$Bin/stripe_world.pl";

my $w = StripeWorld->new;
my ($T0, $DAY) = (StripeWorld::t0(), StripeWorld::day());
*pack_of = \&StripeWorld::pack_of;
*charge_of = \&StripeWorld::charge_of;
*dispute_of = \&StripeWorld::dispute_of;
my $sub = { kind => 'subscription' };
sub su { my ($name, %o) = @_; return [StripeWorld::sub_of("sub_$name", $o{status} // 'active', 'pro', %o)] }
sub audited {
    my ($name) = @_;
    return join '; ', map { join ' ', map { $_ // '-' } @$_{qw(action amount currency invoice_id)} }
        @{ $w->rows(q{SELECT l.* FROM billing.audit_log l JOIN billing.accounts a ON a.id = account_id
            WHERE external_id = $1 AND action ~ '^(payment.(refunded|disputed)|refund|dispute)' ORDER BY l.id}, $name) };
}
sub moved { return join ' ', map { $_->{quantity} } @{ $w->rows(q{SELECT quantity FROM billing.credit_ledger l JOIN billing.accounts a ON a.id = account_id
    WHERE external_id = $1 AND action = 'adjust' ORDER BY l.id}, $_[0]) } }

# A pack of 10 for 10.00.
$w->account('a');
$w->event('a', pack_of('a'));
is $w->credits('a'), '14/0/10', 'a pack';
$w->event('a', charge_of('a', [[1, 250]]));
is $w->credits('a'), '12/0/8', 'a quarter goes back: two of ten, for a part of a credit is none';
$w->event('a', charge_of('a', [[1, 250]])) for 1 .. 3;
is $w->credits('a'), '12/0/8', 'once, however often it is told';
$w->event('a', charge_of('a', [[1, 250], [2, 250]]));
is $w->credits('a'), '9/0/5', 'another quarter: half of the pack is gone, parts of a credit add up';
$w->event('a', charge_of('a', [[1, 250], [2, 250], [3, 500, 'pending']]));
is $w->credits('a'), '4/0/0', 'the rest, though it is still on its way';
is audited('a'), join('; ', map { "payment.refunded $_ usd -" } 250, 250, 500), 'each refund is audited, once';
$w->event('a', charge_of('a', [[1, 250], [2, 250], [3, 500, 'failed']]));
is $w->credits('a'), '9/0/5', 'it fails: what was taken for it comes back';
$w->event('a', charge_of('a', [[1, 250, 'canceled'], [2, 250], [3, 500, 'failed']]));
is $w->credits('a'), '12/0/8', 'so with one that is canceled';
is audited('a'), join('; ', (map { "payment.refunded $_ usd -" } 250, 250, 500), map { "refund.failed $_ usd -" } 500, 250), 'audited as well';
is moved('a'), '-2 -3 -5 5 3', 'the ledger tells it';
is $w->state_of('a'), 'free active none', 'the plan stays';

# A look that was overtaken.
my @t = map { $w->ticket('a') } 1 .. 2;
$w->event('a', charge_of('a', [[1, 250, 'canceled'], [2, 250], [3, 500, 'failed'], [4, 250]]), undef, ticket => $t[1]);
is $w->credits('a'), '9/0/5', 'one more';
$w->event('a', charge_of('a', [[1, 250, 'canceled'], [2, 250], [3, 500, 'pending']]), undef, ticket => $t[0]);
is $w->credits('a'), '9/0/5', 'an earlier look that comes later changes nothing';

# The refund first.
$w->account('b');
$w->event('b', charge_of('b', [[1, 500]]));
is $w->credits('b'), '4/0/0', 'a refund of what is not known yet takes nothing';
$w->event('b', pack_of('b'));
is $w->credits('b'), '9/0/5', 'the pack comes, less what went back';
$w->event('b', pack_of('b'));
$w->event('b', charge_of('b', [[1, 500]]));
is $w->credits('b'), '9/0/5', 'and nothing more';

# Never below zero, and never from anything but what was bought.
$w->account('c');
$w->event('c', $sub, su('c'));
$w->event('c', pack_of('c'));
$w->spend('c', 53);
is $w->credits('c'), '7/53/7', 'three of the pack are spent, after all of the plan';
$w->event('c', charge_of('c', [[1, 1000]]));
is $w->credits('c'), '0/53/0', 'the rest is taken, no more';
is $w->value(q{SELECT payload ->> 'owed' FROM billing.outbox WHERE payload ->> 'alarm' = 'spent_before_refund'}), 10, 'with an alarm';
is $w->value(q{SELECT count(*) FROM billing.audit_log WHERE action = 'alarm' AND after ->> 'charge' = 'ch_c'}), 1, 'that is audited';
$w->event('c', pack_of('c2'));
$w->event('c', charge_of('c', [[1, 1000]]));
is $w->credits('c'), '10/53/10', 'what is bought later is not taken for it';
$w->event('c', charge_of('c', [[1, 1000, 'failed']]));
is $w->credits('c'), '17/53/17', 'and no more comes back than was taken';
$w->event('c', { kind => 'invoice_paid', invoice => 'in_c', billing_reason => 'subscription_cycle', subscription => 'sub_c', price => 'price_pro',
    period_start => $T0 + 30 * $DAY, period_end => $T0 + 60 * $DAY, amount => 7900, currency => 'usd', payment_intent => 'pi_in_c' },
    su('c', start => $T0 + 30 * $DAY));
is $w->credits('c'), '67/0/17', 'a renewal';
$w->event('c', charge_of('in_c', [[1, 7900]], amount => 7900));
is $w->state_of('c'), 'pro active none from=30 to=60', 'a refund of it: the plan stays';
is $w->credits('c'), '67/0/17', 'with its credits';
is audited('c') =~ s/.*; //r, 'payment.refunded 7900 usd in_c', 'the audit names the invoice';
$w->account('c3');
$w->event('c3', pack_of('c3'));
$w->spend('c3', 8);
$w->event('c3', $sub, su('c3'));
is $w->credits('c3'), '48/8/6', 'a pack of which four are spent, and a plan';
$w->event('c3', charge_of('c3', [[1, 1000]]));
is $w->credits('c3'), '42/8/0', 'the credits of the plan are not taken for a pack';

# Who bought two packs at once.
$w->account('d');
$w->event('d', pack_of('d', quantity => 3));
is $w->credits('d'), '34/0/30', 'three packs in one payment of 30.00';
$w->event('d', charge_of('d', [[1, 1000]], amount => 3000));
is $w->credits('d'), '24/0/20', 'a third goes back';
$w->event('d', charge_of('d', [[1, 1000], [2, 1999]], amount => 3000));
is $w->credits('d'), '5/0/1', 'all but a cent: one credit is left';

# Whose it is: by the payment too, and after the customer is gone.
sub ticket { my $r = $w->row('SELECT * FROM billing.customer_ticket($1, $2, $3)', @_); return $r ? join ' ', map { $_ // '-' } @$r{qw(account customer former)} : 'unknown' }
is ticket(undef, undef, 'pi_d'), 'd cus_d 0', "a pack's payment names its account";
is ticket(undef, undef, 'pi_in_c'), 'c cus_c 0', "an invoice's too";
is ticket(undef, undef, 'pi_of_nobody'), 'unknown', 'one that we do not know does not';
is ticket('cus_nobody', undef, 'pi_d'), 'd cus_d 1', 'known by its payment, though paid by another customer';
$w->event('d', { kind => 'customer_deleted' }, undef, at => $T0 + 10);
is ticket('cus_d', undef, undef), 'd - 1', 'a customer that is gone still has its account';
is ticket('cus_d', 'nobody', 'pi_d'), 'unknown', 'but a session that names another does not get it';
$w->event('d', charge_of('d', [[1, 1000], [2, 1999], [3, 1]], amount => 3000), undef,
    ticket => $w->value(q{SELECT ticket FROM billing.customer_ticket('cus_d', NULL, 'pi_d')}));
is $w->credits('d'), '4/0/0', 'so that its refunds are settled';
$w->account('x');
ok !eval { $w->event('x', charge_of('d', [[1, 3000]])); 1 }, "another account's charge is refused";
is $w->d->state, 'BI002', 'with a code';

# Disputes: told.
$w->account('e');
$w->event('e', pack_of('e'));
$w->told('e');
$w->event('e', dispute_of('e', 'needs_response'), undef, id => 'evt_dispute');
is $w->told('e'), 'payment-disputed', 'a dispute is told';
is_deeply decode_json($w->value(q{SELECT payload FROM billing.outbox WHERE topic = 'subscription:payment-disputed'})),
    { tier => 'free', status => 'active', amount => 1000, currency => 'usd', message => 'The payment is disputed.' }, 'with the amount';
$w->event('e', dispute_of('e', $_)) for qw(needs_response under_review);
is $w->told('e'), '', 'once';
is $w->state_of('e'), 'free active none', 'and changes nothing where nothing else is wanted';
is $w->credits('e'), '14/0/10', 'nor does it take anything while it is open';
$w->event('e', dispute_of('e', 'lost'));
is $w->credits('e'), '4/0/0', 'it is lost: the credits are taken back';
$w->event('e', dispute_of('e', 'under_review'), undef, ticket => 1);
is $w->credits('e'), '4/0/0', 'which an old look does not undo';
is audited('e'), 'payment.disputed 1000 usd -; dispute.lost 1000 usd -', 'audited';
$w->event('e', dispute_of('e', 'won'));
is $w->credits('e'), '14/0/10', 'won after all: they come back';
$w->event('e', charge_of('e', [[1, 1000]]));
$w->event('e', dispute_of('e', 'lost'));
is $w->credits('e'), '4/0/0', 'what is refunded and lost is taken once';

# Maintenance, where it is wanted.
my %hold = (policy => 'maintenance');
for my $case (['an account without a subscription', 'h', 'free'], ['one with a plan', 'i', 'pro']) {
    my ($what, $name, $plan) = @$case;
    $w->account($name);
    $w->event($name, $sub, su($name)) if $plan eq 'pro';
    $w->event($name, pack_of($name));
    $w->told($name);
    $w->event($name, dispute_of($name, 'needs_response', %hold));
    like $w->state_of($name), qr/^$plan active payment/, "$what: maintenance";
    is $w->told($name), 'updated payment-disputed', 'told, beside the dispute';
    $w->event($name, pack_of($name));
    like $w->state_of($name), qr/^$plan active payment/, 'it lasts';
    $w->event($name, dispute_of($name, 'won', %hold));
    like $w->state_of($name), qr/^$plan active none/, 'until it is won';
    is $w->told($name), 'updated', 'told';
    $w->event($name, dispute_of($name, 'needs_response', %hold), undef, ticket => 1);
    like $w->state_of($name), qr/^$plan active none/, 'an old look does not bring it back';
}
$w->event('i', dispute_of('in_i', 'lost', %hold));
like $w->state_of('i'), qr/^pro active payment/, 'one that is lost holds';
$w->event('i', $sub, su('i', status => 'past_due'));
$w->event('i', $sub, su('i'));
like $w->state_of('i'), qr/^pro active payment/, 'and paying an invoice does not end it';
$w->d->do(q{SELECT billing.account_set('i', '{"maintenance": "none"}', 'ann')});
$w->event('i', $sub, su('i'));
$w->event('i', dispute_of('in_i', 'lost', %hold));
like $w->state_of('i'), qr/^pro active none/, 'but an operator does';
$w->event('i', dispute_of('in_i2', 'needs_response', %hold));
like $w->state_of('i'), qr/^pro active payment/, 'a new one holds anew';
$w->event('i', $sub, su('i', status => 'canceled', ended_at => $T0 + 5 * $DAY));
is $w->state_of('i'), 'free active payment', 'also beyond the end of the subscription';
$w->event('i', dispute_of('in_i2', 'warning_closed', %hold));
is $w->state_of('i'), 'free active none', 'an inquiry that is closed without a dispute ends it';
$w->d->do(q{SELECT billing.account_set('i', '{"maintenance": "operator"}', 'ann')});
$w->event('i', dispute_of('in_i3', 'needs_response', %hold));
$w->event('i', dispute_of('in_i3', 'won', %hold));
is $w->state_of('i'), 'free active operator', "an operator's stays";
$w->event('i', dispute_of('in_i4', 'needs_response', %hold));
$w->d->do(q{SELECT billing.account_set('i', '{"maintenance": "none"}', 'ann')});
$w->event('i', pack_of('i5'));
is $w->state_of('i'), 'free active none', 'and whoever ends that has ended the other too';

# Closed before it is known to be open.
$w->account('j');
$w->event('j', pack_of('j'));
$w->told('j');
$w->event('j', dispute_of('j', 'won', %hold)) for 1 .. 2;
is $w->state_of('j'), 'free active none', 'won before it was known: nothing is held';
is $w->told('j'), 'payment-disputed', 'told once all the same';
is audited('j'), 'payment.disputed 1000 usd -; dispute.won 1000 usd -', 'audited, both';
$w->account('k');
$w->event('k', dispute_of('k', 'lost'));
$w->event('k', pack_of('k'));
is $w->credits('k'), '4/0/0', 'lost before its pack was known: the pack comes and goes';

# Without a free plan, what has ended stays closed.
my $n = StripeWorld->new(no_free => 1);
$n->account('n');
$n->event('n', $sub, su('n'));
$n->event('n', dispute_of('in_n', 'needs_response', %hold));
$n->event('n', $sub, su('n', status => 'canceled'));
$n->event('n', dispute_of('in_n', 'won', %hold));
is $n->state_of('n'), 'pro canceled payment', 'a dispute that is won opens nothing that the end has closed';

# At the same moment.
$w->account('p');
$w->event('p', pack_of('p'));
my @said = $w->at_once(8, sub { my ($mine, $n) = @_; $mine->event('p', charge_of('p', [[1, 500]])); 'ok' });
is "@said", join(' ', ('ok') x 8), 'eight events about one refund at once';
is $w->credits('p'), '9/0/5', 'take it back once';
is audited('p'), 'payment.refunded 500 usd -', 'with one audit row';
done_testing;
