# Promise (W10, W6): features that Stripe grants by lookup key are there, and go, as Stripe has them, whatever comes first; a trial's
# end is told once; a subscription whose invoices are voided is had to the end of what was paid; a price that nobody knows opens nothing.
use strict;
use warnings;
use JSON::PP;
use Test::More;
use FindBin qw($Bin);
require "$Bin/stripe_world.pl";

my $w = StripeWorld->new;
my ($T0, $DAY) = (StripeWorld::t0(), StripeWorld::day());
my $sub = { kind => 'subscription' };
sub su { my ($name, $status, %o) = @_; return [StripeWorld::sub_of("sub_$name", $status, delete $o{price} // 'pro', %o)] }

# --- entitlements
my $catalog = StripeWorld::catalog();
$catalog->{features} = [map { "f$_" } 1 .. 30];
$w->db->apply_catalog($catalog);
sub granted { return { kind => 'entitlements', seen => [@_] } }
sub features { return $w->value(q{SELECT string_agg(feature_key || CASE WHEN enabled THEN '' ELSE '-' END || ' ' || source, ', ' ORDER BY feature_no)
    FROM billing.account_features JOIN billing.features USING (feature_no) JOIN billing.accounts a ON a.id = account_id WHERE external_id = $1}, $_[0]) // '' }
my $id = $w->account('a');
sub version { return $w->value('SELECT ent_version FROM billing.accounts WHERE id = $1', $id) }
my $version = version();
$w->event('a', granted(qw(f1 f3 unheard-of)));
is features('a'), 'f1 stripe, f3 stripe', 'features by lookup key; one that the catalog does not know is no error';
cmp_ok version(), '>', $version, 'published';
like $w->value(q{SELECT body FROM billing.snapshots(ARRAY['a'], false)}), qr/"features":\{"0":\{"on":true/, 'the snapshot has them';
$version = version();
$w->event('a', granted(qw(f3 unheard-of f1)));
is version(), $version, 'the same again changes nothing';
$w->event('a', granted(qw(f3 f4)));
is features('a'), 'f3 stripe, f4 stripe', 'what it loses is taken away';
is $w->value(q{SELECT count(*) FROM billing.audit_log WHERE account_id = $1 AND action = 'feature.override' AND actor LIKE 'event:%'}, $id), 4,
    'each change is audited (S11)';
$w->event('a', granted(map { "f$_" } 1 .. 30));
is scalar(my @all = split /, /, features('a')), 30, 'more than ten';
my @t = map { $w->ticket('a') } 1 .. 2;
$w->event('a', granted('f2'), undef, ticket => $t[1]);
$w->event('a', granted('f9'), undef, ticket => $t[0]);
is features('a'), 'f2 stripe', 'an earlier look that comes later changes nothing';
$w->d->do(q{SELECT billing.account_set('a', '{"features": {"f2": false, "f5": true}}', 'ann')});
$w->event('a', granted('f2', 'f6'));
is features('a'), 'f2- override, f5 override, f6 stripe', 'an override by hand stands before it';
$w->d->do(q{SELECT billing.account_set('a', '{"features": {"f2": null}}', 'ann')});
is features('a'), 'f2 stripe, f5 override, f6 stripe', 'W10: and when it is dropped, what Stripe grants is back at once';
is $w->value(q{SELECT string_agg(actor, ' ') FROM (SELECT actor FROM billing.audit_log WHERE account_id = $1 ORDER BY id DESC LIMIT 2) x}, $id),
    'ann ann', 'by who dropped it (S11)';
$w->d->do(q{SELECT billing.account_set('a', '{"features": {"f6": false}}', 'ann')});
$w->d->do(q{SELECT billing.account_set('a', '{"features": {"f5": true}}', 'ann')});
is features('a'), 'f2 stripe, f5 override, f6- override', 'and no other';
$w->d->do(q{SELECT billing.account_set('a', '{"features": {"f6": null, "f7": null}}', 'ann')});
$w->event('a', $sub, []);
is features('a'), 'f2 stripe, f5 override, f6 stripe', 'the next event finds nothing to do';
$w->d->do(q{UPDATE billing.account_features SET enabled = false, source = 'support' WHERE source = 'stripe'});
$w->d->do(q{DELETE FROM billing.account_features WHERE source = 'support'});
is features('a'), 'f2 stripe, f5 override, f6 stripe', 'however it is dropped';
push @{ $catalog->{features} }, 'unheard-of';
$w->event('a', granted('f2', 'unheard-of'));
$w->db->apply_catalog($catalog);
$w->event('a', $sub, []);
is features('a'), 'f2 stripe, f5 override, unheard-of stripe', 'as it does for a feature that the catalog has learned';
$w->event('a', { kind => 'customer_deleted' }, undef, at => $T0 + 10);
is features('a'), 'f5 override', 'a deleted customer has none';
my $late = $w->row(q{SELECT ticket, former FROM billing.customer_ticket('cus_a', NULL)});
ok $late->{former}, 'and nobody looks at it any more';
$w->event('a', { kind => 'entitlements' }, undef, ticket => $late->{ticket});
is features('a'), 'f5 override', 'so that a late event brings nothing back';
$w->account('b');
$w->event('b', $sub, []);
is features('b'), '', 'who was never told of entitlements has none';

# --- a trial's end
$w->account('t');
my $ending = { kind => 'trial_ending', subscription => 'sub_t' };
$w->event('t', $ending, su('t', 'trialing', trial_end => $T0 + 30 * $DAY));
is $w->told('t'), 'activated trial-ending', 'the end of a trial is told';
is_deeply decode_json($w->value(q{SELECT payload FROM billing.outbox WHERE topic = 'subscription:trial-ending'})),
    { tier => 'pro', status => 'trialing', trialEnd => '2027-02-14T08:00:00Z', message => 'The trial is about to end.' }, 'with its time';
$w->event('t', $ending, su('t', 'trialing', trial_end => $T0 + 30 * $DAY));
is $w->told('t'), '', 'once';
like $w->state_of('t'), qr/^pro trialing none/, 'and access is as it was';
$w->event('t', $ending, su('t', 'trialing', trial_end => $T0 + 40 * $DAY));
is $w->told('t'), 'updated trial-ending', 'another end is told anew';
$w->event('t', $sub, su('t', 'paused'));
like $w->state_of('t'), qr/^pro paused/, 'over without a card: paused';
$w->event('t', $sub, su('t', 'active'));
like $w->state_of('t'), qr/^pro active/, 'and resumed';
$w->event('t', $sub, su('t', 'canceled'));
$w->told('t');
$w->event('t', $ending, su('t', 'canceled'));
is $w->told('t'), '', 'what is over is not announced';

# --- collection that is paused
sub paid { my ($name, $n) = @_; return { kind => 'invoice_paid', invoice => "in_${name}_$n", subscription => "sub_$name", billing_reason => $n ? 'subscription_cycle'
    : 'subscription_create', price => 'price_pro', period_start => $T0 + 30 * $n * $DAY, period_end => $T0 + 30 * ($n + 1) * $DAY,
    amount => 7900, currency => 'usd', attempt => 1 } }
sub month { my ($name, $n, $pause) = @_; return su($name, 'active', start => $T0 + 30 * $n * $DAY, created => $T0, pause => $pause) }
for my $order ('the payment first', 'the payment last') {
    my $name = $order =~ /first/ ? 'p' : 'q';
    $w->account($name);
    $w->event($name, paid($name, 0), month($name, 0)) if $order =~ /first/;
    $w->event($name, $sub, month($name, 0, 'void'));
    is $w->state_of($name), 'pro active none from=0 to=30', "$order: invoices are voided from now on: what was paid is had";
    $w->event($name, $sub, month($name, 1, 'void'));
    is $w->state_of($name), 'pro paused none from=30 to=60', 'to its end';
    $w->event($name, paid($name, 0), month($name, 1, 'void')) if $order =~ /last/;
    is $w->state_of($name), 'pro paused none from=30 to=60', 'then it is paused';
    my $credits = $w->credits($name);
    $w->event($name, $sub, month($name, 2, 'void'));
    is $w->credits($name), $credits, 'and brings nothing';
    $w->event($name, $sub, month($name, 2));
    is $w->state_of($name), 'pro active none from=60 to=90', 'collected again: active';
}
$w->account('r');
$w->event('r', paid('r', 0), month('r', 0));
$w->event('r', $sub, month('r', 2, 'void'));
is $w->state_of('r'), 'pro paused none from=60 to=90', 'seen late: what is not paid for is not had';
$w->event('r', $sub, month('r', 2, $_)) and is $w->state_of('r'), 'pro active none from=60 to=90', "$_: goes on"
    for qw(keep_as_draft mark_uncollectible);
$w->event('r', $sub, [@{ month('r', 2, 'void') }, StripeWorld::sub_of('sub_r2', 'active', 'starter', start => $T0 + 60 * $DAY)]);
like $w->state_of('r'), qr/^starter active/, 'one that is paid counts before it';

# The pass over all subscriptions does not take such an account for one that has gone astray, but sees when its pause ends (W12).
$w->account('s');
sub listed { return [{ id => 'sub_s', customer => 'cus_s', status => 'active', quantity => 1, created => $T0, pause => $_[0],
    items => [{ price => 'price_pro', period_start => $T0 + 30 * $DAY, period_end => $T0 + 60 * $DAY }] }] }
sub suspected { return $w->value(q{SELECT count(*) FROM billing.stripe_suspects($1, $2, $3) WHERE account = 's'},
    JSON::PP->new->encode(listed(@_)), $T0 - 10, $T0 + 10) }
$w->event('s', paid('s', 0), listed('void'));
is $w->state_of('s'), 'pro paused none from=30 to=60', 'paused';
is suspected('void'), 0, 'and known to be';
is suspected(undef), 1, 'no more';

# --- a price that the catalog does not know
$w->account('u');
$w->event('u', { kind => 'checkout_completed', session => 'cs_u', mode => 'subscription', payment_status => 'paid', price => 'price_pro' },
    su('u', 'active', price => 'unmapped'));
is $w->state_of('u') =~ s/ from.*//r, 'free active none', 'an unknown price gives no plan, whatever the checkout said';
is $w->credits('u'), '4/0/0', 'and no credits';
is $w->value(q{SELECT count(*) FROM billing.outbox WHERE payload ->> 'subscription' = 'sub_u' AND payload ->> 'alarm' = 'unknown_price'}), 1,
    'but an alarm';
done_testing;
