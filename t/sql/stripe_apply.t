# Promise (W4, W6, W7, W10, S11, N1): what an account has is computed from all of its subscriptions; no event about an old one,
# an unknown price or a checkout that came to nothing takes it away; each change is published, audited and told once.
use strict;
use warnings;
use JSON::PP;
use Test::More;
use FindBin qw($Bin);
require "$Bin/stripe_world.pl";

my $w = StripeWorld->new;
my ($T0, $DAY) = (StripeWorld::t0(), StripeWorld::day());
*su = \&StripeWorld::sub_of;
my $sub = { kind => 'subscription' };
sub state_is { my ($name, $want, $title) = @_; local $Test::Builder::Level = 2; is $w->state_of($name), $want, $title }

# The life of one subscription.
my $id = $w->account('a');
my $version = $w->value('SELECT ent_version FROM billing.accounts WHERE id = $1', $id);
is_deeply $w->event('a', $sub, [su('sub_a', 'incomplete', 'pro')]), { account => 'a', plan_before => 'free', plan => 'free',
    status_before => 'active', status => 'active', stale => JSON::PP::false }, 'the answer has what the log line needs';
state_is('a', 'free active none', 'a first payment that has not come changes nothing (C8)');
is $w->value('SELECT ent_version FROM billing.accounts WHERE id = $1', $id), $version, 'and publishes nothing';
is $w->told('a'), '', 'and tells nothing';
is $w->event('a', $sub, [su('sub_a', 'trialing', 'pro', trial_end => $T0 + 30 * $DAY)])->{plan}, 'pro', 'a trial';
state_is('a', 'pro trialing none from=0 to=30 trial=30', 'gives the plan, with its times');
is $w->told('a'), 'activated', 'and is told';
is $w->value('SELECT ent_version FROM billing.accounts WHERE id = $1', $id), $version + 1, 'one new version for one event';
is $w->value('SELECT version FROM billing.snapshot_dirty WHERE account_id = $1', $id), $version + 1, 'which is published';
$w->event('a', $sub, [su('sub_a', 'active', 'pro')]);
state_is('a', 'pro active none from=0 to=30', 'active');
is $w->told('a'), 'updated', 'told';
$w->event('a', $sub, [su('sub_a', 'active', 'pro')]);
is $w->told('a'), '', 'the same again is not';
is $w->value('SELECT ent_version FROM billing.accounts WHERE id = $1', $id), $version + 2, 'nor published';
$w->event('a', $sub, [su('sub_a', 'active', 'agency')]);
state_is('a', 'agency active none from=0 to=30', 'a change of price changes the plan');
$w->event('a', $sub, [su('sub_a', 'active', ['price_addon', 'price_starter', 'price_pro'])]);
state_is('a', 'pro active none from=0 to=30', 'the plan is found anywhere among the items, the best counts');
$w->event('a', $sub, [{ %{ su('sub_a', 'active', 'pro') }, prices => undef, items => [{ price => 'price_addon', period_start => $T0,
    period_end => $T0 + 365 * $DAY }, { price => 'price_pro', period_start => $T0 + $DAY, period_end => $T0 + 31 * $DAY }] }]);
state_is('a', 'pro active none from=1 to=31', "items with periods of their own: that of the plan's price counts");
$w->event('a', $sub, [{ %{ su('sub_a', 'active', 'pro') }, prices => undef, items => [{ price => 'price_pro' }] }]);
state_is('a', 'pro active none from=0 to=30', "without: the subscription's");
$w->told('a');
$w->event('a', $sub, [su('sub_a', 'active', 'pro', cancel_at => $T0 + 30 * $DAY)]);
state_is('a', 'pro active none from=0 to=30 cancel=30', 'a pending cancellation');
my $told = $w->rows(q{SELECT payload FROM billing.outbox WHERE account_id = $1 ORDER BY id DESC LIMIT 1}, $id)->[0]{payload};
is_deeply JSON::PP::decode_json($told), { tier => 'pro', status => 'active', cancelAtPeriodEnd => JSON::PP::true }, 'told as such (N1)';
$w->told('a');
$w->event('a', $sub, [{ %{ su('sub_a', 'active', 'pro') }, period_start => undef, period_end => undef }]);
state_is('a', 'pro active none from=0 to=30', 'a period that Stripe does not tell stays as it was');
$w->event('a', $sub, [su('sub_a', 'canceled', 'pro', ended_at => $T0 + 30 * $DAY)]);
state_is('a', 'free active none', 'the end: free, all times gone');
is $w->told('a'), 'updated canceled', 'told';
$told = $w->rows(q{SELECT payload FROM billing.outbox WHERE account_id = $1 ORDER BY id DESC LIMIT 1}, $id)->[0]{payload};
is_deeply JSON::PP::decode_json($told), { tier => 'free', status => 'canceled' }, 'as canceled, with the tier that is left';
$w->event('a', $sub, [su('sub_a', 'active', 'pro')]);
state_is('a', 'free active none', 'what is over stays over, whatever an old answer says');
my $audit = $w->rows(q{SELECT actor, before, after FROM billing.audit_log WHERE account_id = $1 AND action = 'account.change' ORDER BY id}, $id);
is $audit->[0]{actor}, 'event:evt_2', 'the audit names the event';
is_deeply JSON::PP::decode_json($audit->[-1]{after}), { plan => 'free' }, 'and what it changed';

$w->account('x1');
$w->event('x1', $sub, [su('sub_x1', $_, 'pro')]) for qw(incomplete incomplete_expired active);
state_is('x1', 'free active none', 'a first payment that never came is over as well');

# Several subscriptions.
$w->account('b');
my @two = (su('sub_b1', 'active', 'starter'), su('sub_b2', 'active', 'pro', created => $T0 + 5, start => $T0 + $DAY));
$w->event('b', $sub, [$two[0]]);
$w->event('b', $sub, \@two);
state_is('b', 'pro active none from=1 to=31', 'of two the best counts');
is $w->value(q{SELECT count(*) FROM billing.outbox WHERE topic = 'alarm' AND payload ->> 'alarm' = 'second_subscription'}), 1,
    'and a second one raises an alarm';
$w->event('b', $sub, [reverse @two]);
state_is('b', 'pro active none from=1 to=31', 'in whatever order they are listed');
is $w->value(q{SELECT count(*) FROM billing.outbox WHERE topic = 'alarm'}), 1, 'one alarm';
$w->told('b');
$w->event('b', $sub, [su('sub_b1', 'canceled', 'starter', ended_at => $T0 + 9), $two[1]]);
state_is('b', 'pro active none from=1 to=31', 'the end of the old one changes nothing');
is $w->told('b'), '', 'and tells nothing';
$w->event('b', $sub, [su('sub_b1', 'canceled', 'starter', ended_at => $T0 + 9), su('sub_b2', 'past_due', 'pro')]);
like $w->state_of('b'), qr/^pro past_due none/, 'past due is live';
$w->event('b', $sub, [su('sub_b3', 'active', 'starter'), su('sub_b2', 'past_due', 'pro')], at => $T0);
like $w->state_of('b'), qr/^pro past_due/, 'within its grace the higher plan stands';
$w->event('b', { %$sub, policy => 'grace', grace_seconds => 60 }, [su('sub_b3', 'active', 'starter'), su('sub_b2', 'past_due', 'pro')]);
$w->d->do(q{UPDATE billing.subscriptions SET past_due_since = now() - interval '1 h' WHERE subscription_id = 'sub_b2'});
$w->event('b', { %$sub, policy => 'grace', grace_seconds => 60 }, [su('sub_b3', 'active', 'starter'), su('sub_b2', 'past_due', 'pro')]);
like $w->state_of('b'), qr/^starter active none/, 'after it the one that is paid';
$w->event('b', $sub, [su('sub_b3', 'canceled', 'starter'), su('sub_b2', 'unpaid', 'pro')]);
like $w->state_of('b'), qr/^pro unpaid/, 'unpaid: the plan without access, until it is paid or over';
$w->event('b', $sub, [su('sub_b2', 'paused', 'pro')]);
like $w->state_of('b'), qr/^pro paused/, 'paused likewise';
$w->event('b', $sub, [su('sub_b2', 'hibernating', 'pro')]);
like $w->state_of('b'), qr/^pro paused/, 'a status that we do not know gives no access';
is $w->value(q{SELECT count(*) FROM billing.outbox WHERE payload ->> 'alarm' = 'unknown_status'}), 1, 'and raises an alarm';
$w->event('b', $sub, [su('sub_b2', 'active', 'pro')]);
like $w->state_of('b'), qr/^pro active none/, 'resumed';
is_deeply [@{ $w->rows('SELECT status FROM billing.subscriptions WHERE account_id = (SELECT id FROM billing.accounts
    WHERE external_id = $1) ORDER BY subscription_id', 'b') }], [map { { status => $_ } } qw(canceled active canceled)],
    'one that is missing in a list stays as it was';

# A price that the catalog does not know.
$w->account('u');
$w->event('u', $sub, [su('sub_u', 'active', 'pro')]);
$w->event('u', $sub, [su('sub_u', 'active', 'nobody')]) for 1 .. 2;
state_is('u', 'pro active none from=0 to=30', 'an unknown price keeps the plan');
is $w->value(q{SELECT count(*) FROM billing.outbox WHERE payload ->> 'alarm' = 'unknown_price'}), 1, 'one alarm';
is $w->value(q{SELECT count(*) FROM billing.audit_log WHERE action = 'alarm' AND after ->> 'subscription' = 'sub_u'}), 1, 'one audit row';
$w->event('u', $sub, [su('sub_u', 'past_due', 'nobody')]);
like $w->state_of('u'), qr/^pro past_due/, 'its status counts';
$w->event('u', $sub, [su('sub_u', 'past_due', 'nobody'), su('sub_u2', 'active', 'starter')]);
like $w->state_of('u'), qr/^starter active/, 'one with a known price is preferred';
$w->event('u', $sub, [su('sub_u', 'canceled', 'nobody'), su('sub_u2', 'canceled', 'starter')]);
state_is('u', 'free active none', 'and all ends as usual');

# It keeps the plan of that subscription, not whatever the account has.
$w->account('v');
$w->event('v', $sub, [su('sub_v', 'active', 'nobody')]);
state_is('v', 'free active none', 'W6: a new subscription of an unknown price alone gives nothing');
is $w->value(q{SELECT count(*) FROM billing.outbox WHERE payload ->> 'subscription' = 'sub_v' AND payload ->> 'alarm' = 'unknown_price'}), 1,
    'and raises an alarm';
$w->event('v', $sub, [su('sub_v', 'active', 'nobody'), su('sub_v2', 'active', 'agency')]);
state_is('v', 'agency active none from=0 to=30', 'beside one that is known it does not count');
$w->event('v', { %$sub, policy => 'grace', grace_seconds => 60 }, [su('sub_v', 'active', 'nobody'), su('sub_v2', 'unpaid', 'agency')]);
like $w->state_of('v'), qr/^agency unpaid none/, 'nor does it keep alive what another one has ceased to pay for';
$w->event('v', $sub, [su('sub_v', 'active', 'nobody'), su('sub_v2', 'canceled', 'agency')]);
state_is('v', 'free active none', 'or has ended');
$w->event('v', $sub, [su('sub_v3', 'active', 'starter'), su('sub_v', 'canceled', 'nobody')]);
$w->event('v', $sub, [su('sub_v3', 'active', 'nobody'), su('sub_v4', 'canceled', 'pro')]);
state_is('v', 'starter active none from=0 to=30', 'it keeps its own plan, and its own times');
$w->d->do(q{SELECT billing.account_set('v', '{"plan": "agency"}', 'ann')});
ok $w->value(q{SELECT billing.account_strays(id) FROM billing.accounts WHERE external_id = 'v'}), 'an account that has another one strays (W12)';
$w->event('v', $sub, [su('sub_v3', 'active', 'nobody')]);
state_is('v', 'starter active none from=0 to=30', 'and is brought back');
is $w->value(q{SELECT count(*) FROM billing.outbox WHERE payload ->> 'subscription' = 'sub_v3' AND payload ->> 'alarm' = 'unknown_price'}), 1,
    'the alarm is raised though its plan is known';
$w->event('v', $sub, [su('sub_v3', 'active', 'nobody', start => $T0 + 30 * $DAY)]);
$w->event('v', { kind => 'invoice_paid', invoice => 'in_v', subscription => 'sub_v3', billing_reason => 'subscription_cycle', price => 'price_nobody',
    period_start => $T0 + 30 * $DAY, period_end => $T0 + 60 * $DAY, amount => 1, currency => 'usd', attempt => 1 },
    [su('sub_v3', 'active', 'nobody', start => $T0 + 30 * $DAY)]);
is $w->value(q{SELECT count(*) FROM billing.credit_ledger WHERE idem_key = 'refill:in_v:logo' AND quantity = 20}), 1, "its renewal brings its plan's credits";

# What no subscription has given, none takes away.
$w->account('o');
$w->d->do(q{SELECT billing.account_set('o', '{"plan": "agency", "maintenance": "operator"}', 'ann')});
$w->event('o', $sub, [su('sub_o', 'canceled', 'pro')]);
$w->event('o', { kind => 'customer_updated', seen => { email => 'o@example.com', name => 'O' } });
state_is('o', 'agency active operator', 'a plan given by hand survives events about subscriptions that are over');
$w->event('o', $sub, [su('sub_o2', 'active', 'pro')]);
state_is('o', 'pro active operator from=0 to=30', "an operator's maintenance is not ended by an event");
$w->event('o', $sub, [su('sub_o2', 'canceled', 'pro')]);
state_is('o', 'free active operator', 'nor by the last one');

# Tickets.
$w->account('t');
my @tickets = map { $w->ticket('t') } 1 .. 3;
ok !$w->event('t', $sub, [su('sub_t', 'active', 'pro')], ticket => $tickets[1])->{stale}, 'a look';
ok $w->event('t', $sub, [su('sub_t', 'active', 'agency')], ticket => $tickets[0])->{stale}, 'an earlier look that comes later is stale';
state_is('t', 'pro active none from=0 to=30', 'and changes nothing');
$w->event('t', $sub, [su('sub_t', 'active', 'starter')], ticket => $tickets[1]);
state_is('t', 'pro active none from=0 to=30', 'nor does the same ticket again');
$w->event('t', $sub, [su('sub_t', 'active', 'starter')], ticket => $tickets[2]);
state_is('t', 'starter active none from=0 to=30', 'a later look does');
ok !eval { $w->event('t', $sub, [su('sub_t', 'active', 'agency')], ticket => 99); 1 }, 'a ticket that was never given is refused';

# The customer.
sub person { return join ' ', map { $_ // '-' } @{ $w->row('SELECT email, name FROM billing.accounts WHERE external_id = $1', $_[0]) }{qw(email name)} }
is person('o'), 'o@example.com O', 'email and name';
@tickets = map { $w->ticket('o') } 1 .. 2;
$w->event('o', { kind => 'customer_updated', seen => { email => 'new@example.com' } }, undef, ticket => $tickets[1]);
$w->event('o', { kind => 'customer_updated', seen => { email => 'old@example.com', name => 'Old' } }, undef, ticket => $tickets[0]);
is person('o'), 'new@example.com O', 'an older look does not replace them, an absent value does not erase them';
$w->account('g');
$w->event('g', $sub, [su('sub_g', 'active', 'pro')]);
$w->event('g', { kind => 'customer_deleted' }, undef, at => $T0 + 10);
state_is('g', 'free active none', 'a deleted customer has no subscriptions');
is $w->value(q{SELECT stripe_customer_id FROM billing.accounts WHERE external_id = 'g'}), undef, 'and no link';
is $w->value(q{SELECT status FROM billing.subscriptions WHERE subscription_id = 'sub_g'}), 'canceled', 'its subscription is over';
$w->d->do(q{SELECT * FROM billing.customer_link('g', 'cus_g2')});
is $w->event('g', $sub, [su('sub_g9', 'active', 'starter')], customer => 'cus_g2', ticket =>
    $w->value(q{SELECT ticket FROM billing.customer_ticket('cus_g2', NULL)}))->{plan}, 'starter', 'the next customer starts anew';
$w->event('g', { kind => 'customer_deleted' }, undef, at => $T0 + 10, id => 'evt_late');
like $w->state_of('g'), qr/^starter active/, 'a late event about the former customer does not touch it';

$w->event('g', { kind => 'customer_deleted' }, undef, customer => 'cus_g2', at => $T0 + 20);
$w->event('g', { kind => 'checkout_completed', session => 'cs_g', mode => 'subscription', customer => 'cus_g2', payment_status => 'paid' },
    undef, customer => 'cus_g2');
is $w->value(q{SELECT stripe_customer_id FROM billing.accounts WHERE external_id = 'g'}), undef,
    'a late checkout does not bring back a customer that is gone';

# Others' things.
$w->account('x');
my $refused = eval { $w->event('x', $sub, [su('sub_t', 'active', 'pro')]); 1 };
ok !$refused, "another account's subscription is refused";
is $w->d->state, 'BI002', 'with a code of its own';
ok !eval { $w->event('x', { kind => 'none' }, undef, customer => 'cus_t'); 1 }, "so is another customer's event";
is $w->d->state, 'BI002', 'likewise';
ok !eval { $w->event('x', { kind => 'nonsense' }); 1 }, 'an effect that does not exist is refused';
state_is('x', 'free active none', 'nothing of them stays');

# A catalog without a free plan.
my $n = StripeWorld->new(no_free => 1);
$n->account('n');
$n->event('n', $sub, [su('sub_n', 'incomplete', 'pro')]);
is $n->state_of('n'), 'free active none', 'without a free plan: nothing has begun, nothing ends';
$n->event('n', $sub, [su('sub_n', 'active', 'pro')]);
$n->event('n', $sub, [su('sub_n', 'canceled', 'pro')]);
is $n->state_of('n'), 'pro canceled payment', 'the end is canceled and maintenance (E)';
$n->event('n', $sub, [su('sub_n2', 'active', 'starter')]);
is $n->state_of('n'), 'starter active none from=0 to=30', 'which a new subscription mends';
done_testing;
