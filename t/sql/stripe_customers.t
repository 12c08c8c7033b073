# Promise (C4, W11, A34): one account has one customer, however many link at once; a customer never moves to another account; an event
# that came before its customer was known is processed when it is, and not lost in between.
use strict;
use warnings;
use Test::More;
use FindBin qw($Bin);
require "$Bin/stripe_world.pl";

my $w = StripeWorld->new;
sub link_ { my ($world, @who) = @_; my $r = $world->row('SELECT * FROM billing.customer_link($1, $2)', @who); return $r ? "$r->{outcome} $r->{customer}" : 'nobody' }
sub customer { return $w->value('SELECT stripe_customer_id FROM billing.accounts WHERE external_id = $1', $_[0]) // '-' }
sub status { return $w->value('SELECT status FROM billing.webhook_events WHERE event_id = $1', $_[0]) }
sub park { my ($event, $customer, $reason) = @_; return $w->value('SELECT billing.stripe_event_park($1, $2, $3, $4, $5)', '', $event, $w->take($event), $customer, $reason) }
sub ticket {
    my $r = $w->row('SELECT * FROM billing.customer_ticket($1, $2)', @_) or return 'unknown';
    return join ' ', map { $_ // '-' } @$r{qw(account customer ticket)}, $r->{conflict} ? 'conflict' : ();
}

$w->account("a$_", unlinked => 1) for 1 .. 6;

# Linking.
is link_($w, 'a1', 'cus_1'), 'linked cus_1', 'linked';
is link_($w, 'a1', 'cus_1'), 'already cus_1', 'again: already';
is link_($w, 'a1', 'cus_9'), 'already cus_1', 'another customer: the link in force is told and stays';
is link_($w, 'nobody', 'cus_9'), 'nobody', 'an unknown account';
ok !eval { link_($w, 'a2', 'cus_1'); 1 }, "another account's customer is refused";
is $w->d->state, 'BI002', 'with a code of its own';
ok !eval { link_($w, 'a2', ''); 1 }, 'no customer is refused';
is customer('a2'), '-', 'and nothing is linked';
is $w->value(q{SELECT after ->> 'customer' FROM billing.audit_log WHERE action = 'customer.link'}), 'cus_1', 'the link is audited';
is $w->value(q{SELECT ent_version FROM billing.accounts WHERE external_id = 'a1'}), 1, 'nothing of it is in the snapshot';

my @said = $w->at_once(20, sub { link_($_[0], 'a3', "cus_3$_[1]") });
is scalar(grep { /^linked/ } @said), 1, '20 customers for one account at once: one is linked';
is_deeply [grep { !/ \Q${\customer('a3')}\E$/ } @said], [], 'and everybody is told which';
@said = $w->at_once(20, sub { $_[0]->d->do('SELECT billing.ensure_accounts($1)', undef, ["r$_[1]"]); link_($_[0], "r$_[1]", 'cus_r') });
is scalar(grep { /^linked cus_r$/ } @said), 1, 'one customer for 20 accounts at once: one gets it';
is scalar(grep { /belongs to another account/ } @said), 19, 'the others are refused';

# Tickets.
is ticket('cus_1', undef), 'a1 cus_1 1', 'a known customer: its account and a ticket';
is ticket('cus_1', undef), 'a1 cus_1 2', 'each look has a later one';
is ticket('cus_x', undef), 'unknown', 'an unknown customer';
is ticket(undef, undef), 'unknown', 'no customer';
is ticket('cus_x', 'a4'), 'a4 - 1', 'an unknown customer whose session names an account without one';
is ticket(undef, 'a4'), 'a4 - 2', 'a session without customer';
is ticket('cus_1', 'a1'), 'a1 cus_1 3', 'a session that agrees with the link';
is ticket('cus_1', 'a4'), 'a1 cus_1 - conflict', 'a session that names another account than the link: no ticket';
is ticket('cus_x', 'a1'), 'a1 cus_1 - conflict', 'an account that has another customer: no ticket';
is ticket('cus_x', 'nobody'), 'unknown', 'a session that names nobody';

# Parking.
$w->store('evt_p1', customer => 'cus_5');
$w->store('evt_p2', customer => 'cus_5');
$w->store('evt_p3', customer => 'cus_6');
is park($_->[0], $_->[1]), 'parked', "$_->[0] is parked" for ['evt_p1', 'cus_5'], ['evt_p2', 'cus_5'], ['evt_p3', 'cus_6'];
is $w->value(q{SELECT count(*) FROM billing.stripe_event_claim(10, '1 min')}), 0, 'what is parked is not handed out';
my $listener = $w->db->dbi;
$listener->do('LISTEN billing_inbox');
link_($w, 'a5', 'cus_5');
is_deeply [map { status("evt_p$_") } 1 .. 3], [qw(received received parked)], "the link releases its customer's events";
$listener->do('SELECT 1');
ok $listener->pg_notifies, 'and wakes the jobs';
$w->store('evt_p4', customer => 'cus_5');
is park('evt_p4', 'cus_5'), 'received', 'an event whose customer was linked meanwhile is not parked';
$w->store('evt_p5', customer => 'cus_5');
is park('evt_p5', 'cus_5', 'its session names account a1'), 'parked', 'one that contradicts the link is';
is $w->value(q{SELECT payload ->> 'reason' FROM billing.outbox WHERE topic = 'alarm'}), 'its session names account a1', 'with an alarm';

# Parking and linking at the same moment, from both sides.
$w->account("m$_", unlinked => 1) for 1 .. 30;
$w->store("evt_m$_", customer => "cus_m$_") for 1 .. 30;
my %attempt = map { $_ => $w->take("evt_m$_") } 1 .. 30;
my @errors = $w->at_once(2, sub {
    my ($mine, $side) = @_;
    for my $n (1 .. 30) {
        if ($side == 1) { $mine->value('SELECT billing.stripe_event_park($1, $2, $3, $4, NULL)', '', "evt_m$n", $attempt{$n}, "cus_m$n") }
        else            { link_($mine, "m$n", "cus_m$n") }
    }
    return '';
});
is_deeply \@errors, ['', ''], 'both go through';
is $w->value(q{SELECT count(*) FROM billing.webhook_events WHERE event_id LIKE 'evt_m%' AND status = 'received'}), 30,
    'parked and linked at once: no event stays behind';
# The same, held at the worst moment: the link is not committed when the event is parked.
$w->store('evt_w', customer => 'cus_w');
my $attempt = $w->take('evt_w');
my $holder = $w->db->dbi;
$holder->begin_work;
$holder->do(q{SELECT * FROM billing.customer_link('a6', 'cus_w')});
my $pid = fork // die;
if (!$pid) {
    my $mine = $w->db->dbi;
    $mine->do('SELECT billing.stripe_event_park($1, $2, $3, $4, NULL)', undef, '', 'evt_w', $attempt, 'cus_w');
    POSIX::_exit(0);
}
$w->wait_for(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'});
$holder->commit;
waitpid $pid, 0;
is status('evt_w'), 'received', 'the parking waits for the link, and sees it';

# A customer that is gone.
is $w->value('SELECT billing.customer_unlink($1, $2)', 'a6', 'cus_other'), 'other', 'only the customer in force can be dropped';
is $w->value('SELECT billing.customer_unlink($1, $2)', 'a6', 'cus_w'), 'unlinked', 'dropped';
is customer('a6'), '-', 'the account has none';
is link_($w, 'a6', 'cus_w2'), 'linked cus_w2', 'and gets another';
$w->event('a6', { kind => 'subscription' }, [StripeWorld::sub_of('sub_6', 'active', 'pro')], customer => 'cus_w2',
    ticket => $w->value(q{SELECT ticket FROM billing.customer_ticket('cus_w2', NULL)}));
is $w->value('SELECT billing.customer_unlink($1, $2)', 'a6', 'cus_w2'), 'live', 'one with a subscription is not dropped on hearsay';

# A checkout of ours links, by its own event, what the endpoint could not.
$w->account('late', unlinked => 1);
$w->store('evt_before', customer => 'cus_late');
is park('evt_before', 'cus_late'), 'parked', 'an event before the link';
$w->event('late', { kind => 'checkout_completed', session => 'cs_late', mode => 'subscription', customer => 'cus_late',
    payment_status => 'paid' }, [StripeWorld::sub_of('sub_late', 'active', 'pro')], customer => 'cus_late',
    ticket => $w->value(q{SELECT ticket FROM billing.customer_ticket('cus_late', 'late')}));
is customer('late'), 'cus_late', 'the checkout links its customer';
like $w->state_of('late'), qr/^pro active/, 'and applies';
is status('evt_before'), 'received', 'what waited goes on';
$w->account('later', unlinked => 1);
link_($w, 'later', 'cus_later');
ok !eval { $w->event('later', { kind => 'checkout_completed', session => 'cs_x', mode => 'subscription', customer => 'cus_z' },
    undef, customer => 'cus_z'); 1 }, 'a checkout never replaces a link';
is $w->d->state, 'BI002', 'it is refused';

# Somebody who paid slowly as a customer that is gone by now (W10).
$w->account('o', unlinked => 1);
$w->d->do(q{SELECT * FROM billing.customer_link('o', 'cus_o1')});
is $w->value(q{SELECT billing.customer_unlink('o', 'cus_o1')}), 'unlinked', 'a customer is gone';
$w->d->do(q{SELECT * FROM billing.customer_link('o', 'cus_o2')});
like ticket('cus_o1', 'o'), qr/^o cus_o2 \d+$/, 'what was begun with it is still the account of that time';
like ticket('cus_o3', 'o'), qr/conflict/, 'and nothing else is';
done_testing;
