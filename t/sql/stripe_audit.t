# Promise (S11): whatever an event changes leaves exactly one audit row for each change, with who did it, what was before and after, and,
# where money moved, invoice, amount, currency and attempt; the same event again leaves none; no row can be changed or taken away.
use strict;
use warnings;
use JSON::PP;
use Test::More;
use FindBin qw($Bin);
require "$Bin/stripe_world.pl";

my $w = StripeWorld->new;
my ($T0, $DAY) = (StripeWorld::t0(), StripeWorld::day());
my $json = JSON::PP->new->canonical;
my $catalog = StripeWorld::catalog();
$catalog->{features} = ['sso'];
$w->db->apply_catalog($catalog);
my $id = $w->account('a');

sub sub_ { my ($status, $plan, %o) = @_; return [StripeWorld::sub_of('sub_a', $status, $plan, %o)] }
sub invoice {
    my ($kind, $number, $reason, $attempt, %o) = @_;
    return { kind => $kind, invoice => "in_$number", subscription => 'sub_a', billing_reason => $reason, price => 'price_pro', amount => 7900,
        currency => 'usd', attempt => $attempt, payment_intent => "pi_$number", period_start => $T0 + 30 * $number * $DAY,
        period_end => $T0 + 30 * ($number + 1) * $DAY, policy => 'maintenance', grace_seconds => 7 * $DAY, %o };
}
my %second = (start => $T0 + 30 * $DAY, created => $T0);
my $grace = '2027-02-21T08:00:00+00:00';

# What happens, by which event; and the rows that it leaves: action invoice amount currency attempt before > after.
my @table = (
    ['a checkout', { kind => 'checkout_completed', session => 'cs_1', mode => 'subscription', payment_status => 'paid' }, sub_('active', 'starter'),
        'account.change - - - - {"plan":"free"} > {"plan":"starter"}',
        'credits.allocate - - - - {"credit":"logo","remaining":4,"used":0} > {"credit":"logo","remaining":20,"used":0}'],
    ['its payment', invoice('invoice_paid', 0, 'subscription_create', 1, price => 'price_starter', amount => 2900), sub_('active', 'starter'),
        'payment.succeeded in_0 2900 usd 1 - > {"reason":"subscription_create","subscription":"sub_a"}'],
    ['a change of plan', { kind => 'subscription' }, sub_('active', 'pro'),
        'account.change - - - - {"plan":"starter"} > {"plan":"pro"}',
        'credits.allocate - - - - {"credit":"logo","remaining":20,"used":0} > {"credit":"logo","remaining":50,"used":0}',
        'credits.allocate - - - - {"credit":"video","remaining":0,"used":0} > {"credit":"video","remaining":10,"used":0}'],
    ['a failed renewal', invoice('invoice_failed', 1, 'subscription_cycle', 1), sub_('past_due', 'pro', %second), at => $T0 + 30 * $DAY,
        'payment.failed in_1 7900 usd 1 - > {"reason":"subscription_cycle","subscription":"sub_a"}',
        qq(account.change - - - - {"grace_until":null,"maintenance":"none","status":"active"} > {"grace_until":"$grace","maintenance":"payment","status":"past_due"})],
    ['the next try', invoice('invoice_failed', 1, 'subscription_cycle', 2), sub_('past_due', 'pro', %second), at => $T0 + 33 * $DAY,
        'payment.failed in_1 7900 usd 2 - > {"reason":"subscription_cycle","subscription":"sub_a"}'],
    ['paid', invoice('invoice_paid', 1, 'subscription_cycle', 3), sub_('active', 'pro', %second), at => $T0 + 35 * $DAY,
        'payment.succeeded in_1 7900 usd 3 - > {"reason":"subscription_cycle","subscription":"sub_a"}',
        qq(account.change - - - - {"grace_until":"$grace","maintenance":"payment","status":"past_due"} > {"grace_until":null,"maintenance":"none","status":"active"}),
        'credits.refill in_1 - - - {"credit":"logo","remaining":50,"used":0} > {"credit":"logo","remaining":50,"used":0}',
        'credits.refill in_1 - - - {"credit":"video","remaining":10,"used":0} > {"credit":"video","remaining":10,"used":0}'],
    ['a pack that is not paid yet', StripeWorld::pack_of('w', payment_status => 'unpaid', amount => 1000, currency => 'usd'), undef],
    ['and will not be', { kind => 'checkout_failed', session => 'cs_w', mode => 'payment', payment_intent => 'pi_w', amount => 1000, currency => 'usd' },
        undef, 'payment.failed - 1000 usd - - > {"payment_intent":"pi_w","price":"price_pack","session":"cs_w"}'],
    ['a subscription that is not paid', { kind => 'checkout_failed', session => 'cs_s', mode => 'subscription', amount => 7900, currency => 'usd' }, undef],
    ['a pack for nothing', StripeWorld::pack_of('n', payment_status => 'no_payment_required', amount => 0, currency => 'usd'), undef,
        'credits.grant - - - - {"credit":"logo","remaining":50,"used":0} > {"credit":"logo","remaining":60,"used":0}'],
    ['back to where it was', StripeWorld::charge_of('n', [[1, 10]], amount => 10), undef,
        'payment.refunded - 10 usd - - > {"charge":"ch_n","refund":"re_n_1"}',
        'credits.adjust - - - - {"credit":"logo","remaining":60,"used":0} > {"credit":"logo","remaining":50,"used":0}'],
    ['what is no pack', StripeWorld::pack_of('o', price => 'price_gold', amount => 5, currency => 'usd'), undef,
        'payment.succeeded - 5 usd - - > {"payment_intent":"pi_o","price":"price_gold","session":"cs_o"}',
        'alarm - - - - - > {"alarm":"unknown_price","price":"price_gold","session":"cs_o"}'],
    ['a pack', StripeWorld::pack_of('a', amount => 1000, currency => 'usd'), undef,
        'payment.succeeded - 1000 usd - - > {"payment_intent":"pi_a","price":"price_pack","session":"cs_a"}',
        'credits.grant - - - - {"credit":"logo","remaining":50,"used":0} > {"credit":"logo","remaining":60,"used":0}'],
    ['a refund of the pack', StripeWorld::charge_of('a', [[1, 500]]), undef,
        'payment.refunded - 500 usd - - > {"charge":"ch_a","refund":"re_a_1"}',
        'credits.adjust - - - - {"credit":"logo","remaining":60,"used":0} > {"credit":"logo","remaining":55,"used":0}'],
    ['which fails', StripeWorld::charge_of('a', [[1, 500, 'failed']]), undef,
        'refund.failed - 500 usd - - > {"charge":"ch_a","refund":"re_a_1"}',
        'credits.adjust - - - - {"credit":"logo","remaining":55,"used":0} > {"credit":"logo","remaining":60,"used":0}'],
    ['a refund of an invoice', do { my $e = StripeWorld::charge_of('x', [[1, 7900]], amount => 7900); $e->{seen}{payment_intent} = 'pi_1'; $e }, undef,
        'payment.refunded in_1 7900 usd - - > {"charge":"ch_x","refund":"re_x_1"}'],
    ['a dispute', StripeWorld::dispute_of('a', 'needs_response', policy => 'maintenance'), undef,
        'payment.disputed - 1000 usd - - > {"charge":"ch_a","dispute":"du_a","reason":"fraudulent","status":"needs_response"}',
        'account.change - - - - {"maintenance":"none"} > {"maintenance":"payment"}'],
    ['which is won', StripeWorld::dispute_of('a', 'won', policy => 'maintenance'), undef,
        'dispute.won - 1000 usd - - > {"charge":"ch_a","dispute":"du_a","reason":"fraudulent","status":"won"}',
        'account.change - - - - {"maintenance":"payment"} > {"maintenance":"none"}'],
    ['a feature', { kind => 'entitlements', seen => ['sso'] }, undef,
        'feature.override - - - - - > {"enabled":true,"expires_at":null,"feature":"sso","feature_no":0,"source":"stripe"}'],
    ['an unknown price', { kind => 'subscription' }, sub_('active', 'nobody', %second),
        'alarm - - - - - > {"alarm":"unknown_price","prices":["price_nobody"],"subscription":"sub_a"}'],
    ['the end of the customer', { kind => 'customer_deleted' }, undef, at => $T0 + 60 * $DAY,
        'customer.unlink - - - - {"customer":"cus_a"} > -',
        'feature.override - - - - {"enabled":true,"expires_at":null,"feature":"sso","feature_no":0,"source":"stripe"} > -',
        'account.change - - - - {"plan":"pro"} > {"plan":"free"}',
        'credits.adjust - - - - {"credit":"logo","remaining":60,"used":0} > {"credit":"logo","remaining":14,"used":0}',
        'credits.adjust - - - - {"credit":"video","remaining":10,"used":0} > {"credit":"video","remaining":0,"used":0}'],
);
my $seen = $w->value('SELECT max(id) FROM billing.audit_log') // 0;
sub rows {
    my $rows = $w->rows('SELECT * FROM billing.audit_log WHERE id > $1 ORDER BY id', $seen);
    $seen = $rows->[-1]{id} if @$rows;
    return $rows;
}
sub sorted { my ($text) = @_; return defined $text ? $json->encode($json->decode($text)) : '-' }
my $n = 0;
for my $case (@table) {
    my ($what, $effect, $list, @rest) = @$case;
    my %when = @rest && $rest[0] eq 'at' ? splice @rest, 0, 2 : ();
    my $event = 'evt_audit_' . ++$n;
    $w->event('a', $effect, $list, %when, id => $event);
    my $rows = rows();
    is_deeply [sort map { join ' ', (map { $_ // '-' } @$_{qw(action invoice_id amount currency attempt)}), sorted($_->{before}), '>', sorted($_->{after}) } @$rows],
        [sort @rest], "$what: a row for each change, and no other";
    is_deeply [grep { $_ ne "event:$event $id" } map { "$_->{actor} $_->{account_id}" } @$rows], [], 'by this event, of this account';
    my $again = eval { $w->event('a', $effect, $list, %when, id => "${event}_again"); 1 };
    is scalar(@{ rows() }), 0, 'told again: none' if $again;
}

for my $how ('UPDATE billing.audit_log SET actor = actor', 'DELETE FROM billing.audit_log', 'TRUNCATE billing.audit_log') {
    ok !eval { $w->d->do($how); 1 }, "append-only: $how";
}
done_testing;
