# Promise (W3): each stored event is worked off by one worker at a time; whoever dies loses it to another by time alone and
# can change nothing afterwards; failures are tried five times, outages and lost leases use no try up; what is dead is kept.
use strict;
use warnings;
use Test::More;
use FindBin qw($Bin);
require "$Bin/stripe_world.pl";

my $w = StripeWorld->new;
sub claim { return map { $_->{event_id} } @{ $w->rows('SELECT * FROM billing.stripe_event_claim($1, $2)', $_[0], $_[1] // '1 min') } }
sub replay { return $w->value(q{SELECT jsonb_array_length(billing.events_replay($1, NULL, 'test') -> 'replayed')}, $_[0] && [$_[0]]) }
sub clear { $w->d->do('DELETE FROM billing.webhook_events') }
sub failed { return $w->value('SELECT billing.stripe_event_failed($1, $2, $3, $4, $5)', '', @_) }
sub of { my ($column, $event) = @_; return $w->value("SELECT $column FROM billing.webhook_events WHERE event_id = \$1", $event) }
sub due { $w->d->do('UPDATE billing.webhook_events SET next_attempt_at = now() WHERE event_id = $1', undef, $_[0]) }
sub wait_of { return of('extract(epoch FROM next_attempt_at - clock_timestamp())', $_[0]) }

# Order and customers.
$w->store('evt_b', customer => 'cus_1', at => 20);
$w->store('evt_a', customer => 'cus_1', at => 10);
$w->store('evt_c', customer => 'cus_2', at => 15);
$w->store('evt_d', at => 5);
$w->store('evt_e', at => 15, customer => 'cus_3');
is_deeply [claim(10)], [qw(evt_d evt_a evt_c evt_e)], 'by the time at Stripe, then by arrival; one for each customer';
is_deeply [claim(10)], [], 'nothing of a customer while another event of it is under way';
is failed('evt_a', 1, 'x', 't'), 'retry', 'the first one fails';
is_deeply [claim(10)], ['evt_b'], 'and does not hold up the next of its customer while it waits';
due('evt_a');
is_deeply [claim(10)], [], 'its turn comes when that is done';
clear();
$w->store("evt_$_", at => $_) for 1 .. 5;
is_deeply [claim(2)], ['evt_1', 'evt_2'], 'no more than asked for';
my ($row) = @{ $w->rows(q{SELECT * FROM billing.stripe_event_claim(1, '1 min')}) };
is "@$row{qw(event_id attempt type livemode stripe_created payload)}", 'evt_3 1 test 0 3 {}', 'with all that processing needs';
ok !eval { claim(0); 1 }, 'a batch of none is refused';
clear();

# Lease and fencing.
$w->store('evt_l', customer => 'cus_1');
$w->store('evt_m', customer => 'cus_1', at => 1_800_000_001);
is_deeply [claim(5, '0.2 s')], ['evt_l'], 'a worker takes an event and dies';
$w->wait_for(q{SELECT next_attempt_at < now() FROM billing.webhook_events WHERE event_id = 'evt_l'});
is_deeply [claim(5)], ['evt_l'], 'its lease over, another gets it';
is of('attempts', 'evt_l'), 2, 'as the second attempt';
is failed('evt_l', 1, 'x', 't'), 'stale', 'the first cannot say that it failed';
is $w->value('SELECT billing.stripe_event_ignore($1, $2, 1, $3)', '', 'evt_l', 'x'), 0, 'nor ignore it';
is $w->value('SELECT billing.stripe_event_park($1, $2, 1, $3, NULL)', '', 'evt_l', 'cus_1'), 'stale', 'nor park it';
my $id = $w->account('l', unlinked => 1);
ok !eval { $w->value('SELECT billing.stripe_apply($1, $2, 1, $3, 1, NULL, $4)', '', 'evt_l', $id, '{"kind": "customer_updated", "seen": {"name": "N"}}'); 1 },
    'nor apply it';
is $w->d->state, 'BI001', 'with a code of its own';
is $w->value('SELECT name FROM billing.accounts WHERE id = $1', $id), undef, 'and nothing of its work stays';
is of('status', 'evt_l'), 'processing', 'the second attempt is in force';
ok $w->value('SELECT billing.stripe_apply($1, $2, 2, $3, NULL, NULL, $4)', '', 'evt_l', $id, '{"kind": "none"}'), 'and applies it';
is of('status', 'evt_l'), 'processed', 'once';
ok !eval { $w->value('SELECT billing.stripe_apply($1, $2, 2, $3, NULL, NULL, $4)', '', 'evt_l', $id, '{"kind": "none"}'); 1 }, 'not twice';
is_deeply [claim(5)], ['evt_m'], 'then the next of its customer';
is $w->value('SELECT billing.stripe_event_ignore($1, $2, 1, $3)', '', 'evt_m', 'not ours'), 1, 'which turns out to be nothing';
is of("status || ': ' || last_error", 'evt_m'), 'ignored: not ours', 'and stays as such';

# Back-off: 5, 10, 20, 40 s, then dead.
$w->store('evt_f', customer => 'cus_f');
for my $n (1 .. 5) {
    due('evt_f');
    is_deeply [claim(5)], ['evt_f'], "try $n";
    my $said = failed('evt_f', $n, "error $n", 't');
    is $said, $n < 5 ? 'retry' : 'dead', "try $n: $said";
    next if $n == 5;
    my $wait = wait_of('evt_f');
    my $want = 5 * 2**($n - 1);
    ok $wait > $want * 0.79 && $wait < $want * 1.21, "waits about $want s" or diag $wait;
    is_deeply [claim(5)], [], 'and is not handed out before';
}
is of("status || ' ' || last_error", 'evt_f'), 'dead error 5', 'dead, with the last error';
due('evt_f');
is_deeply [claim(5)], [], 'the dead are not handed out';
is $w->value(q{SELECT count(*) FROM billing.outbox WHERE topic = 'alarm' AND payload ->> 'event' = 'evt_f'
    AND payload ->> 'alarm' = 'event_dead'}), 1, 'an alarm';
is replay('evt_f'), 1, 'replayed by hand';
is_deeply [claim(5)], ['evt_f'], 'it is tried again';
is of('attempts', 'evt_f'), 6, 'under a new attempt';
is failed('evt_f', 6, 'x', 't'), 'retry', 'with five new tries';
is replay('evt_f'), 1, 'what waits for its next try is tried at once';
is_deeply [claim(5)], ['evt_f'], 'it is';
is replay('evt_f'), 0, 'what is in work is not replayed';
is replay($_->[0]), 1, "what was $_->[1] is" for ['evt_l', 'processed'], ['evt_m', 'ignored'];
clear();

# A lease that runs out uses no try up: nobody said that the event failed. But one that kills whoever takes it ends.
$w->store('evt_p', customer => 'cus_p');
for my $n (1 .. 8) {
    due('evt_p');
    is_deeply [claim(5)], ['evt_p'], "W3: nothing is heard of attempt $n";
}
is of("failures || ' ' || losses", 'evt_p'), '0 7', 'W3: an answer that was lost, a killed worker: none of the five tries is gone';
is failed('evt_p', 8, 'no', 't'), 'retry', 'then a failure';
is of("failures || ' ' || losses", 'evt_p'), '1 0', 'is the first, and shows that the event kills nobody';
for my $n (1 .. 20) {
    due('evt_p');
    is_deeply [claim(5)], ['evt_p'], "a worker dies on it: $n";
}
due('evt_p');
is_deeply [claim(5)], [], 'an event that kills twenty workers in a row meets no other';
is of("status || ': ' || last_error", 'evt_p'), 'dead: its lease ran out', 'it is dead';
is $w->value(q{SELECT count(*) FROM billing.outbox WHERE payload ->> 'event' = 'evt_p' AND payload ->> 'alarm' = 'event_dead'}), 1, 'an alarm';
$w->d->do(q{UPDATE billing.webhook_events SET received_at = now() - interval '1 day'});
$w->store('evt_q', customer => 'cus_q');
is replay(), 1, 'all dead ones at once';
is of("status || ' ' || losses", 'evt_p'), 'received 0', 'are tried again';
clear();

# Stripe or PostgreSQL away: no try is used up, the wait grows to ten minutes.
$w->store('evt_u', customer => 'cus_u');
my @waits;
for my $n (1 .. 12) {
    due('evt_u');
    claim(5);
    is failed('evt_u', $n, 'connect: timed out', 'f'), 'retry', "outage $n";
    push @waits, wait_of('evt_u');
}
ok $waits[0] > 3.9 && $waits[0] < 6.1, 'from 5 s';
ok $waits[11] > 470 && $waits[11] <= 720, 'to 10 min' or diag "@waits";
is of('failures', 'evt_u'), 0, 'none of the five tries is gone';
due('evt_u');
claim(5);
is failed('evt_u', 13, 'no', 't'), 'retry', 'then a failure';
ok wait_of('evt_u') < 6.1, 'counts from the start';
clear();

# Many workers, many events, some workers dying: everything is worked off, no customer twice at once, nothing applied twice.
$w->account("c$_") for 0 .. 9;
$w->store("evt_x$_", customer => 'cus_c' . $_ % 10, at => $_) for 1 .. 100;
$w->d->do('CREATE TABLE public.applied (event text PRIMARY KEY)');
my @errors = $w->at_once(6, sub {
    my ($mine, $n) = @_;
    srand $n;
    my $d = $mine->d;
    my $until = time + 60;
    while (time < $until) {
        my @got = @{ $mine->rows(q{SELECT event_id, attempt, customer_id FROM billing.stripe_event_claim(3, '1 s')}) };
        if (!@got) {
            return '' if !$mine->value(q{SELECT count(*) FROM billing.webhook_events WHERE status IN ('received', 'processing')});
            select undef, undef, undef, 0.02;
            next;
        }
        return 'two of one customer' if $mine->value(q{SELECT count(*) FROM (SELECT FROM billing.webhook_events
            WHERE status = 'processing' AND next_attempt_at > clock_timestamp() GROUP BY lane HAVING count(*) > 1) x});
        for my $e (@got) {
            next if rand() < 0.1;    # the worker dies with it: its lease runs out
            $d->begin_work;
            $d->do('INSERT INTO public.applied VALUES ($1)', undef, $e->{event_id});
            my $ok = eval {
                $mine->value('SELECT billing.stripe_apply($1, $2, $3, (SELECT id FROM billing.accounts WHERE stripe_customer_id = $4),
                    NULL, NULL, $5)', '', $e->{event_id}, $e->{attempt}, $e->{customer_id}, '{"kind": "none"}');
                1;
            };
            if ($ok) { $d->commit; next }
            $d->rollback;
            return $@ if $@ !~ /is not in force/;
        }
    }
    return 'not done in time';
});
is_deeply [grep { $_ } @errors], [], 'six workers, some of which die: no error, never two of a customer';
is $w->value(q{SELECT count(*) FROM billing.webhook_events WHERE status = 'processed'}), 100, 'all events are processed';
is $w->value('SELECT count(*) FROM public.applied'), 100, 'each once';

# Two claims at the same moment give one customer's events to one worker.
clear();
$w->store("evt_y$_", customer => 'cus_y', at => $_) for 1 .. 8;
my @got = $w->at_once(8, sub { [map { $_->{event_id} } @{ $_[0]->rows(q{SELECT * FROM billing.stripe_event_claim(5, '1 min')}) }] });
is join(' ', map { @$_ } @got), 'evt_y1', 'eight claims at once: one event of the customer, the oldest';
done_testing;
