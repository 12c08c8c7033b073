# Promise (C1, C2, C4, C5, C8): a checkout sells what the catalog says; never two that can be paid, never a second
# subscription, one idempotency key for all who ask at once, on any number of hosts; and beginning one changes nothing.
use strict;
use warnings;
use POSIX ();
use Test::More;
use FindBin qw($Bin);
require "$Bin/stripe_world.pl";

my $w = StripeWorld->new;
my $T0 = StripeWorld::t0();
my $now = '2026-05-01T12:00:00Z';
sub begin { my ($world, $account, $price, $at) = @_; return $world->row('SELECT * FROM billing.checkout_begin($1, $2, p_now => $3)', $account, "price_$price", $at // $now) }
sub opened { my ($account, $intent, $session, $expires) = @_; return $w->value('SELECT billing.checkout_opened($1, $2, $3, $4, $5)',
    $account, $intent, $session, "https://pay/$session", $expires // $w->value(q{SELECT billing.unix($1::timestamptz + '1 h')}, $now)) }
sub closed { return $w->value('SELECT billing.checkout_closed($1, $2)', @_) }
sub some { my ($r, @keys) = @_; return join ' ', map { $_ // '-' } @$r{@keys} }

# What is for sale.
sub price {
    my $r = $w->row('SELECT * FROM billing.resolve_price($1, $2, false)', @_);
    return join ' ', map { $_ // () } @$r{qw(outcome price_id mode plan every pack credit quantity amount currency)};
}
is price('pro', undef), 'ok price_pro subscription pro month 7900 usd', 'a plan: by the month';
is price('pro', $_), 'ok price_pro_year subscription pro year 79000 usd', "by the year: $_" for qw(year yearly annual Yearly);
is price('pro_yearly', undef), 'ok price_pro_year subscription pro year 79000 usd', 'in one word';
is price('pro_monthly', ''), 'ok price_pro subscription pro month 7900 usd', 'likewise';
is price('price_pro_year', undef), 'ok price_pro_year subscription pro year 79000 usd', 'by its price';
is price('logo_10', undef), 'ok price_pack payment logo_10 logo 10 1000 usd', 'a pack';
is price('price_pack', undef), 'ok price_pack payment logo_10 logo 10 1000 usd', 'by its price';
is price('free', undef), 'no_price subscription free', 'the free plan has no price';
is price('starter', 'year'), 'unknown subscription starter', 'an interval that the plan does not have';
is price($_, undef), 'unknown', "unknown: '$_'" for 'gold', '', 'price_gold', '_monthly', 'gold_monthly', "pro'";
is price('pro', 'fortnight'), 'unknown', 'an interval that there is not';

# Beginning.
$w->account('a', unlinked => 1);
$w->d->do(q{UPDATE billing.accounts SET email = 'a@example.com', name = 'A' WHERE external_id = 'a'});
my $before = $w->value(q{SELECT ent_version FROM billing.accounts WHERE external_id = 'a'});
my $b = begin($w, 'a', 'pro');
is some($b, qw(outcome customer email name mode plan credit quantity session url current_plan current_status)),
    'create - a@example.com A subscription pro - - - - free active', 'all that the endpoint needs';
like $b->{customer_intent}, qr/^customer:[0-9a-f-]{36}$/, 'a key for the customer';
like $b->{intent}, qr/^subscription:[0-9a-f-]{36}$/, 'and one for the session';
is_deeply begin($w, 'a', 'pro', '2026-05-01T12:09:00Z'), $b, 'who asks meanwhile gets the same';
isnt begin($w, 'a', 'pro', '2026-05-01T12:11:00Z')->{intent}, $b->{intent}, 'after ten minutes without an answer a new one';
is begin($w, 'a', 'pro', '2026-05-01T12:11:00Z')->{customer_intent}, $b->{customer_intent}, 'but the same customer';
isnt begin($w, 'a', 'pro', '2026-05-03T12:00:00Z')->{customer_intent}, $b->{customer_intent}, "until Stripe's key is gone";
is $w->value(q{SELECT ent_version FROM billing.accounts WHERE external_id = 'a'}), $before, 'beginning changes nothing (C8)';
is begin($w, 'nobody', 'pro')->{outcome}, 'unknown_account', 'an unknown account';
is begin($w, 'a', $_)->{outcome}, 'unknown_price', "unknown price $_" for 'gold', '';
$w->d->do(q{SELECT * FROM billing.customer_link('a', 'cus_a')});
is some(begin($w, 'a', 'pro'), qw(customer customer_intent)), 'cus_a -', 'a linked customer is used ever after';

# Opening, using again, replacing.
$b = begin($w, 'a', 'pro');
is opened('a', $b->{intent}, 'cs_1'), 'open', 'the session is stored';
is opened('a', $b->{intent}, 'cs_1'), 'open', 'also by the others who shared the key';
is some(begin($w, 'a', 'pro'), qw(outcome session url intent)), 'reuse cs_1 https://pay/cs_1 -', 'the same price: the same session';
$w->d->do(q{INSERT INTO billing.subscriptions (subscription_id, account_id, status) SELECT 'sub_had', id, 'canceled' FROM billing.accounts WHERE external_id = 'a'});
is some(begin($w, 'a', 'pro'), qw(outcome session first)), 'replace cs_1 0', 'C6: one with the trial of a first subscription is not used for the second';
$w->d->do('DELETE FROM billing.subscriptions');
is some(begin($w, 'a', 'pro'), qw(outcome session first)), 'reuse cs_1 1', 'but for the first it is';
my $r = begin($w, 'a', 'starter');
is some($r, qw(outcome session mode plan)), 'replace cs_1 subscription starter', 'another price: the open one is to be replaced';
is opened('a', $r->{intent}, 'cs_2'), 'superseded', 'not while it is open';
is closed('cs_1', 'expired'), 1, 'it is closed';
is closed('cs_1', 'expired'), 0, 'once';
is opened('a', $r->{intent}, 'cs_2'), 'open', 'then the new one is';
is some(begin($w, 'a', 'starter', '2026-05-01T12:59:30Z'), qw(outcome session)), 'replace cs_2', 'one that is about to expire is replaced';
is some(begin($w, 'a', 'starter', '2026-05-01T13:00:00Z'), qw(outcome session)), 'create -', 'one that has expired is forgotten';
is $w->value(q{SELECT string_agg(status, ' ' ORDER BY session_id) FROM billing.checkout_sessions}), 'expired expired', 'and closed';
my ($x, $y) = (begin($w, 'a', 'pro'), begin($w, 'a', 'starter'));
is opened('a', $x->{intent}, 'cs_3'), 'superseded', 'two tabs, two plans: the earlier one is superseded';
is opened('a', $y->{intent}, 'cs_4'), 'open', 'the later one stands';
is opened('a', 'subscription:00000000-0000-0000-0000-000000000000', 'cs_5'), 'superseded', 'an intent that there is not';
closed('cs_4', 'expired');
$b = begin($w, 'a', 'pro');
$w->d->do('SELECT billing.checkout_failed($1)', undef, $b->{intent});
isnt begin($w, 'a', 'pro')->{intent}, $b->{intent}, 'after a definite no the key is not used again';

# The event is faster than the answer.
$b = begin($w, 'a', 'pro');
$w->event('a', { kind => 'checkout_completed', session => 'cs_6', mode => 'subscription', payment_status => 'paid', price => 'price_pro' },
    [StripeWorld::sub_of('sub_a', 'active', 'pro')]);
is opened('a', $b->{intent}, 'cs_6'), 'complete', 'a session that is paid already does not open again';
is $w->value(q{SELECT url FROM billing.checkout_sessions WHERE session_id = 'cs_6'}), 'https://pay/cs_6', 'it is completed';
is begin($w, 'a', 'pro')->{outcome}, 'subscribed', 'and the account is subscribed';

# Paid, and the event is on the way: no second session until it has come.
$w->account('p');
$b = begin($w, 'p', 'pro');
opened('p', $b->{intent}, 'cs_p');
closed('cs_p', 'paid');
is begin($w, 'p', 'starter')->{outcome}, 'paid', 'C5: a checkout that has been paid stands in the way at once' for 1, 2;
$w->event('p', { kind => 'checkout_completed', session => 'cs_p', mode => 'subscription', payment_status => 'paid', price => 'price_pro' },
    [StripeWorld::sub_of('sub_p', 'canceled', 'pro')]);
is begin($w, 'p', 'pro')->{outcome}, 'create', 'until its event has told what has become of it';

# Over before its answer was stored.
$w->account('q');
$b = begin($w, 'q', 'pro');
$w->event('q', { kind => 'checkout_expired', session => 'cs_q', mode => 'subscription' });
is opened('q', $b->{intent}, 'cs_q'), 'expired', 'what has expired does not open afterwards';
is begin($w, 'q', 'pro')->{outcome}, 'create', 'and is not handed out';

$w->account('e');
$b = begin($w, 'e', 'pro');
opened('e', $b->{intent}, 'cs_e');
$w->event('e', { kind => 'checkout_expired', session => 'cs_e' });
is begin($w, 'e', 'pro')->{outcome}, 'create', 'an expired session makes room';
$w->event('e', { kind => 'checkout_completed', session => 'cs_e', mode => 'subscription', payment_status => 'paid' }, []);
is closed('cs_e', 'expired'), 0, 'what is complete does not expire';

# Whoever has a subscription that is not over.
for my $status (qw(active trialing past_due unpaid paused incomplete novel)) {
    my $name = "s-$status";
    $w->account($name);
    $w->event($name, { kind => 'subscription' }, [StripeWorld::sub_of("sub_$status", $status, 'starter')]);
    my $s = begin($w, $name, 'pro');
    is $s->{outcome}, 'subscribed', "$status: no second subscription (C5)";
    is $s->{current_plan}, $status =~ /incomplete/ ? 'free' : 'starter', 'the plan is told';
    is begin($w, $name, 'pack')->{outcome}, 'create', 'packs can always be bought';
}
$w->account("s-$_") for qw(canceled incomplete_expired);
for my $status (qw(canceled incomplete_expired)) {
    $w->event("s-$status", { kind => 'subscription' }, [StripeWorld::sub_of("sub_$status", $status, 'starter')]);
    is begin($w, "s-$status", 'pro')->{outcome}, 'create', "$status: may subscribe again";
}

# A subscription that is just being applied.
$w->account('h');
my $holder = $w->again(5000);
$holder->d->begin_work;
$holder->event('h', { kind => 'subscription' }, [StripeWorld::sub_of('sub_h', 'active', 'starter')]);
pipe my $from, my $to;
my $pid = fork // die;
if (!$pid) {
    print {$to} begin($w->again, 'h', 'pro')->{outcome};
    close $to;
    POSIX::_exit(0);
}
close $to;
$w->wait_for(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'});
$holder->d->commit;
is readline $from, 'subscribed', 'who begins while a subscription is being applied waits, and is told';
waitpid $pid, 0;

# Packs.
$w->account('p');
$b = begin($w, 'p', 'pack');
is some($b, qw(outcome mode plan credit quantity)), 'create payment - logo 10', 'a pack';
my $sub = begin($w, 'p', 'pro');
is begin($w, 'p', 'pack')->{intent}, $b->{intent}, 'a double click shares its intent, a subscription beside it does not matter';
is opened('p', $b->{intent}, 'cs_p1'), 'open', 'stored';
is opened('p', $sub->{intent}, 'cs_p2'), 'open', 'and the subscription too';
isnt begin($w, 'p', 'pack')->{intent}, $b->{intent}, 'another pack is another intent';
is opened('p', begin($w, 'p', 'pack')->{intent}, 'cs_p3'), 'open', 'any number of packs';

# Twenty at once, as from twenty hosts.
$w->account('z', unlinked => 1);
my @got = $w->at_once(20, sub { begin($_[0], 'z', 'pro') });
is scalar(@got), 20, 'twenty begin at once';
my %seen = map { my $g = $_; map { ("$_ $g->{$_}" => 1) } qw(outcome intent customer_intent) } @got;
is scalar(keys %seen), 3, 'and share one intent and one customer' or diag explain \%seen;
my @said = $w->at_once(20, sub { $_[0]->value('SELECT billing.checkout_opened($1, $2, $3, $4, NULL)', 'z', $got[0]{intent}, "cs_z", 'u') });
is_deeply [grep { $_ ne 'open' } @said], [], 'all store the one session that Stripe gives for it';
@said = $w->at_once(10, sub {
    my ($mine, $n) = @_;
    my $price = $n % 2 ? 'pro' : 'starter';
    for my $try (1 .. 20) {
        my $b = begin($mine, 'z', $price);
        return $b->{session} if $b->{outcome} eq 'reuse';
        $mine->value('SELECT billing.checkout_closed($1, $2)', $b->{session}, 'expired') if $b->{outcome} eq 'replace';
        my $session = "cs_" . $b->{intent};
        my $said = $mine->value('SELECT billing.checkout_opened($1, $2, $3, $4, NULL)', 'z', $b->{intent}, $session, 'u');
        return $session if $said eq 'open';
    }
    return 'never';
});
is_deeply [grep { !/^cs_/ } @said], [], 'ten tabs that want two different plans: each gets a session' or diag explain \@said;
is $w->value(q{SELECT count(*) FROM billing.checkout_sessions c JOIN billing.accounts a ON a.id = account_id
    WHERE external_id = 'z' AND c.status = 'open'}), 1, 'and one is open in the end';
done_testing;
